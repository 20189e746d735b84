"""A program on a pseudo-terminal, as a person would have it in front of them (pty(7))."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from types import TracebackType


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """The master's side: type, read what appears, change the size."""

    def __init__(self, argv: list[str], environment: dict[str, str], rows: int, columns: int) -> None:
        self.master, slave = pty.openpty()
        self.seen = b""
        self.resize(rows, columns)
        try:
            self.process = subprocess.Popen(
                argv,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=environment,
                start_new_session=True,
                preexec_fn=_take_terminal,
            )
        finally:
            os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size; the kernel tells the program."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, keys: bytes) -> None:
        """Type."""
        os.write(self.master, keys)

    def _read(self, timeout: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], max(timeout, 0))
        if not ready:
            return True
        try:
            piece = os.read(self.master, 65536)
        except OSError:  # EIO: the last user of the other side is gone
            return False
        self.seen += piece
        return bool(piece)

    def expect(self, text: bytes, timeout: float = 20) -> bytes:
        """Read until `text` has appeared; everything up to and with it, which is then forgotten."""
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            alive = self._read(deadline - time.monotonic())
            if text in self.seen:
                break
            assert alive, f"the terminal closed; no {text!r} in {self.seen!r}"
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen!r}"
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def wait(self, timeout: float = 20) -> int:
        """Read on until the program ends; its exit status."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still running; seen {self.seen!r}"
            if not self._read(min(0.2, deadline - time.monotonic())):
                return self.process.wait(max(0.1, deadline - time.monotonic()))
        while self._read(0):
            if not select.select([self.master], [], [], 0)[0]:
                break
        return self.process.returncode
