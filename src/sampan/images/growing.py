"""A file that one thread writes and others read meanwhile: a blob being downloaded, a layer being loaded.

Readers get what has been written, wait for more, and see the end, or the error, that the writer tells. The
bytes pass through the kernel's pages, so that no reader holds the writer back and none needs memory for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

PIECE_BYTES = 256 << 10
STEP_BYTES = 1 << 20
POLL_S = 0.25


class Growing:
    """The file behind the descriptor `fd`, empty at first.

    Args:
        fd: open for reading and writing; it stays the caller's.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.condition = threading.Condition()
        self.received = 0
        self.error: Exception | None = None
        self.done = False

    def append(self, data: bytes | memoryview) -> None:
        """Write `data` at the end, for all who wait."""
        view = memoryview(data)
        at = self.received
        while view:
            count = os.pwrite(self.fd, view, at)
            at += count
            view = view[count:]
        self.advance(at)

    def advance(self, received: int) -> None:
        """So many bytes are in the file now."""
        with self.condition:
            self.received = received
            self.condition.notify_all()

    def end(self, error: Exception | None = None) -> None:
        """Nothing comes any more; with an error, what has come is of no use."""
        with self.condition:
            self.error = error
            self.done = True
            self.condition.notify_all()

    def read_at(self, fd: int, at: int, size: int, check: Callable[[], None]) -> bytes:
        """Up to `size` bytes from `at` on, as soon as there are some; b"" at the end.

        Args:
            fd: the reader's own descriptor of the file.
            check: called now and then while there are none, and before each read; it may raise.

        Raises:
            Exception: the error that the writer told.
        """
        with self.condition:
            check()
            while (ready := min(size, self.received - at)) <= 0 and not self.done:
                self.condition.wait(POLL_S)
                check()
            if self.error is not None:
                raise self.error
        if ready <= 0:
            return b""
        data = os.pread(fd, ready, at)
        if not data:
            self.wait_for_end(check)  # what was there has been given up as wrong a moment ago
        return data

    def growth(self, check: Callable[[], None]) -> Iterator[int]:
        """How many bytes are there, again and again until the end, when they have become notably more.

        Raises:
            Exception: the error that the writer told.
        """
        at, done = 0, False
        while not done:
            with self.condition:
                check()
                while self.received - at < STEP_BYTES and not self.done:
                    self.condition.wait(POLL_S)
                    check()
                if self.error is not None:
                    raise self.error
                at, done = self.received, self.done
            yield at

    def wait_for_end(self, check: Callable[[], None]) -> None:
        """Return at the end; raises as `read_at`."""
        with self.condition:
            while not self.done:
                self.condition.wait(POLL_S)
                check()
            if self.error is not None:
                raise self.error
