"""Output that a client has still to take, in a file without a name: first in, first out, within a bound.

The file is a ring (open(2), O_TMPFILE); where nothing waits it takes no room.
"""

from __future__ import annotations

import os

LIMIT_BYTES = 64 << 20


class Backlog:
    """Bytes between a process that goes on and a client that does not.

    Args:
        directory: on whose file system they lie.
        limit_bytes: how many may wait.

    Raises:
        OSError: there can be no such file.
    """

    def __init__(self, directory: str, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._start = 0  # where the oldest byte lies
        self._size = 0
        self._fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def __len__(self) -> int:
        return self._size

    def put(self, data: bytes | bytearray) -> int:
        """Keep bytes; how many found room, within the bound and on the disk."""
        view = memoryview(data)[: self._limit - self._size]
        taken = 0
        try:
            while taken < len(view):
                at = (self._start + self._size) % self._limit
                written = os.pwrite(self._fd, view[taken : taken + self._limit - at], at)
                taken += written
                self._size += written
        except OSError:
            pass  # the disk is full: who calls has the rest still
        finally:
            view.release()
        return taken

    def take(self, most: int) -> bytes:
        """The oldest bytes, `most` of them or fewer, which are then no longer kept.

        Raises:
            OSError: the disk does not give them back.
        """
        data = os.pread(self._fd, min(most, self._size, self._limit - self._start), self._start)
        self._start = (self._start + len(data)) % self._limit
        self._size -= len(data)
        if not self._size:
            self._start = 0
            os.ftruncate(self._fd, 0)
        return data

    def close(self) -> None:
        """Give the room back."""
        os.close(self._fd)
        self._size = 0
