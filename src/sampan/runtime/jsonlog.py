"""A container's log in Docker's json-file format: one JSON object a line, rotated by size.

Each line of output becomes `{"log":"…\\n","stream":"stdout","time":"…"}`; one longer than 16 KiB is
split, and only its last piece ends in a newline; a last line that had none gets none. Rotated files are `.1`
(the newest), `.2`, …, with `.gz` behind when compressed.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from json.encoder import encode_basestring

from sampan.runtime.protocol import LogSpec

PIECE_BYTES = 16 * 1024
_COMPRESS_STEP = 256 * 1024


class JsonLog:
    """The log file and the unfinished lines of both streams.

    Args:
        spec: where, and how large it may grow.
    """

    def __init__(self, spec: LogSpec) -> None:
        self._spec = spec
        self._fd = self._open()
        self._size = os.fstat(self._fd).st_size
        self._rest = {"stdout": b"", "stderr": b""}
        self._second = -1
        self._second_text = ""
        attrs = ""
        if spec.attrs:
            attrs = f',"attrs":{json.dumps(spec.attrs, ensure_ascii=False, separators=(",", ":"))}'
        self._tails = {stream: f',"stream":"{stream}"{attrs},"time":"' for stream in self._rest}
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
        rest = self._rest[stream]
        if rest:
            data = rest + data
        end = data.rfind(b"\n") + 1
        lines = data[:end].decode("utf-8", "replace").split("\n")
        lines.pop()
        tail = f'{self._tails[stream]}{self._timestamp(now_ns)}"}}\n'
        # A character is at most four bytes, so only a quarter of the limit proves that no line is too long.
        if end > PIECE_BYTES and max(map(len, lines)) > PIECE_BYTES // 4:
            pieces = _split_lines(data[:end])
        else:
            pieces = [f"{line}\n" for line in lines]
        rest = data[end:]
        while len(rest) >= PIECE_BYTES:
            cut = _cut(rest, 0)
            pieces.append(rest[:cut].decode("utf-8", "replace"))
            rest = rest[cut:]
        self._rest[stream] = rest
        if pieces:
            encode = encode_basestring
            self._append([f'{{"log":{encode(piece)}{tail}' for piece in pieces])

    def finish(self, now_ns: int) -> None:
        """Log what is left without a newline, and finish a compression that is under way."""
        for stream, rest in self._rest.items():
            if rest:
                text = encode_basestring(rest.decode("utf-8", "replace"))
                self._append([f'{{"log":{text}{self._tails[stream]}{self._timestamp(now_ns)}"}}\n'])
                self._rest[stream] = b""
        while self.work():
            pass
        if self._fd >= 0:
            os.close(self._fd)

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

    def _timestamp(self, now_ns: int) -> str:
        second, fraction = divmod(now_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"

    def _append(self, records: list[str]) -> None:
        text = "".join(records).encode()
        limit = self._spec.max_size_bytes
        if limit <= 0 or self._size + len(text) <= limit:
            self._put(text)
            return
        part: list[bytes] = []
        size = self._size
        for record in records:
            line = record.encode()
            if size + len(line) > limit and size > 0:
                self._put(b"".join(part))
                part = []
                self._rotate()
                size = 0
            part.append(line)
            size += len(line)
        self._put(b"".join(part))

    def _put(self, text: bytes) -> None:
        if self._fd < 0:
            self._fd = self._open()
            self._size = os.fstat(self._fd).st_size
        view = memoryview(text)
        while view:
            written = os.write(self._fd, view)
            self._size += written
            view = view[written:]

    def _rotate(self) -> None:
        os.close(self._fd)
        self._fd = -1  # until it is open again: the number may soon be another file's
        path, keep = self._spec.path, self._spec.max_files
        if keep < 2:
            self._fd = self._open(os.O_TRUNC)
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
        self._fd = self._open()
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


def _cut(data: bytes, start: int) -> int:
    """Where a piece that begins at `start` ends: 16 KiB on, or a little before, not inside a character."""
    end = start + PIECE_BYTES
    if end >= len(data):
        return len(data)
    for back in range(4):
        if data[end - back] & 0xC0 != 0x80:
            return end - back
    return end  # no UTF-8 anyway


def _split_lines(data: bytes) -> list[str]:
    pieces = []
    for line in data.split(b"\n")[:-1]:
        start = 0
        while len(line) - start > PIECE_BYTES:
            end = _cut(line, start)
            pieces.append(line[start:end].decode("utf-8", "replace"))
            start = end
        pieces.append(line[start:].decode("utf-8", "replace") + "\n")
    return pieces
