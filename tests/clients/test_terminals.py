"""`-t`: the terminal inside, detach keys, window size, and its end."""

from __future__ import annotations

from collections.abc import Callable

from support.cli import Cli
from support.engine import Engine
from support.machine import alive, eventually

Names = Callable[[], str]


def test_a_shell_on_a_terminal(cli: Cli, busybox: str) -> None:
    with cli.terminal("run", "--rm", "-it", busybox, "sh") as terminal:
        terminal.send(b"tty; echo $TERM; echo $((6*7))\r")
        assert b"/dev/pts/0" in terminal.expect(b"42\r\n")
        terminal.send(b"exit 5\r")
        assert terminal.wait() == 5


def test_without_i_and_pipe_t_still_has_a_terminal(cli: Cli, busybox: str) -> None:
    assert cli("run", "--rm", "-t", busybox, "tty").out == "/dev/pts/0\r\n"


def test_i_t_needs_a_terminal_in_front(cli: Cli, busybox: str) -> None:
    done = cli("run", "--rm", "-it", busybox, "true", stdin=b"", code=None)
    assert done.code != 0 and "not a TTY" in done.err


def test_window_size_at_the_start_and_later(cli: Cli, busybox: str) -> None:
    with cli.terminal("run", "--rm", "-it", busybox, "sh", rows=33, columns=111) as terminal:
        terminal.expect(b"# ")
        eventually(lambda: _size(terminal) == b"33 111")
        terminal.resize(44, 122)
        eventually(lambda: _size(terminal) == b"44 122")
        terminal.send(b"exit\r")
        assert terminal.wait() == 0


def _size(terminal) -> bytes:  # type: ignore[no-untyped-def]
    terminal.send(b"stty size; echo ==\r")
    terminal.expect(b"stty size; echo ==\r\n")
    return terminal.expect(b"==").split(b"\r\n")[0]


def test_control_c_reaches_the_program(cli: Cli, busybox: str) -> None:
    script = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done"
    with cli.terminal("run", "--rm", "-it", busybox, "sh", "-c", script) as terminal:
        terminal.expect(b"ready")
        terminal.send(b"\x03")
        terminal.expect(b"caught")
        assert terminal.wait() == 3


def test_detach_and_attach_again(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    with cli.terminal("run", "-it", "--name", one, busybox, "sh") as terminal:
        terminal.expect(b"# ")
        terminal.send(b"\x10\x11")  # ctrl-p ctrl-q
        assert terminal.wait() == 0
    pid = engine.api.pid(one)
    with cli.terminal("attach", one) as terminal:
        terminal.send(b"echo ba''ck\r")
        terminal.expect(b"back")
        terminal.send(b"exit 4\r")
        assert terminal.wait() == 4
    eventually(lambda: not alive(pid))


def test_own_detach_keys(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    with cli.terminal("run", "-it", "--detach-keys", "ctrl-a,x", "--name", one, busybox, "sh") as terminal:
        terminal.expect(b"# ")
        terminal.send(b"\x10\x11echo st''ill\r")
        terminal.expect(b"still")
        terminal.send(b"\x01x")
        assert terminal.wait() == 0
    assert engine.api.inspect(one)["State"]["Running"]


def test_exec_on_a_terminal(cli: Cli, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "-d", "--name", one, busybox, "sleep", "60")
    with cli.terminal("exec", "-it", one, "sh", rows=20, columns=70) as terminal:
        terminal.expect(b"# ")
        eventually(lambda: _size(terminal) == b"20 70")
        terminal.send(b"exit 6\r")
        assert terminal.wait() == 6


def test_exec_detach_keys_leave_it_running(cli: Cli, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "-d", "--name", one, busybox, "sleep", "60")
    with cli.terminal("exec", "-it", one, "sh", "-c", "echo ready; sleep 50") as terminal:
        terminal.expect(b"ready")
        terminal.send(b"\x10\x11")
        terminal.wait()
    assert "sleep 50" in cli("exec", one, "ps").out


def test_debian_bash(cli: Cli, debian: str) -> None:
    with cli.terminal("run", "--rm", "-it", debian, "bash", "--norc") as terminal:
        terminal.send(b"echo $((40+2)) $BASH_VERSION\r")
        terminal.expect(b"42 ")
        terminal.send(b"exit 3\r")
        assert terminal.wait() == 3
