"""Compressed streams by their first bytes: gzip by isal, zstd by zstandard, bzip2 and xz by the stdlib.

Decompression and hashing release the interpreter's lock; `ReadAhead` moves them to a thread of their own,
beside the one that uses the bytes.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import queue
import threading
import zlib
from collections.abc import Callable
from types import TracebackType
from typing import IO, Protocol, cast

import zstandard
from isal import isal_zlib

from sampan.storage.errors import InvalidLayer
from sampan.storage.limits import Limits
from sampan.storage.tar_reader import Readable, write_all
from sampan.storage.zstd_frames import FrameWalk

PIECE = 1 << 20
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"))
MAGIC_LENGTH = 6
_DAMAGE: tuple[type[Exception], ...] = (
    zlib.error,
    cast("type[Exception]", isal_zlib.error),
    OSError,
    lzma.LZMAError,
    zstandard.ZstdError,
    EOFError,
)


def sniff(start: bytes) -> str:
    """The compression that a stream's first bytes tell: gzip, zstd, bzip2, xz or "" for none."""
    for magic, name in _MAGIC:
        if start.startswith(magic):
            return name
    if start[:1] and 0x50 <= start[0] <= 0x5F and start[1:4] == b"\x2a\x4d\x18":
        return "zstd"  # a skippable frame comes first
    return ""


class Prefixed:
    """A stream with bytes put back in front of it."""

    def __init__(self, prefix: bytes, stream: Readable) -> None:
        self._prefix = prefix
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        if self._prefix:
            if size < 0:
                data, self._prefix = self._prefix + self._stream.read(), b""
            else:
                data, self._prefix = self._prefix[:size], self._prefix[size:]
            return data
        return self._stream.read(size)

    @property
    def copy_to(self) -> Callable[[int, int], int] | None:
        """The stream's own way to a file (`tar_reader.Source.copy_to`), if it has one."""
        direct: Callable[[int, int], int] | None = getattr(self._stream, "copy_to", None)
        if direct is None:
            return None

        def copy_to(fd: int, size: int) -> int:
            data = memoryview(self._prefix)[:size]
            if not data:
                return direct(fd, size)
            self._prefix = self._prefix[len(data) :]
            write_all(fd, data)
            return len(data)

        return copy_to


def peek(stream: Readable) -> tuple[str, Readable]:
    """The compression of a stream, and the stream from its first byte on."""
    start = b""
    while len(start) < MAGIC_LENGTH and (more := stream.read(MAGIC_LENGTH - len(start))):
        start += more
    return sniff(start), Prefixed(start, stream)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, size: int) -> bytes: ...


class _Gzip:
    def __init__(self) -> None:
        self._object = isal_zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return bool(self._object.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._object.unused_data)

    def decompress(self, data: bytes, size: int) -> bytes:
        # What did not fit comes first in the next call; the caller passes b"" until all is out.
        return bytes(self._object.decompress(self._object.unconsumed_tail + data, size))

    @property
    def pending(self) -> bool:
        return bool(self._object.unconsumed_tail)


class Decompressing:
    """Reads the uncompressed bytes of a stream, through several members or frames one after the other.

    Raises:
        InvalidLayer: from `read`, for damaged data, an early end, or a decompression bomb.
    """

    def __init__(self, stream: Readable, kind: str, limits: Limits | None = None) -> None:
        self._stream = stream
        self._kind = kind
        self._limits = limits or Limits()
        self._in = self._out = 0
        self._done = False
        self._rest = b""
        self._zstd: Readable | None = None
        self._frames = FrameWalk() if kind == "zstd" else None
        self._current: bz2.BZ2Decompressor | lzma.LZMADecompressor | _Gzip | None = None
        if kind == "zstd":
            reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
                cast("IO[bytes]", _Counting(self)),
                read_size=PIECE,
                read_across_frames=True,
            )
            self._zstd = cast("Readable", reader)

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(PIECE), b""))
        try:
            data = self._zstd.read(size) if self._zstd is not None else self._read(size)
        except _DAMAGE as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise InvalidLayer(f"the {self._kind} data is damaged: {error}") from None
        self._out += len(data)
        limits = self._limits
        if self._out > limits.max_bytes:
            raise InvalidLayer(f"the {self._kind} data unfolds to more than {limits.max_bytes} bytes")
        if self._out > limits.ratio_from_bytes and self._out > limits.max_ratio * self._in:
            raise InvalidLayer(
                f"the {self._kind} data unfolds to more than {limits.max_ratio} times its size:"
                " it looks like a decompression bomb"
            )
        return data

    def take(self, size: int) -> bytes:
        """Read compressed bytes, counted."""
        data = self._stream.read(size)
        self._in += len(data)
        if self._frames is not None:
            self._frames.feed(data)
            if not data and not self._frames.complete:
                raise EOFError("it ends too early")
        return data

    def _read(self, size: int) -> bytes:
        while not self._done:
            if self._current is None:
                if not self._rest:
                    self._rest = self.take(PIECE)
                rest = self._rest.lstrip(b"\0") if self._in > len(self._rest) else self._rest
                if not rest:
                    if not self._rest:
                        self._done = True
                        break
                    self._rest = b""
                    continue
                self._rest = rest
                self._current = self._new()
            current = self._current
            if isinstance(current, _Gzip):
                wants = not current.pending
            else:
                wants = current.needs_input
            if wants and not self._rest:
                self._rest = self.take(PIECE)
                if not self._rest:
                    raise EOFError("it ends too early")
            feed, self._rest = (self._rest, b"") if wants else (b"", self._rest)
            data = current.decompress(feed, size)
            if current.eof:
                self._rest = current.unused_data + self._rest
                self._current = None
            if data:
                return data
        return b""

    def _new(self) -> bz2.BZ2Decompressor | lzma.LZMADecompressor | _Gzip:
        if self._kind == "gzip":
            return _Gzip()
        if self._kind == "bzip2":
            return bz2.BZ2Decompressor()
        return lzma.LZMADecompressor(memlimit=512 << 20)


class _Counting:
    def __init__(self, owner: Decompressing) -> None:
        self._owner = owner

    def read(self, size: int = -1, /) -> bytes:
        return self._owner.take(PIECE if size < 0 else size)


def decompressed(stream: Readable, limits: Limits | None = None) -> tuple[str, Readable]:
    """The kind of compression, and a stream of the plain bytes."""
    kind, whole = peek(stream)
    return kind, Decompressing(whole, kind, limits) if kind else whole


class Hashing:
    """A stream that hashes what is read through it; `digest` tells the sha256 so far."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.count = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        self.count += len(data)
        return data

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


class ReadAhead:
    """Reads a stream in a thread of its own, a few pieces ahead. Use as a context, which ends the thread."""

    def __init__(self, stream: Readable, pieces: int = 4) -> None:
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(pieces)
        self._stopped = False
        self._ended: BaseException | None = None
        self._rest = b""
        self._thread = threading.Thread(target=self._work, args=(stream,), name="read-ahead", daemon=True)

    def _work(self, stream: Readable) -> None:
        try:
            while not self._stopped:
                piece = stream.read(PIECE)
                self._queue.put(piece)
                if not piece:
                    return
        except BaseException as error:  # told to the reader, who raises it
            self._queue.put(error)

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(PIECE), b""))
        if not self._rest:
            if self._ended is not None:
                return b""
            piece = self._queue.get()
            if isinstance(piece, BaseException):
                self._ended = piece
                raise piece
            if not piece:
                self._ended = EOFError()
            self._rest = piece
        data, self._rest = (
            (self._rest, b"") if len(self._rest) <= size else (self._rest[:size], self._rest[size:])
        )
        return data

    def __enter__(self) -> ReadAhead:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)
