"""Chunked bodies, decoded in passing (RFC 9112, 7.1): what Go's clients send comes in pieces of 32 KiB.

h11 makes an event of each, which costs more than what is done with the bytes. It reads the head, and
everything from the last chunk on, so that its state stays true.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter

SIZE_LINE_LIMIT_BYTES = 256
_HEX = frozenset(b"0123456789abcdefABCDEF")


class ChunkDecoder:
    """Takes a chunked body apart, whatever pieces it comes in."""

    def __init__(self) -> None:
        self._line = b""  # a size line that has not arrived whole
        self._left = 0  # of the current chunk, with the line end behind it

    def feed(
        self, data: bytes | bytearray, count: int | None = None
    ) -> tuple[list[memoryview], bytes | None]:
        """The content in these bytes, and once the last chunk begins, everything from there on.

        Args:
            data: what was received.
            count: how many bytes of it; None for all.

        Raises:
            InvalidParameter: this is no chunked body.
        """
        pieces: list[memoryview] = []
        view = memoryview(data)[:count]
        at, end = 0, len(view)
        while at < end:
            if self._left > 2:
                piece = view[at : at + self._left - 2]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
            elif self._left:
                if data[at] != b"\n\r"[self._left - 1]:
                    raise InvalidParameter("malformed request body: a chunk is longer than it says")
                at += 1
                self._left -= 1
            else:
                stop = data.find(b"\n", at, end) + 1
                line = self._line + data[at : stop or end]
                if len(line) > SIZE_LINE_LIMIT_BYTES:
                    raise InvalidParameter("malformed request body: a chunk's size line is too long")
                if not stop:
                    self._line = line
                    break
                self._line, at = b"", stop
                size = _size(line)
                if size == 0:
                    return pieces, line + data[at:end]
                self._left = size + 2
        return pieces, None


def _size(line: bytes) -> int:
    digits = line.removesuffix(b"\n").removesuffix(b"\r").partition(b";")[0].rstrip(b" \t")
    if not digits or len(digits) > 16 or not _HEX.issuperset(digits) or not line.endswith(b"\r\n"):
        raise InvalidParameter("malformed request body: a chunk has no size")
    return int(digits, 16)
