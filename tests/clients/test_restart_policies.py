"""`--restart`: who is started again, after how long, and what ends it; seen through the clients."""

from __future__ import annotations

import itertools
import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.cli import Cli
from support.engine import Engine
from support.machine import eventually

Names = Callable[[], str]


def state(engine: Engine, one: str) -> dict[str, Any]:
    shown: dict[str, Any] = engine.api.inspect(one)["State"]
    return shown


def restarts(engine: Engine, one: str) -> int:
    return int(engine.api.inspect(one)["RestartCount"])


def starts(engine: Engine, one: str) -> list[int]:
    """When it was started, nanoseconds."""
    lines = engine.docker("logs", "-t", one).lines
    moments = [line.split()[0] for line in lines]
    return [
        int(time.mktime(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))) * 10**9 + int(text[20:29])
        for text in moments
    ]


def test_always_backs_off_and_stop_ends_it(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "-d", "--restart", "always", "--name", one, busybox, "sh", "-c", "echo up; exit 3")
    eventually(lambda: restarts(engine, one) >= 4)
    eventually(lambda: state(engine, one)["Status"] == "restarting")
    now = state(engine, one)
    assert (now["Running"], now["Restarting"], now["Pid"], now["ExitCode"]) == (True, True, 0, 3)
    assert re.fullmatch(
        r"Restarting \(3\) .* ago", cli("ps", "-f", f"name={one}", "--format", "{{.Status}}").out.strip()
    )
    assert cli("ps", "-q", "--no-trunc", "-f", "status=restarting", "-f", f"name={one}").out.strip()
    cli("stop", one)
    now = state(engine, one)
    assert (now["Status"], now["Running"], now["ExitCode"]) == ("exited", False, 3)
    count = restarts(engine, one)
    moments = starts(engine, one)
    gaps = [(after - before) / 1e9 for before, after in itertools.pairwise(moments)]
    for gap, wait in zip(gaps, (0.1, 0.2, 0.4, 0.8), strict=False):
        assert gap >= wait, gaps
    assert gaps[0] < 0.8 + 0.1, gaps
    time.sleep(1.5)
    assert (restarts(engine, one), state(engine, one)["Status"]) == (count, "exited")


def test_on_failure_counts(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one, well = name(), name()
    cli("run", "-d", "--restart", "on-failure:2", "--name", one, busybox, "sh", "-c", "echo up; exit 9")
    cli("run", "-d", "--restart", "on-failure", "--name", well, busybox, "sh", "-c", "echo up; exit 0")
    eventually(lambda: (restarts(engine, one), state(engine, one)["Status"]) == (2, "exited"))
    assert state(engine, one)["ExitCode"] == 9
    assert cli("logs", one).out == "up\n" * 3
    assert (restarts(engine, well), state(engine, well)["Status"]) == (0, "exited")
    cli("start", one)  # by hand: it counts from the beginning
    eventually(lambda: cli("logs", one).out == "up\n" * 6)
    eventually(lambda: (restarts(engine, one), state(engine, one)["Status"]) == (2, "exited"))


@pytest.mark.dealt
@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure"])
def test_what_is_stopped_or_killed_stays_ended(
    cli: Cli, engine: Engine, busybox: str, name: Names, policy: str
) -> None:
    stopped, killed = name(), name()
    for one in (stopped, killed):
        cli("run", "-d", "--restart", policy, "--name", one, busybox, "sleep", "100")
    cli("stop", "-t", "0", stopped)
    cli("kill", killed)
    time.sleep(0.5)
    for one in (stopped, killed):
        assert (state(engine, one)["Status"], restarts(engine, one)) == ("exited", 0), one


def test_a_crash_is_restarted(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "-d", "--restart", "unless-stopped", "--name", one, busybox, "sleep", "100")
    pid = engine.api.pid(one)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: state(engine, one)["Running"] and state(engine, one)["Pid"] not in (0, pid))
    assert restarts(engine, one) == 1
    cli("restart", "-t", "0", one)
    assert restarts(engine, one) == 0


def test_what_is_refused_while_it_restarts(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "-d", "--restart", "always", "--name", one, busybox, "false")
    # a back-off that is long enough to look at it
    eventually(lambda: restarts(engine, one) >= 5 and state(engine, one)["Restarting"], timeout=30)
    for arguments in (("exec", one, "true"), ("pause", one)):
        assert "is restarting, wait until the container is running" in cli(*arguments, code=1).err
    attached = cli("attach", one, code=1)
    assert "cannot attach to a restarting container, wait until it is running" in attached.err
    assert engine.api("POST", f"/containers/{one}/attach?stream=1").status == 409
    assert "container is restarting: stop the container" in cli("rm", one, code=1).err
    assert engine.api("POST", f"/containers/{one}/start").status == 304
    assert state(engine, one)["Restarting"]
    begun = time.monotonic()
    cli("kill", one)
    assert state(engine, one)["Status"] == "exited"
    cli("start", one)
    cli("rm", "-f", one)
    assert time.monotonic() - begun < 10
    assert engine.api("GET", f"/containers/{one}/json").status == 404


@pytest.mark.release28
def test_refusals(cli: Cli, busybox: str, name: Names) -> None:
    def refused(*flags: str) -> str:
        done = cli("create", "--name", name(), *flags, busybox, "true", code=None)
        assert done.code != 0
        return done.err

    assert "AutoRemove" in refused("--rm", "--restart", "always") or "conflicting options" in refused(
        "--rm", "--restart", "always"
    )
    assert "invalid restart policy" in refused("--restart", "sometimes")
    assert "maximum retry count" in refused("--restart", "always:3")
    assert refused("--restart", "on-failure:-1")


def test_wait_with_a_policy(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    """One that does not run is answered at once, and each end counts, also when another start follows."""
    one = name()
    cli("create", "--restart", "on-failure:1", "--name", one, busybox, "sh", "-c", "sleep 0.5; exit 4")
    assert cli("wait", one).out.strip() == "0"
    cli("start", one)
    assert cli("wait", one).out.strip() == "4"
    eventually(lambda: (restarts(engine, one), state(engine, one)["Status"]) == (1, "exited"))


def test_the_policy_is_read_again(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    """One that is taken away ends a loop, one that is given begins one."""
    one, two = name(), name()
    cli("run", "-d", "--restart", "always", "--name", one, busybox, "false")
    eventually(lambda: restarts(engine, one) >= 4 and state(engine, one)["Restarting"])
    cli("update", "--restart", "no", one)
    eventually(lambda: state(engine, one)["Status"] == "exited")
    count = restarts(engine, one)
    cli("run", "-d", "--name", two, busybox, "sleep", "0.7")
    cli("update", "--restart", "on-failure:3", two)
    cli("update", "--restart", "always", two)
    eventually(lambda: restarts(engine, two) >= 1)
    assert (state(engine, one)["Status"], restarts(engine, one)) == ("exited", count)
