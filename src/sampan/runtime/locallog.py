"""A container's log in the format of Docker's `local` driver: protobuf records between their lengths.

A record is its size (four bytes, big endian), a `LogEntry` (moby, api/types/plugins/logdriver/entry.proto),
and the size again, so that it can be read backwards. A line longer than 16 KiB is split into records that
say so.
"""

from __future__ import annotations

import os

from sampan.runtime.logfile import PIECE_BYTES, LogFile, cut
from sampan.runtime.protocol import LogSpec

# LogEntry: source = 1 (text), time_nano = 2 (varint), line = 3 (bytes), partial = 4 (bool), and
# partial_log_metadata = 5 {last = 1 (bool), id = 2 (text), ordinal = 3 (varint)}.
_PARTIAL = b"\x20\x01\x2a"


class LocalLog(LogFile):
    """The log file and the unfinished lines of both streams."""

    def __init__(self, spec: LogSpec) -> None:
        super().__init__(spec)
        self._heads = {s: b"\x0a" + bytes([len(s)]) + s.encode() + b"\x10" for s in self._rest}
        self._parts: dict[str, tuple[bytes, int]] = {}  # of a split line: its id, and the pieces so far

    def write(self, stream: str, data: bytes, now_ns: int) -> None:
        """As promised by `LogFile`."""
        rest = self._rest[stream]
        if rest:
            data = rest + data
        end = data.rfind(b"\n") + 1
        head = self._heads[stream] + varint(now_ns)
        out: list[bytes] = []
        if end:
            lines = data[:end].split(b"\n")
            lines.pop()
            if stream in self._parts or (end > PIECE_BYTES and max(map(len, lines)) > PIECE_BYTES):
                for line in lines:
                    while len(line) > PIECE_BYTES:
                        at = cut(line, 0)
                        out += self._part(stream, head, line[:at], False)
                        line = line[at:]
                    out += (
                        self._part(stream, head, line, True) if stream in self._parts else _whole(head, line)
                    )
            else:
                known: dict[int, tuple[bytes, bytes]] = {}
                append = out.append
                for line in lines:
                    length = len(line)
                    around = known.get(length)
                    if around is None:
                        before, _, after = _whole(head, line)
                        around = known[length] = (before, after)
                    append(around[0])
                    append(line)
                    append(around[1])
        rest = data[end:]
        while len(rest) >= PIECE_BYTES:
            at = cut(rest, 0)
            out += self._part(stream, head, rest[:at], False)
            rest = rest[at:]
        self._rest[stream] = rest
        if out:
            self._write_records(out)

    def _write_rest(self, stream: str, rest: bytes, now_ns: int) -> None:
        self._write_records(self._part(stream, self._heads[stream] + varint(now_ns), rest, False))

    def _write_records(self, pieces: list[bytes]) -> None:
        self._append(
            b"".join(pieces), lambda: [b"".join(pieces[at : at + 3]) for at in range(0, len(pieces), 3)]
        )

    def _part(self, stream: str, head: bytes, text: bytes, last: bool) -> list[bytes]:
        """A piece of a split line."""
        name, count = self._parts.get(stream) or (os.urandom(32).hex().encode(), 0)
        if last:
            del self._parts[stream]
        else:
            self._parts[stream] = (name, count + 1)
        about = (
            (b"\x08\x01" if last else b"") + b"\x12" + bytes([len(name)]) + name + b"\x18" + varint(count + 1)
        )
        return _whole(head, text, _PARTIAL + bytes([len(about)]) + about)


def _whole(head: bytes, line: bytes, about: bytes = b"") -> list[bytes]:
    """A record in three pieces: what is before the line, the line, what is behind it."""
    before = head + b"\x1a" + varint(len(line))
    size = (len(before) + len(line) + len(about)).to_bytes(4, "big")
    return [size + before, line, about + size]


def varint(number: int) -> bytes:
    """Protobuf's base-128 integer."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
