"""Reading a log that somebody else writes and rotates: from the oldest file to the newest, losing nothing.

A place is kept by descriptor. Where a file went under another name, or into a compressed copy, is found
out by its inode, or by its first bytes, which no other has, as each record tells its time.
"""

from __future__ import annotations

import gzip
import os
import time
from pathlib import Path
from typing import IO, cast

from sampan.dataclasses import dataclass
from sampan.runtime import LogPlace

BATCH_BYTES = 1 << 20
_HEAD_BYTES = 96
_TRIES = 200
_PAUSE_S = 0.0005


@dataclass(frozen=True, slots=True)
class Place:
    """How far a log was read: the first bytes of the file, and how many bytes of it."""

    head: bytes
    offset: int


class _File:
    def __init__(self, path: Path) -> None:
        raw = open(path, "rb", buffering=0)  # noqa: SIM115  (kept open while it is read)
        status = os.fstat(raw.fileno())
        self.key = (status.st_dev, status.st_ino)
        self.packed = path.suffix == ".gz"
        self.stream = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if self.packed else cast("IO[bytes]", raw)
        self._raw = raw
        self.head = self.read_head()
        self.offset = 0

    def read_head(self) -> bytes:
        if not self.packed:
            return os.pread(self._raw.fileno(), _HEAD_BYTES, 0)
        head = self.stream.read(_HEAD_BYTES)
        self.stream.seek(0)
        return head

    def began_as(self, place: LogPlace) -> bool:
        """Whether it is the file of this place, or its compressed copy."""
        if not place.head:  # nothing was written yet: a file begins with what was too much for the last
            return False
        return (self.packed or self.key[1] == place.inode) and self.head.startswith(place.head)

    def same(self, other: _File) -> bool:
        """Whether the two are one, or one is the other's compressed copy."""
        if not self.packed and not other.packed:
            return self.key == other.key
        length = min(len(self.head), len(other.head))
        return length > 0 and self.head[:length] == other.head[:length]

    def read(self, most: int = BATCH_BYTES) -> bytes:
        chunk = self.stream.read(most) or b""
        if not self.packed and len(self.head) < _HEAD_BYTES:  # a packed file grows no more
            self.head = self.read_head()
        self.offset += len(chunk)
        return chunk

    def begin_again_if_cut(self) -> bool:
        """Go to the start of a file that was emptied in place, as with `max-file=1`; whether it was."""
        if self.packed or os.fstat(self._raw.fileno()).st_size >= self.offset:
            return False
        self._raw.seek(0)
        self.head, self.offset = b"", 0
        return True

    def size_left(self) -> int:
        return max(0, os.fstat(self._raw.fileno()).st_size - (0 if self.packed else self.offset))

    def close(self) -> None:
        self.stream.close()
        self._raw.close()


def log_files(path: Path) -> tuple[list[Path], bool]:
    """The log's files, oldest first, and whether none is missing, as while they are rotated."""
    found: dict[int, Path] = {}
    try:
        names = os.listdir(path.parent)
    except FileNotFoundError:
        return [], True
    for name in names:
        number = name[len(path.name) + 1 :].removesuffix(".gz")
        if name == path.name:
            found[0] = path
        elif not name.startswith(f"{path.name}.") or not number.isdecimal() or int(number) == 0:
            continue
        elif int(number) not in found or not name.endswith(".gz"):  # a copy that is just made comes last
            found[int(number)] = path.with_name(name)
    numbers = sorted(found, reverse=True)
    return [found[number] for number in numbers], numbers == list(range(len(numbers)))[::-1]


def _open_all(path: Path) -> list[_File]:
    """All files at one moment, oldest first: tried again when they were rotated meanwhile."""
    for attempt in range(_TRIES):
        opened: list[_File] = []
        names, in_order = log_files(path)
        # A crash may have left a gap for good.
        if in_order or attempt >= _TRIES // 2:
            try:
                for name in names:
                    opened.append(_File(name))
                now = [os.stat(name) for name in log_files(path)[0]]
                if [(status.st_dev, status.st_ino) for status in now] == [file.key for file in opened]:
                    return opened
            except FileNotFoundError:
                pass
            for file in opened:
                file.close()
        time.sleep(_PAUSE_S)
    raise OSError(f"{path}: rotated faster than it can be read")


class Follower:
    """A place in a log's files. Blocking; used from one thread at a time.

    Args:
        path: the current file; it need not exist yet.

    Attributes:
        fresh: the last chunk was the first of a file: what was left of the one before will never be whole.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = _open_all(path)
        self._end: int | None = None  # of the last of them
        self.fresh = True

    def close(self) -> None:
        """Give the descriptors back."""
        for file in self._files:
            file.close()
        self._files = []

    def keep(self, count: int) -> None:
        """Forget all but the newest `count` files."""
        while len(self._files) > count:
            self._files.pop(0).close()

    def streams(self) -> list[IO[bytes]]:
        """The files, oldest first, for looking ahead; `rewind` afterwards."""
        return [file.stream for file in self._files]

    def rewind(self) -> None:
        """Begin again at the start of each."""
        for file in self._files:
            file.stream.seek(0)
            file.offset = 0

    def place(self) -> Place | None:
        """Where the next read begins; None at the very start."""
        file = self._files[0] if self._files else None
        return Place(file.head, file.offset) if file is not None else None

    def resume(self, place: Place) -> bool:
        """Go on at `place`; whether it is still there. If not, all that is there is newer."""
        for index, file in enumerate(self._files):
            if place.head and file.head.startswith(place.head):
                self.keep(len(self._files) - index)
                file.stream.seek(place.offset)
                file.offset = place.offset
                return True
        return False

    def stop_at(self, place: LogPlace) -> None:
        """Read no further than the writer was at `place`. Where that is gone, all that is there is newer."""
        self._end = place.offset
        while self._files and not self._files[-1].began_as(place):
            self._files.pop().close()

    def backlog(self) -> int:
        """About how many bytes there are still to read."""
        current = self._files[0] if self._files else None
        total = 0
        for name in reversed(log_files(self._path)[0]):
            try:
                other = _File(name)
            except FileNotFoundError:
                continue
            try:
                if current is not None and current.same(other):
                    return total + current.size_left()
                total += other.size_left()
            finally:
                other.close()
        return total

    def read(self) -> bytes | None:
        """The next bytes, of one file; None at the end for now."""
        while True:
            if self._files:
                file = self._files[0]
                last = len(self._files) == 1
                if file.begin_again_if_cut() and last and self._end is not None:
                    self._end = 0  # all that is there is newer
                at_start = file.offset == 0
                most = BATCH_BYTES
                if last and self._end is not None:
                    most = min(most, self._end - file.offset)
                chunk = file.read(most)
                if chunk:
                    self.fresh = at_start
                    return chunk
                if last:
                    if self._end is not None or not self._line_up():
                        return None
                    continue  # once more: it may have been written to before it was left
                self._files.pop(0).close()
            elif self._end is not None or not self._line_up():
                return None

    def _line_up(self) -> bool:
        """Open what is newer than our last file; whether there is anything."""
        ours = self._files[-1] if self._files else None
        if ours is not None and not ours.packed:
            try:
                status = os.stat(self._path)
                if (status.st_dev, status.st_ino) == ours.key:
                    return False
            except FileNotFoundError:
                pass  # being rotated, or gone
        if ours is not None and len(ours.head) < _HEAD_BYTES:
            ours.head = ours.read_head()  # it was empty when it was opened, and may be packed by now
        newer = _open_all(self._path)
        index = next((n for n, file in enumerate(newer) if ours is not None and ours.same(file)), -1)
        for file in newer[: index + 1]:
            file.close()
        self._files += newer[index + 1 :]
        return bool(newer[index + 1 :])
