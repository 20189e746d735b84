"""`sampan ui` on a pseudo-terminal, as a person has it in front of them, at a running daemon."""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Callable

from support.engine import SOURCE, Engine
from support.machine import eventually
from support.terminal import Terminal

PATIENCE_S = 40


def test_a_tour(engine: Engine, name: Callable[[], str]) -> None:
    ship = name()
    command = ["sh", "-c", "echo from the log; trap 'exit 3' TERM; while :; do sleep 0.1; done"]
    engine.sampan("run", "-d", "--name", ship, engine.busybox, *command)
    words = [sys.executable, "-m", "sampan.cli", "-H", engine.host, "ui"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    with Terminal(words, environment, 40, 140) as terminal:
        before = termios.tcgetattr(terminal.master)
        terminal.expect(ship.encode(), PATIENCE_S)
        # The session's daemon may have others: find ours by its name, which inspect tells.
        _select(engine, terminal, ship)
        terminal.send(b"l")
        terminal.expect(b"from the log", PATIENCE_S)
        terminal.send(b"q")
        terminal.expect(b"Containers", PATIENCE_S)
        terminal.send(b"t")
        terminal.expect(b"Memory ", PATIENCE_S)
        terminal.send(b"q")
        terminal.expect(b"Containers", PATIENCE_S)
        terminal.send(b"e")
        terminal.expect(b"# ", PATIENCE_S)  # a shell's prompt
        terminal.send(b"echo six times seven is $((6*7)); hostname\n")
        terminal.expect(b"six times seven is 42", PATIENCE_S)
        terminal.expect(engine.api.inspect(ship)["Config"]["Hostname"].encode(), PATIENCE_S)
        terminal.send(b"exit\n")
        terminal.expect(b"Containers", PATIENCE_S)
        terminal.send(b"s")
        eventually(lambda: engine.api.inspect(ship)["State"]["ExitCode"] == 3, timeout=PATIENCE_S)
        terminal.send(b"d")
        terminal.expect(b"Remove container", PATIENCE_S)
        terminal.send(b"y")
        eventually(lambda: ship not in _names(engine), timeout=PATIENCE_S)
        terminal.send(b"q")
        assert terminal.wait(PATIENCE_S) == 0
        assert termios.tcgetattr(terminal.master) == before


def _names(engine: Engine) -> list[str]:
    found = engine.api.get("/containers/json?all=1")
    return [one["Names"][0].removeprefix("/") for one in found]


def _select(engine: Engine, terminal: Terminal, name: str) -> None:
    """Go down to a container; they stand in the order of the API."""
    terminal.send(b"\x1b[B" * _names(engine).index(name))
