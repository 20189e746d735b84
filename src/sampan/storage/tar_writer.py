"""Writing tar archives: ustar headers, PAX records for whatever does not fit (POSIX pax(1)).

The same files always give the same bytes: no names of users, records in a fixed order, access times left out.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from sampan.storage.tar_reader import BLOCK, padding

_PIECE = 1 << 20
_END = bytes(2 * BLOCK)
_OCTAL_7, _OCTAL_11 = 0o7777777, 0o77777777777


class TarWriter:
    """An archive being written to `out`, which only needs `write`."""

    def __init__(self, out: BinaryIO) -> None:
        self._write = out.write

    def header(
        self,
        name: bytes,
        kind: bytes,
        *,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime_ns: int = 0,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
        xattrs: dict[str, bytes] | None = None,
    ) -> None:
        """Write one member's header; `size` bytes of data must follow through `data` or `file`."""
        records: dict[str, bytes] = {}
        if len(name) > 100:
            records["path"] = name
        if len(link) > 100:
            records["linkpath"] = link
        if uid > _OCTAL_7:
            records["uid"] = b"%d" % uid
        if gid > _OCTAL_7:
            records["gid"] = b"%d" % gid
        if size > _OCTAL_11:
            records["size"] = b"%d" % size
        seconds, fraction = divmod(mtime_ns, 1_000_000_000)
        if fraction or not 0 <= seconds <= _OCTAL_11:
            records["mtime"] = _decimal_time(mtime_ns)
        for key in sorted(xattrs or ()):
            records["SCHILY.xattr." + key] = (xattrs or {})[key]
        if records:
            body = b"".join(_record(os.fsencode(key), value) for key, value in records.items())
            self._write(_block(b"PaxHeaders/" + name[-80:].strip(b"/"), b"x", size=len(body)))
            self.data(body)
        self._write(
            _block(
                name[:100],
                kind,
                mode=mode,
                uid=uid if uid <= _OCTAL_7 else 0,
                gid=gid if gid <= _OCTAL_7 else 0,
                size=size if size <= _OCTAL_11 else 0,
                mtime=seconds if 0 <= seconds <= _OCTAL_11 else 0,
                link=link[:100],
                device=device,
            )
        )

    def data(self, data: bytes) -> None:
        """Write a member's whole data, filled up to a block."""
        self._write(data)
        if len(data) % BLOCK:
            self._write(bytes(padding(len(data))))

    def file(self, fd: int, size: int) -> None:
        """Copy `size` bytes from a descriptor; zeros stand in for what a file lost since it was looked at."""
        left = size
        while left and (piece := os.read(fd, min(left, _PIECE))):
            self._write(piece)
            left -= len(piece)
        while left:
            piece = bytes(min(left, _PIECE))
            self._write(piece)
            left -= len(piece)
        if size % BLOCK:
            self._write(bytes(padding(size)))

    def close(self) -> None:
        """Write the mark of the archive's end."""
        self._write(_END)


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while len(b"%d" % length) + len(body) != length:
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


def _decimal_time(ns: int) -> bytes:
    sign = "-" if ns < 0 else ""
    seconds, fraction = divmod(abs(ns), 1_000_000_000)
    return f"{sign}{seconds}.{fraction:09d}".rstrip("0").rstrip(".").encode()


def _block(
    name: bytes,
    kind: bytes,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    block = (
        name.ljust(100, b"\0")
        + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode & 0o7777, uid, gid, size, mtime)
        + b" " * 8
        + kind
        + link.ljust(100, b"\0")
        + b"ustar\x0000".ljust(72, b"\0")
        + b"%07o\0%07o\0" % device
    ).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def kind_of(mode: int) -> bytes | None:
    """The member type of a file's mode; None for a socket, which archives cannot hold."""
    return {
        stat.S_IFREG: b"0",
        stat.S_IFLNK: b"2",
        stat.S_IFCHR: b"3",
        stat.S_IFBLK: b"4",
        stat.S_IFDIR: b"5",
        stat.S_IFIFO: b"6",
    }.get(stat.S_IFMT(mode))
