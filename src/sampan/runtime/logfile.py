"""A container's log as files of one size: the current one, rotated ones behind it, compressed if so wanted.

Rotated files are `.1` (the newest), `.2`, …, with `.gz` behind when compressed. The formats derive from it.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence

from sampan.runtime.protocol import LogPlace, LogSpec

PIECE_BYTES = 16 * 1024
_COMPRESS_STEP = 256 * 1024
_HEAD_BYTES = 96


class LogFile:
    """The files, and what a format needs to write records to them.

    Args:
        spec: where, and how large it may grow.

    Attributes:
        pause_s: how long to wait before the next `work`, while there is some.
        fd: the current file's descriptor.
    """

    pause_s = 0.0

    def __init__(self, spec: LogSpec) -> None:
        self._spec = spec
        self.fd = self._open()
        self._size = os.fstat(self.fd).st_size
        self._rest = {"stdout": b"", "stderr": b""}
        self._job: _Compression | None = None

    def _open(self, truncate: int = 0) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | truncate
        return os.open(self._spec.path, flags, 0o640)

    def write(self, stream: str, data: bytes, now_ns: int) -> None:
        """Log a piece of output as it came from the pipe; what has no newline yet waits for more.

        Args:
            stream: "stdout" or "stderr".
            data: the bytes.
            now_ns: when they came, nanoseconds since 1970.
        """
        raise NotImplementedError

    def _write_rest(self, stream: str, rest: bytes, now_ns: int) -> None:
        """Log a last line that has no newline."""
        raise NotImplementedError

    def place(self) -> LogPlace | None:
        """How far it goes now, without `unfinished`; None when that cannot be told."""
        try:
            with open(self._spec.path, "rb", buffering=0) as file:
                return LogPlace(os.fstat(self.fd).st_ino, file.read(_HEAD_BYTES), self._size)
        except OSError:
            return None

    @property
    def unfinished(self) -> dict[str, bytes]:
        """By stream, what waits for the end of its line."""
        return dict(self._rest)

    def finish(self, now_ns: int) -> None:
        """Log what is left without a newline, and finish a compression that is under way."""
        for stream, rest in self._rest.items():
            if rest:
                self._write_rest(stream, rest, now_ns)
                self._rest[stream] = b""
        while self.work():
            pass
        if self.fd >= 0:
            os.close(self.fd)

    def abandon(self) -> None:
        """Let go of the file, which another process goes on with."""
        os.close(self.fd)

    def work(self) -> bool:
        """Do a small part of what can be done while nothing else happens; whether more is left."""
        try:
            if self._job is not None and not self._job.step():
                self._job = None
        except OSError:
            self._job = None  # no room for it: the file stays as it is
        return self._job is not None

    @property
    def busy(self) -> bool:
        """Whether `work` has something to do."""
        return self._job is not None

    def _append(self, whole: bytes, records: Callable[[], Sequence[bytes]]) -> None:
        """Write records, all at once where the file has room for them."""
        limit = self._spec.max_size_bytes
        if limit <= 0 or self._size + len(whole) <= limit:
            self._put(whole)
            return
        part: list[bytes] = []
        size = self._size
        for record in records():
            if size + len(record) > limit and size > 0:
                self._put(b"".join(part))
                part = []
                self._rotate()
                size = 0
            part.append(record)
            size += len(record)
        self._put(b"".join(part))

    def _put(self, text: bytes) -> None:
        if self.fd < 0:
            self.fd = self._open()
            self._size = os.fstat(self.fd).st_size
        view = memoryview(text)
        while view:
            written = os.write(self.fd, view)
            self._size += written
            view = view[written:]

    def _rotate(self) -> None:
        os.close(self.fd)
        self.fd = -1  # until it is open again: the number may soon be another file's
        path, keep = self._spec.path, self._spec.max_files
        if keep < 2:
            self.fd = self._open(os.O_TRUNC)
            self._size = 0
            return
        while self.work():
            pass
        for number in range(keep - 1, 0, -1):
            for suffix in ("", ".gz"):
                old = f"{path}.{number}{suffix}"
                try:
                    if number == keep - 1:
                        os.unlink(old)
                    else:
                        os.rename(old, f"{path}.{number + 1}{suffix}")
                except FileNotFoundError:
                    pass
        os.rename(path, f"{path}.1")
        self.fd = self._open()
        self._size = 0
        if self._spec.compress:
            self._job = _Compression(f"{path}.1")


class _Compression:
    """Turns a rotated file into a gzip one, a step at a time; the plain file goes when the other is whole."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._temporary = f"{path}.gz.tmp"
        self._target = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS | 16)

    def step(self) -> bool:
        data = os.read(self._source, _COMPRESS_STEP)
        if data:
            self._put(self._deflate.compress(data))
            return True
        self._put(self._deflate.flush())
        os.close(self._source)
        os.close(self._target)
        os.rename(self._temporary, f"{self._path}.gz")
        os.unlink(self._path)
        return False

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._target, view) :]


def cut(data: bytes, start: int) -> int:
    """Where a piece that begins at `start` ends: 16 KiB on, or a little before, not inside a character."""
    end = start + PIECE_BYTES
    if end >= len(data):
        return len(data)
    for back in range(4):
        if data[end - back] & 0xC0 != 0x80:
            return end - back
    return end  # no UTF-8 anyway
