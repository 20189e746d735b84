"""`wait` and its conditions, `--rm`, forced removals, and what the kernel kills for want of memory."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.cli import Cli
from support.engine import Engine
from support.machine import alive, eventually

Names = Callable[[], str]
EATER = "x=x; while :; do x=$x$x; done"  # doubles in memory


class Waiting:
    """A client that waits for a condition in a thread of its own, its head already received."""

    def __init__(self, engine: Engine, one: str, condition: str) -> None:
        from support.api import UnixConnection

        self._connection = UnixConnection(engine.socket)
        self._connection.request("POST", f"/containers/{one}/wait?condition={condition}")
        response = self._connection.getresponse()  # at once, which says that it waits
        assert response.status == 200
        self.answer: Any = None
        self._thread = threading.Thread(target=lambda: setattr(self, "answer", json.loads(response.read())))
        self._thread.start()

    def code(self, timeout: float = 20) -> int:
        """What it was told."""
        self._thread.join(timeout)
        assert self.answer is not None, "it still waits"
        self._connection.close()
        return int(self.answer["StatusCode"])

    @property
    def waits(self) -> bool:
        return self.answer is None


def test_conditions(engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    engine.docker("create", "--name", one, busybox, "sh", "-c", "read code </code || code=5; exit $code")
    assert Waiting(engine, one, "not-running").code() == 0
    next_exits = [Waiting(engine, one, "next-exit") for _ in range(3)]
    removed = [Waiting(engine, one, "removed") for _ in range(3)]
    time.sleep(0.2)
    assert all(waiting.waits for waiting in next_exits)
    engine.docker("start", one)
    assert [waiting.code() for waiting in next_exits] == [5, 5, 5]
    assert Waiting(engine, one, "not-running").code() == 5
    assert all(waiting.waits for waiting in removed)
    another = Waiting(engine, one, "next-exit")
    engine.docker("rm", one)
    assert [waiting.code() for waiting in removed] == [5, 5, 5]
    assert another.code() == 5
    assert engine.api("POST", f"/containers/{one}/wait").status == 404


def test_a_wait_sees_the_end_before_the_next_start(engine: Engine, busybox: str, name: Names) -> None:
    """A restart policy does not hide an end, and the code is that end's."""
    one = name()
    engine.docker("run", "-d", "--restart", "always", "--name", one, busybox, "sh", "-c", "sleep 0.3; exit 6")
    assert [Waiting(engine, one, "not-running").code() for _ in range(2)] == [6, 6]
    assert Waiting(engine, one, "next-exit").code() == 6
    engine.docker("rm", "-f", one)


def test_a_condition_that_is_none(engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    engine.docker("create", "--name", one, busybox)
    answer = engine.api("POST", f"/containers/{one}/wait?condition=tired")
    assert (answer.status, answer.message) == (400, 'invalid condition: "tired"')


def test_run_rm_is_gone_when_it_returns(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    for code in (0, 3):
        cli("run", "--rm", "--name", one, busybox, "sh", "-c", f"exit {code}", code=code)
        assert engine.api("GET", f"/containers/{one}/json").status == 404


def test_rm_force_meets_the_end_of_its_own(engine: Engine, busybox: str, name: Names) -> None:
    """--rm and `rm -f` at the same moment: both are content, and the name is free."""
    one = name()
    for number in range(12):
        engine.docker("run", "-d", "--rm", "--name", one, busybox, "sleep", "0.1")
        time.sleep(0.01 * number)
        answer = engine.api("DELETE", f"/containers/{one}?force=1")
        assert answer.status in (204, 404), answer.body


def test_rm_force_does_not_wait_for_a_patient_stop(
    cli: Cli, engine: Engine, busybox: str, name: Names
) -> None:
    one = name()
    cli("run", "-d", "--name", one, busybox, "sleep", "100")
    pid = engine.api.pid(one)
    with cli.start("stop", "-t", "60", one) as stopping:
        time.sleep(0.3)
        begun = time.monotonic()
        cli("rm", "-f", one)
        assert time.monotonic() - begun < 5
        assert not alive(pid)
        stopping.communicate(timeout=20)
    cli("create", "--name", one, busybox)


def test_a_second_stop_may_have_less_patience(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "-d", "--name", one, busybox, "sleep", "100")
    with cli.start("stop", "-t", "60", one) as patient:
        time.sleep(0.3)
        begun = time.monotonic()
        cli("stop", "-t", "0", one)
        assert time.monotonic() - begun < 5
        assert patient.wait(20) == 0


def test_a_removal_without_force_does_not_kill_what_is_starting(
    engine: Engine, busybox: str, name: Names
) -> None:
    one = name()
    for _ in range(5):
        engine.docker("create", "--name", one, busybox, "sleep", "100")
        starting = threading.Thread(target=engine.api, args=("POST", f"/containers/{one}/start"))
        starting.start()
        answer = engine.api("DELETE", f"/containers/{one}")
        starting.join()
        if answer.status == 409:
            assert "container is running" in answer.message
            assert engine.api.inspect(one)["State"]["Running"]
            engine.api.remove(one)
        else:
            assert answer.status == 204


def test_out_of_memory(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    begun = time.time()
    done = cli(
        "run", "--name", one, "-m", "16m", "--memory-swap", "16m", busybox, "sh", "-c", EATER, code=None
    )
    state = engine.api.inspect(one)["State"]
    if not state["OOMKilled"] and done.code == 2:
        pytest.skip("the shell noticed before the kernel did")
    assert (done.code, state["OOMKilled"], state["ExitCode"]) == (137, True, 137)
    assert actions(engine, one, begun)[-2:] == ["oom", "die"]
    cli("start", one)
    cli("wait", one)
    cli("rm", one)


def test_out_of_memory_in_an_exec(engine: Engine, busybox: str, name: Names) -> None:
    """The container lives on, and says so; a new start forgets it."""
    one = name()
    begun = time.time()
    engine.docker("run", "-d", "--name", one, "-m", "16m", "--memory-swap", "16m", busybox, "sleep", "100")
    assert engine.docker("exec", one, "sh", "-c", EATER, code=None).code == 137
    eventually(lambda: engine.api.inspect(one)["State"]["OOMKilled"])
    assert engine.api.inspect(one)["State"]["Running"]
    engine.docker("kill", one)
    assert actions(engine, one, begun).count("oom") == 1
    assert engine.api.inspect(one)["State"]["OOMKilled"]
    engine.docker("start", one)
    assert not engine.api.inspect(one)["State"]["OOMKilled"]


def actions(engine: Engine, one: str, since: float) -> list[str]:
    lines = engine.docker(
        *("events", "--since", f"{since:.3f}", "--until", f"{time.time():.3f}"),
        *("-f", f"container={one}", "--format", "{{json .}}"),
    ).lines
    events = [json.loads(line) for line in lines]
    return [event.get("Action") or event["status"] for event in events]
