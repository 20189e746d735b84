"""Completion in a real bash: what Tab makes of a line, with the names of the engine's objects."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.engine import SOURCE, Engine
from support.terminal import Terminal

Press = Callable[[str], str]
BELL = b"\x07"


@pytest.fixture(scope="module")
def objects(engine: Engine) -> Iterator[None]:
    """One container of each kind, a volume."""
    docker, image = engine.docker, engine.busybox
    docker("run", "-d", "--name", "complete-running", image, "sleep", "600")
    docker("create", "--name", "complete-stopped", image)
    docker("volume", "create", "complete-volume")
    docker("tag", image, "registry.example.com:5000/complete:2")
    yield
    docker("rm", "-f", "complete-running", "complete-stopped")
    docker("volume", "rm", "complete-volume")
    docker("rmi", "registry.example.com:5000/complete:2")


@pytest.fixture
def press(engine: Engine, objects: None, tmp_path: Path) -> Iterator[Press]:
    """Types a line and Tab; the line as bash then has it, Tab having been pressed once."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    program = tmp_path / "sampan"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m sampan.cli "$@"\n')
    program.chmod(0o755)
    environment = {
        **engine.sampan.environment,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(SOURCE),
        "SAMPAN_HOST": engine.host,
        "PS1": "READY> ",
        "INPUTRC": "/dev/null",
    }
    with Terminal([bash, "--norc", "--noprofile", "-i"], environment, 40, 200) as terminal:
        terminal.expect(b"READY> ")
        terminal.send(b"bind 'set bell-style audible'; source <(sampan completion bash)\r")
        terminal.expect(b"READY> ")

        def pressed(line: str) -> str:
            # Ctrl-A and a word in front make the finished line an argument of echo.
            terminal.send(line.encode() + b"\t" + b"\x01echo '<\x05>'\r")
            shown = terminal.expect(b"READY> ").decode()
            return shown.rpartition("<")[2].partition(">")[0]

        yield pressed
        terminal.send(b"\x15exit\r")
        terminal.wait()


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("sampan ru", "sampan run "),
        ("sampan cont", "sampan cont"),  # container, context
        ("sampan conte", "sampan context "),
        ("sampan container insp", "sampan container inspect "),
        ("sampan run --networ", "sampan run --network"),
        ("sampan rm complete-s", "sampan rm complete-stopped "),
        ("sampan rm complete-", "sampan rm complete-"),
        ("sampan start complete-", "sampan start complete-stopped "),
        ("sampan exec complete-", "sampan exec complete-running "),
        ("sampan rmi registry.ex", "sampan rmi registry.example.com:5000/complete:2 "),
        ("sampan rmi registry.example.com:50", "sampan rmi registry.example.com:5000/complete:2 "),
        ("sampan run --network ho", "sampan run --network host "),
        ("sampan run --network=ho", "sampan run --network=host "),
        ("sampan network inspect bri", "sampan network inspect bridge "),
        ("sampan volume rm complete", "sampan volume rm complete-volume "),
        ("sampan inspect complete-v", "sampan inspect complete-volume "),
        ("sampan ps --filter stat", "sampan ps --filter status="),
        ("sampan cp complete-r", "sampan cp complete-running: "),
        ("sampan run --restart unl", "sampan run --restart unless-stopped "),
        ("sampan context use def", "sampan context use default "),
        ("sampan logs nosuch", "sampan logs nosuch"),
        ("sampan -H unix:///nowhere rm complete-s", "sampan -H unix:///nowhere rm complete-s"),
    ],
)
def test_tab(press: Press, typed: str, completed: str) -> None:
    assert press(typed) == completed


def test_files_where_nothing_else_fits(press: Press, tmp_path: Path) -> None:
    (tmp_path / "some.tar").write_text("")
    assert press(f"sampan load -i {tmp_path}/so") == f"sampan load -i {tmp_path}/some.tar "
