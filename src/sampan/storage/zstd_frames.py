"""Whether a zstd stream ended where a frame ends: the decompressor does not tell (RFC 8878, section 3.1)."""

from __future__ import annotations

_MAGIC = b"\x28\xb5\x2f\xfd"
_HEADER, _SKIPPABLE, _DESCRIPTOR, _BLOCK = range(4)
_NEEDED = {_HEADER: 4, _SKIPPABLE: 4, _DESCRIPTOR: 1, _BLOCK: 3}
_DICTIONARY_BYTES = (0, 1, 2, 4)
_CONTENT_SIZE_BYTES = (0, 2, 4, 8)


class FrameWalk:
    """Follows the compressed bytes from frame to frame, looking only at headers."""

    def __init__(self) -> None:
        self._state = _HEADER
        self._skip = 0
        self._part = b""
        self._checksum = False

    @property
    def complete(self) -> bool:
        """Whether all bytes so far make up whole frames."""
        return self._state == _HEADER and not self._skip and not self._part

    def feed(self, data: bytes) -> None:
        """Take the next bytes. What is not zstd is left to the decompressor to refuse."""
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            step = _NEEDED[self._state] - len(self._part)
            self._part += data[at : at + step]
            at += step
            if len(self._part) == _NEEDED[self._state]:
                part, self._part = self._part, b""
                self._step(part)

    def _step(self, part: bytes) -> None:
        number = int.from_bytes(part, "little")
        if self._state == _HEADER:
            self._state = _DESCRIPTOR if part == _MAGIC else _SKIPPABLE
        elif self._state == _SKIPPABLE:
            self._skip, self._state = number, _HEADER
        elif self._state == _DESCRIPTOR:
            single_segment = bool(number & 0x20)
            self._checksum = bool(number & 0x04)
            size = _CONTENT_SIZE_BYTES[number >> 6] or (1 if single_segment else 0)
            self._skip = (0 if single_segment else 1) + _DICTIONARY_BYTES[number & 3] + size
            self._state = _BLOCK
        else:
            last, kind = number & 1, number >> 1 & 3
            self._skip = 1 if kind == 1 else number >> 3
            if last:
                self._skip += 4 if self._checksum else 0
                self._state = _HEADER
