"""The clock is set again and again, forwards and back: what waits goes by another, and nothing is lost."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from support.agreement import disagreements
from support.engine import Daemon
from support.machine import eventually

HOUR_S = 3600.0
BETWEEN_S = 3.0


@pytest.fixture
def restless(daemon: Daemon) -> Iterator[list[float]]:
    """The clock is set again and again, forwards and back, whatever waits meanwhile; what was done so far."""
    real, steady = time.time(), time.monotonic()
    steps: list[float] = []
    end = threading.Event()

    def set_clock() -> None:
        for seconds in itertools.cycle((HOUR_S, -2 * HOUR_S, HOUR_S)):
            time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)
            steps.append(seconds)
            if end.wait(BETWEEN_S):
                return

    thread = threading.Thread(target=set_clock)
    thread.start()
    try:
        yield steps
    finally:
        end.set()
        thread.join()
        for name in ("lasting", "retried", "stopped"):
            daemon.api.remove(name)
        time.clock_settime(time.CLOCK_REALTIME, real + time.monotonic() - steady)


def last_probe(daemon: Daemon) -> str:
    log = daemon.api.inspect("lasting")["State"]["Health"]["Log"]
    return str(log[-1]["Start"]) if log else ""


def test_the_clock_is_set(daemon: Daemon, restless: list[float]) -> None:
    probe = ("--health-cmd", "true", "--health-interval", "2s")
    script = "trap 'exit 5' TERM; n=0; while :; do n=$((n+1)); echo line $n; sleep 1; done"
    daemon.docker("run", "-d", "--name", "lasting", *probe, daemon.busybox, "sh", "-c", script)
    assert daemon.docker("exec", "lasting", "echo", "fine").out == "fine\n"
    for _ in range(2):
        before = last_probe(daemon)
        eventually(
            lambda before=before: last_probe(daemon) != before,
            timeout=60,
            what="probes go on",
        )
    assert daemon.docker("run", "--rm", daemon.busybox, "sh", "-c", "exit 7", code=7).err == ""
    retried = ("run", "-d", "--name", "retried", "--restart", "on-failure:4", daemon.busybox, "false")
    daemon.docker(*retried)
    eventually(lambda: daemon.api.inspect("retried")["RestartCount"] == 4, timeout=60)
    eventually(lambda: daemon.api.inspect("retried")["State"]["Status"] == "exited", timeout=60)
    begin = time.monotonic()
    daemon.docker("run", "-d", "--name", "stopped", daemon.busybox, "sh", "-c", "trap '' TERM; sleep 600")
    daemon.docker("stop", "-t", "5", "stopped")
    assert 5 < time.monotonic() - begin < 100  # emulated; with the clock that was set it would be an hour
    eventually(lambda: not disagreements(daemon), what="; ".join(disagreements(daemon)))
    daemon.docker("stop", "-t", "20", "lasting")
    assert daemon.api.inspect("lasting")["State"]["ExitCode"] == 5
    lines = daemon.docker("logs", "lasting").lines
    assert lines == [f"line {n}" for n in range(1, len(lines) + 1)] and len(lines) > 5
    assert len(restless) >= 4, restless
