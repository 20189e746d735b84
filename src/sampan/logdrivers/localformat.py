"""Decoding the records of Docker's `local` log format (its writer: sampan.runtime.locallog)."""

from __future__ import annotations

import struct
from collections.abc import Callable

from sampan.dataclasses import dataclass

_LIMIT = 1 << 20  # no record is larger; a size beyond it is a torn file

_SIZE = struct.Struct(">I").unpack_from


@dataclass(slots=True)
class Record:
    """One line, or a piece of one.

    Attributes:
        time_ns: nanoseconds since 1970.
        line: without its newline.
        partial: it is a piece of a longer line: the line's id, the piece's number from 1; else empty and 0.
        last: the line ends here.
    """

    stream: str
    time_ns: int
    line: bytes
    partial: str = ""
    ordinal: int = 0
    last: bool = True


def records(data: bytes) -> tuple[list[Record], int]:
    """The whole records at the start of `data`, and how many bytes they are.

    What a power cut has torn ends the list; the bytes behind it count as taken.
    """
    found: list[Record] = []
    at, end = 0, len(data)
    prefix, stream, when = b"", "", 0
    while at + 8 <= end:
        size = int.from_bytes(data[at : at + 4], "big")
        if not 0 < size <= _LIMIT:
            return found, end
        stop = at + 4 + size
        if stop + 4 > end:
            break
        if data[stop : stop + 4] != data[at : at + 4]:
            return found, end
        # As our own writer puts it, equal for all lines of a moment; then a line of less than 128 bytes.
        if (
            prefix
            and data.startswith(prefix, at + 4)
            and data[at + 4 + len(prefix)] == stop - at - 5 - len(prefix)
        ):
            found.append(Record(stream, when, data[at + 5 + len(prefix) : stop]))
        else:
            try:
                record, start = _parse(data, at + 4, stop)
            except (IndexError, UnicodeDecodeError):
                return found, end
            found.append(record)
            prefix, stream, when = data[at + 4 : start], record.stream, record.time_ns
        at = stop + 4
    return found, at


def framed(data: bytes, header: Callable[[int, int], bytes]) -> tuple[bytes, int]:
    """As `records`, but at once as `docker logs` sends them, in a third of the time.

    Args:
        header: what goes before a line, from the stream's number and the line's length with its newline.
    """
    out: list[bytes] = []
    append = out.append
    at, end = 0, len(data)
    prefix, length, number = b"", 0, 1
    while at + 8 <= end:
        (size,) = _SIZE(data, at)
        if not 0 < size <= _LIMIT:
            return b"".join(out), end
        stop = at + 4 + size
        if stop + 4 > end:
            break
        if data[stop : stop + 4] != data[at : at + 4]:
            return b"".join(out), end
        if length and data.startswith(prefix, at + 4) and data[at + 4 + length] == size - 1 - length < 128:
            append(header(number, size - length))
            append(data[at + 5 + length : stop])
            append(b"\n")
        else:
            try:
                record, start = _parse(data, at + 4, stop)
            except (IndexError, UnicodeDecodeError):
                return b"".join(out), end
            prefix, length = data[at + 4 : start], start - at - 4
            number = 2 if record.stream == "stderr" else 1
            append(header(number, len(record.line) + record.last))
            append(record.line)
            if record.last:
                append(b"\n")
        at = stop + 4
    return b"".join(out), at


def _parse(data: bytes, at: int, end: int) -> tuple[Record, int]:
    """A `LogEntry`, and where the line's length stands if line, time and source are in order."""
    record = Record("stdout", 0, b"")
    start = at
    while at < end:
        tag = data[at]
        at += 1
        if tag == 0x1A:
            start = at
        number, at = _varint(data, at)
        if tag & 7 == 2:
            value = data[at : at + number]
            at += number
            if tag == 0x0A:
                record.stream = value.decode()
            elif tag == 0x1A:
                record.line = value
            elif tag == 0x2A:
                _parse_partial(value, record)
        elif tag == 0x10:
            record.time_ns = number
        elif tag == 0x20 and number:
            record.last = False
        elif tag & 7 != 0:
            raise IndexError("no such wire type here")
    return record, start


def _parse_partial(data: bytes, record: Record) -> None:
    at = 0
    while at < len(data):
        tag = data[at]
        number, at = _varint(data, at + 1)
        if tag == 0x12:
            record.partial = data[at : at + number].decode()
            at += number
        elif tag == 0x08:
            record.last = bool(number)
        elif tag == 0x18:
            record.ordinal = number


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
