"""What a container changed, read from the writable directory of its overlay."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from sampan.storage.driver import ADDED, DELETED, MODIFIED, Change
from sampan.storage.export import write_tree
from sampan.storage.lower_view import LowerView, is_opaque, is_whiteout
from sampan.storage.tar_writer import TarWriter
from sampan.storage.unpack import OPAQUE, WHITEOUT


class UpperWalk:
    """A writable directory held against the layers below it.

    Args:
        upper: the directory.
        lower: what the container's image shows.
    """

    def __init__(self, upper: bytes, lower: LowerView) -> None:
        self._upper = upper
        self._lower = lower

    def changes(self) -> list[Change]:
        """Every difference, sorted by path; directories that hold one count as changed themselves."""
        kinds: dict[bytes, int] = {}
        stack = [b""]
        while stack:
            directory = stack.pop()
            here = os.path.join(self._upper, directory)
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
            for entry in entries:
                path = os.path.join(directory, entry.name)
                info = entry.stat(follow_symlinks=False)
                below = self._lower.lookup(path)
                if is_whiteout(info):
                    if below is not None:
                        self._mark(kinds, path, DELETED)
                    continue
                if below is None:
                    self._mark(kinds, path, ADDED)
                elif differs(info, below):
                    self._mark(kinds, path, MODIFIED)
                if stat.S_ISDIR(info.st_mode):
                    stack.append(path)
                    if below is not None and is_opaque(os.path.join(self._upper, path)):
                        for name in self._lower.names(path) - set(
                            os.listdir(os.path.join(self._upper, path))
                        ):
                            self._mark(kinds, path + b"/" + name, DELETED)
        return [Change("/" + os.fsdecode(path), kind) for path, kind in sorted(kinds.items())]

    @staticmethod
    def _mark(kinds: dict[bytes, int], path: bytes, kind: int) -> None:
        kinds[path] = kind
        parent = path.rpartition(b"/")[0]
        while parent and parent not in kinds:
            kinds[parent] = MODIFIED
            parent = parent.rpartition(b"/")[0]

    def write_tar(self, out: BinaryIO) -> None:
        """Write the directory as a layer's archive."""
        writer = TarWriter(out)
        root = os.open(self._upper, os.O_RDONLY | os.O_DIRECTORY)
        try:
            write_tree(writer, root, _whiteout)
        finally:
            os.close(root)
        writer.close()


def _whiteout(writer: TarWriter, directory: int, name: bytes, path: bytes, info: os.stat_result) -> bool:
    if is_whiteout(info):
        above = path[: -len(name)]
        writer.header(above + WHITEOUT + name, b"0", mode=0, mtime_ns=info.st_mtime_ns)
        return True
    if stat.S_ISDIR(info.st_mode) and is_opaque(f"/proc/self/fd/{directory}/".encode() + name):
        writer.header(path + b"/" + OPAQUE, b"0", mode=0, mtime_ns=info.st_mtime_ns)
    return False


def differs(info: os.stat_result, below: os.stat_result) -> bool:
    """Whether a file is another one than what lay below it; a copy that the kernel made is not."""
    if (info.st_mode, info.st_uid, info.st_gid) != (below.st_mode, below.st_uid, below.st_gid):
        return True
    if stat.S_ISDIR(info.st_mode):
        return False
    return (info.st_size, info.st_mtime_ns, info.st_rdev) != (below.st_size, below.st_mtime_ns, below.st_rdev)


def tree_size(root: bytes) -> int:
    """The sum of the sizes of all files below a directory in bytes, hard links counted once."""
    total = 0
    seen: set[tuple[int, int]] = set()
    stack = [root]
    while stack:
        try:
            entries = list(os.scandir(stack.pop()))
        except FileNotFoundError:
            continue
        for entry in entries:
            try:
                info = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(info.st_mode):
                stack.append(entry.path)
            elif stat.S_ISREG(info.st_mode):
                if info.st_nlink > 1:
                    if (info.st_dev, info.st_ino) in seen:
                        continue
                    seen.add((info.st_dev, info.st_ino))
                total += info.st_size
    return total
