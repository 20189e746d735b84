"""`top`: the container's processes and no others, as ps on the host shows them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.linux.process import parent
from support import needs
from support.cli import Cli
from support.engine import Engine
from support.machine import cgroup_file, eventually

Names = Callable[[], str]


@pytest.fixture
def two(engine: Engine, busybox: str, name: Names) -> str:
    """A container of three processes, one of another user."""
    one = name()
    engine.docker("run", "-d", "--name", one, busybox, "sh", "-c", "sleep 601 & sleep 602 & wait")
    engine.docker("run", "-d", "--name", name(), busybox, "sleep", "603")
    pid = engine.api.pid(one)
    eventually(lambda: cgroup_file(pid, "pids", "pids.current", "pids.current") == "3")
    return one


def test_the_default_columns(cli: Cli, engine: Engine, two: str) -> None:
    lines = cli("top", two).lines
    assert lines[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    pid = str(engine.api.pid(two))
    assert {line.split()[-1] for line in lines[2:]} == {"601", "602"}
    assert lines[1].split()[:2] == ["root", pid]
    assert {line.split()[2] for line in lines[2:]} == {pid}
    if shutil.which("ps"):

        def the_same() -> bool:
            ps = subprocess.run(["ps", "-ef", "-q", pid], capture_output=True, text=True, check=True).stdout
            rows = [line.split() for line in (cli("top", two).lines[1], ps.splitlines()[1])]
            ours, theirs = ([*row[:3], *row[4:6]] for row in rows)
            return ours == theirs

        # The start of a process is told in minutes since the boot, which ps reckons anew each time.
        eventually(the_same)


def test_an_exec_without_its_reaper(cli: Cli, engine: Engine, two: str) -> None:
    """As with Docker, its program is a child of what stands beside the container, and nothing else shows."""
    with engine.docker.start("exec", two, "sleep", "604") as process:
        eventually(lambda: "sleep 604" in cli("top", two).out)
        first, *_, program = (line.split() for line in cli("top", two).lines[1:])
        assert program[-2:] == ["sleep", "604"] and program[2] == first[2]  # both are the monitor's
        assert len(cli("top", two).lines) == 5
        assert Path(f"/proc/{parent(int(program[1]))}/comm").read_text() == "sampan-reaper\n"
        os.kill(int(program[1]), signal.SIGKILL)
        process.communicate(timeout=30)


@needs.program("ps", "procps")
def test_options_of_ps(cli: Cli, engine: Engine, two: str) -> None:
    pid = str(engine.api.pid(two))
    lines = cli("top", two, "-o", "pid,args").lines
    assert lines[0].split() == ["PID", "COMMAND"]
    assert lines[1].split()[0] == pid
    assert len(lines) == 4
    assert len(cli("top", two, "aux").lines) == 4
    assert len(cli("top", two, "-eLf").lines) == 4


@needs.program("ps", "procps")
def test_mistakes(cli: Cli, engine: Engine, two: str, name: Names, busybox: str) -> None:
    assert "Couldn't find PID field in ps output" in cli("top", two, "-o", "comm", code=1).err
    assert "error: " in cli("top", two, "--no-such-option", code=1).err
    refused = engine.api("GET", f"/containers/{two}/top?ps_args=-o%20pid,user=PID")
    assert (refused.status, refused.message) == (400, 'specifying "pid,user=PID" is not allowed')
    created = engine.docker("create", "--name", name(), busybox, "true").out.strip()
    refused = engine.api("GET", f"/containers/{created}/top")
    assert (refused.status, refused.message) == (409, f"container {created} is not running")


def test_the_event(engine: Engine, two: str) -> None:
    since = f"{time.time():.9f}"
    engine.docker("top", two)
    events = engine.docker(
        "events", "--since", since, "--until", f"{time.time():.9f}", "--format", "json"
    ).lines
    assert any(json.loads(line)["Action"] == "top" for line in events)
