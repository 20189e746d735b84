"""The user's terminal: is it one, how big, raw and back (termios(3))."""

from __future__ import annotations

import os
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any


def size(fd: int) -> tuple[int, int] | None:
    """(rows, columns) of the terminal, or None when `fd` is none."""
    try:
        found = os.get_terminal_size(fd)
    except OSError:
        return None
    return found.lines, found.columns


class Raw:
    """While open, the terminal passes every key on as it is; at the end it is as before."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[Any] | None = None

    def __enter__(self) -> Raw:
        if os.isatty(self._fd):
            before = termios.tcgetattr(self._fd)
            mode: list[Any] = [*before[:6], list(before[6])]
            mode[0] &= ~(
                termios.IGNBRK
                | termios.BRKINT
                | termios.PARMRK
                | termios.ISTRIP
                | termios.INLCR
                | termios.IGNCR
                | termios.ICRNL
                | termios.IXON
            )
            mode[1] &= ~termios.OPOST
            mode[2] = (mode[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
            mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
            mode[6][termios.VMIN] = 1
            mode[6][termios.VTIME] = 0
            termios.tcsetattr(self._fd, termios.TCSANOW, mode)
            self._before = before
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            termios.tcsetattr(self._fd, termios.TCSANOW, self._before)
            self._before = None
