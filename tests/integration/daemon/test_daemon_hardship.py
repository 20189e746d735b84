"""A monitor killed, no descriptor left, clients without end: what tells of containers agrees afterwards."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from support.agreement import disagreements
from support.engine import Daemon
from support.machine import Snapshot, alive, eventually, status_field

LOOP = "trap 'exit 5' TERM; while :; do echo tick; sleep 0.05; done"


def monitor_of(pid: int) -> int:
    """The process that serves a container: the parent of its first one."""
    return int(status_field(pid, "PPid"))


def agree(daemon: Daemon) -> None:
    eventually(lambda: not disagreements(daemon), what="; ".join(disagreements(daemon)))


def test_a_killed_monitor_takes_its_container_along_and_no_other(own: Daemon) -> None:
    before = Snapshot.take(str(own.base), str(own.base))
    for name in ("one", "two", "again"):
        restart = ("--restart", "always") if name == "again" else ()
        own.docker("run", "-d", *restart, "--name", name, "-p", "80", own.busybox, "sh", "-c", LOOP)
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    follower = own.docker.start("logs", "-f", "one", **quiet)
    working = own.docker.start("exec", "one", "sleep", "60", **quiet)
    waiting = own.docker.start("wait", "one", **quiet)
    eventually(lambda: "sleep 60" in own.docker("top", "one").out)
    pids = {name: own.api.pid(name) for name in ("one", "two", "again")}
    for name in ("one", "again"):
        os.kill(monitor_of(pids[name]), signal.SIGKILL)
    eventually(lambda: own.api.inspect("one")["State"]["Status"] == "exited")
    eventually(lambda: not alive(pids["one"]) and not alive(pids["again"]))
    eventually(lambda: own.api.inspect("again")["State"]["Pid"] not in (0, pids["again"]))
    assert own.api.inspect("one")["State"]["ExitCode"] == 137
    assert working.wait(20) == 137
    assert [waiting.wait(20), follower.wait(20)] == [0, 0]
    assert own.api.pid("two") == pids["two"]
    agree(own)
    own.docker("start", "one")
    agree(own)

    own.kill9()  # and while nobody looks
    os.kill(monitor_of(pids["two"]), signal.SIGKILL)
    own.start()
    eventually(lambda: own.api.inspect("two")["State"]["Status"] == "exited")
    agree(own)
    own.docker("rm", "-f", "one", "two", "again")
    eventually(lambda: not leaked(own, before), what=str(leaked(own, before)))


def leaked(own: Daemon, before: Snapshot) -> list[str]:
    """What is there beyond `before`, the daemon's own processes left out."""
    now = Snapshot.take(str(own.base), str(own.base))
    now.processes = {text for text in now.processes if "monitor" in text}
    return now.leaked_since(before)


@contextmanager
def few_descriptors(daemon: Daemon, more: int) -> Iterator[None]:
    """Let the daemon open `more` files beyond those it has."""
    assert daemon.process is not None
    pid = daemon.process.pid
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    numbers = [int(name) for name in os.listdir(f"/proc/{pid}/fd")]
    # New ones get the lowest free number: those that are free below the highest count too.
    limit = max(len(numbers) + more, 1)
    while limit - sum(number < limit for number in numbers) < more:
        limit += 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, usual[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)


def test_no_descriptor_left(own: Daemon) -> None:
    """Each request works or is refused in words, nothing is half-made, and all works again afterwards."""
    before = Snapshot.take(str(own.base), str(own.base))
    own.docker("run", "-d", "--name", "lasting", own.busybox, "sh", "-c", LOOP)
    refused = 0
    for more in (1, 3, 5, 8, 13):
        with few_descriptors(own, more):
            for words in (
                ("run", "--name", "tried", "-p", "80", own.busybox, "echo", "fine"),
                ("exec", "lasting", "echo", "fine"),
                ("logs", "--tail", "1", "lasting"),
                ("cp", "lasting:/etc/passwd", "-"),
            ):
                try:
                    done = own.docker(*words, code=None, timeout=3)
                except subprocess.TimeoutExpired:  # it needs several connections at once: one more waits
                    refused += 1
                    continue
                refused += done.code != 0
                assert done.code == 0 or done.err or done.out, (more, words)
        own.api.remove("tried")
        agree(own)
    assert refused > 3
    assert own.docker("run", "--rm", own.busybox, "echo", "fine").out == "fine\n"
    assert own.docker("exec", "lasting", "echo", "fine").out == "fine\n"
    own.docker("rm", "-f", "lasting")
    eventually(lambda: not leaked(own, before), what=str(leaked(own, before)))


def test_more_connections_than_descriptors(own: Daemon) -> None:
    """Clients that say nothing take all descriptors: containers live on, and the daemon after them."""
    own.docker("run", "-d", "--name", "lasting", own.busybox, "sh", "-c", LOOP)
    with few_descriptors(own, 60), ExitStack() as open_ones:
        for _ in range(200):
            one = open_ones.enter_context(socket.socket(socket.AF_UNIX))
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(own.socket)
    assert own.docker("exec", "lasting", "echo", "fine").out == "fine\n"
    agree(own)
    own.docker("rm", "-f", "lasting")
