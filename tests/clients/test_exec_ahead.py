"""An exec's process is made while its client asks for the start: nothing of it stays where none asks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engine import Daemon
from support.machine import eventually


@pytest.fixture
def lasting(daemon: Daemon) -> Iterator[str]:
    """A container that stays."""
    daemon.docker("run", "-d", "--name", "lasting", daemon.busybox, "sleep", "600")
    yield "lasting"
    daemon.api.remove("lasting")


def create(daemon: Daemon, container: str, *words: str, **more: object) -> str:
    """Make an exec that tells its output, and do not start it."""
    body = {"Cmd": list(words), "AttachStdout": True, "AttachStderr": True, **more}
    answer = daemon.api("POST", f"/containers/{container}/exec", body)
    assert answer.status == 201, answer.body.decode()
    return str(answer.json()["Id"])


def start(daemon: Daemon, identifier: str) -> str:
    """What it prints, as raw text."""
    answer = daemon.api("POST", f"/exec/{identifier}/start", {"Detach": False, "Tty": True})
    assert answer.status == 200
    return answer.body.decode()


def processes(daemon: Daemon, container: str) -> set[int]:
    """All in the container's pid namespace, zombies too."""
    space = os.readlink(f"/proc/{daemon.api.pid(container)}/ns/pid")
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "ns/pid") == space:
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def runs(daemon: Daemon, container: str) -> list[str]:
    """The execs that have a directory or a cgroup."""
    identifier = daemon.api.inspect(container)["Id"]
    directories = [path.name for path in daemon.exec_root.glob(f"containers/{identifier}/exec/*")]
    leaves = Path("/sys/fs/cgroup").glob(f"**/{identifier}/exec-*")
    return sorted([*directories, *(path.name for path in leaves)])


def test_one_that_nobody_starts_is_gone_and_can_still_be_started(daemon: Daemon, lasting: str) -> None:
    one = create(daemon, lasting, "echo", "late")
    eventually(lambda: len(processes(daemon, lasting)) == 2, what="its process is made")
    eventually(lambda: len(processes(daemon, lasting)) == 1 and not runs(daemon, lasting))
    told = daemon.api.get(f"/exec/{one}/json")
    assert (told["Running"], told["Pid"], told["ExitCode"]) == (False, 0, None)
    assert start(daemon, one) == "late\n"
    assert daemon.api.get(f"/exec/{one}/json")["ExitCode"] == 0


def test_started_at_once(daemon: Daemon, lasting: str) -> None:
    for number in range(20):
        one = create(daemon, lasting, "sh", "-c", f"cat /proc/self/cgroup; exit {number}")
        assert start(daemon, one)
        assert daemon.api.get(f"/exec/{one}/json")["ExitCode"] == number
        answer = daemon.api("POST", f"/exec/{one}/start", {"Detach": False, "Tty": False})
        assert answer.status == 409
    eventually(lambda: len(processes(daemon, lasting)) == 1 and not runs(daemon, lasting))


def test_started_when_its_time_is_over(daemon: Daemon, lasting: str) -> None:
    """The one process ends while the other is made."""
    for number in range(24):
        one = create(daemon, lasting, "echo", "there")
        time.sleep(0.238 + number / 1000)
        assert start(daemon, one) == "there\n"
        assert daemon.api.get(f"/exec/{one}/json")["ExitCode"] == 0
    eventually(lambda: len(processes(daemon, lasting)) == 1 and not runs(daemon, lasting))


def test_several_before_the_first_is_started(daemon: Daemon, lasting: str) -> None:
    made = [create(daemon, lasting, "echo", str(number)) for number in range(5)]
    assert [start(daemon, one) for one in reversed(made)] == ["4\n", "3\n", "2\n", "1\n", "0\n"]
    eventually(lambda: len(processes(daemon, lasting)) == 1 and not runs(daemon, lasting))


@pytest.mark.parametrize(
    ("more", "text"),
    [({"User": "nobody-here"}, "unable to find user nobody-here"), ({"WorkingDir": "/none"}, "/none")],
    ids=["user", "directory"],
)
def test_what_is_wrong_with_it_is_told_at_the_start(
    daemon: Daemon, lasting: str, more: dict[str, str], text: str
) -> None:
    one = create(daemon, lasting, "true", **more)
    assert text in start(daemon, one)
    assert daemon.api.get(f"/exec/{one}/json")["ExitCode"] in (126, 127)
    eventually(lambda: len(processes(daemon, lasting)) == 1 and not runs(daemon, lasting))


def test_the_container_ends_meanwhile(daemon: Daemon, lasting: str) -> None:
    one = create(daemon, lasting, "true")
    assert daemon.api("POST", f"/containers/{lasting}/kill").status == 204
    eventually(lambda: not daemon.api.inspect(lasting)["State"]["Running"])
    answer = daemon.api("POST", f"/exec/{one}/start", {"Detach": False, "Tty": False})
    assert answer.status == 409 and "is not running" in answer.body.decode()


def test_the_container_is_paused_meanwhile(daemon: Daemon, lasting: str) -> None:
    one = create(daemon, lasting, "echo", "thawed")
    daemon.docker("pause", lasting)
    assert daemon.api("POST", f"/exec/{one}/start", {"Detach": False, "Tty": False}).status == 409
    daemon.docker("unpause", lasting)
    assert start(daemon, one) == "thawed\n"
    eventually(lambda: len(processes(daemon, lasting)) == 1 and not runs(daemon, lasting))


def test_the_daemon_is_killed_meanwhile(daemon: Daemon, lasting: str) -> None:
    pid = daemon.api.pid("lasting")
    create(daemon, "lasting", "true")
    daemon.kill9()
    daemon.start()
    assert daemon.api.pid("lasting") == pid
    eventually(lambda: processes(daemon, "lasting") == {pid})
    assert daemon.docker("exec", "lasting", "echo", "again").out == "again\n"
