"""What a container changed, read from the writable directory of its overlay."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import BinaryIO

from sampan.linux import syscalls, trees
from sampan.storage import init_layer
from sampan.storage.driver import ADDED, DELETED, MODIFIED, Change
from sampan.storage.export import write_tree
from sampan.storage.lower_view import LowerView, is_opaque, is_whiteout
from sampan.storage.tar_writer import TarWriter
from sampan.storage.unpack import OPAQUE, WHITEOUT


class Listing:
    """What is in one directory of a tree, which a running container may be changing: no link is followed."""

    def __init__(self, root: bytes, directory: bytes) -> None:
        self.entries: dict[bytes, os.stat_result] = {}
        self.opaque = False
        top = os.open(root, os.O_PATH | os.O_DIRECTORY)
        try:
            fd = syscalls.openat2(
                top,
                directory or b".",
                os.O_RDONLY | os.O_DIRECTORY,
                resolve=syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS,
            )
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return
            raise
        finally:
            os.close(top)
        try:
            self.opaque = is_opaque(fd)
            for name in os.listdir(fd):
                with contextlib.suppress(FileNotFoundError):
                    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    self.entries[os.fsencode(name)] = info
        finally:
            os.close(fd)


def as_changes(kinds: dict[bytes, int]) -> list[Change]:
    """Differences by path as the sorted list that drivers return."""
    return [Change("/" + os.fsdecode(path), kind) for path, kind in sorted(kinds.items())]


def mark(kinds: dict[bytes, int], path: bytes, kind: int) -> None:
    """Note a difference; the directories above it are changed by it."""
    kinds[path] = kind
    parent = path.rpartition(b"/")[0]
    while parent and parent not in kinds:
        kinds[parent] = MODIFIED
        parent = parent.rpartition(b"/")[0]


class UpperWalk:
    """A writable directory held against the layers below it.

    Args:
        upper: the directory.
        lower: what the container's image shows.
        skip: the beginning of names that are no files of the container's but marks.
    """

    def __init__(self, upper: bytes, lower: LowerView, skip: bytes = b"") -> None:
        self._upper = upper
        self._lower = lower
        self._skip = skip

    def changes(self) -> list[Change]:
        """Every difference, sorted by path; directories that hold one count as changed themselves."""
        kinds: dict[bytes, int] = {}
        stack = [b""]
        while stack:
            directory = stack.pop()
            listing = Listing(self._upper, directory)
            if listing.opaque and directory and self._lower.lookup(directory) is not None:
                for name in self._lower.names(directory) - listing.entries.keys():
                    mark(kinds, directory + b"/" + name, DELETED)
            for name, info in listing.entries.items():
                if self._skip and name.startswith(self._skip):
                    continue
                path = os.path.join(directory, name)
                below = self._lower.lookup(path)
                if is_whiteout(info):
                    if below is not None:
                        mark(kinds, path, DELETED)
                    continue
                if below is None:
                    mark(kinds, path, ADDED)
                elif differs(info, below):
                    mark(kinds, path, MODIFIED)
                if stat.S_ISDIR(info.st_mode):
                    stack.append(path)
        return as_changes(kinds)

    def write_tar(self, out: BinaryIO) -> None:
        """Write the directory as a layer's archive."""
        write_upper(self._upper, out, self._skip)


def write_upper(upper: bytes, out: BinaryIO, skip: bytes = b"") -> None:
    """Write a layer's or a container's directory as a layer's archive: overlay's marks become whiteouts."""

    def special(writer: TarWriter, directory: int, name: bytes, path: bytes, info: os.stat_result) -> bool:
        if skip and name.startswith(skip):
            return True
        return _whiteout(writer, directory, name, path, info)

    writer = TarWriter(out)
    root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY)
    try:
        write_tree(writer, root, special if skip else _whiteout)
    finally:
        os.close(root)
    writer.close()


class TreeWalk:
    """A container's full copy held against the image's.

    Args:
        upper: the container's directory.
        lower: the image's; None for an empty one.
    """

    def __init__(self, upper: bytes, lower: bytes | None) -> None:
        self._upper = upper
        self._lower = lower

    def changes(self) -> list[Change]:
        """Every difference, sorted by path; directories that hold one count as changed themselves."""
        kinds: dict[bytes, int] = {}
        stack = [b""]
        while stack:
            directory = stack.pop()
            above = Listing(self._upper, directory).entries
            below = Listing(self._lower, directory).entries if self._lower is not None else {}
            for name in below.keys() - above.keys():
                mark(kinds, os.path.join(directory, name), DELETED)
            for name, info in above.items():
                path = os.path.join(directory, name)
                old = below.get(name)
                if old is None:
                    if not init_layer.is_untouched(os.fsdecode(path), info):
                        mark(kinds, path, ADDED)
                elif differs(info, old):
                    mark(kinds, path, MODIFIED)
                if stat.S_ISDIR(info.st_mode):
                    stack.append(path)
        return as_changes(kinds)

    def write_tar(self, out: BinaryIO) -> None:
        """Write what differs as a layer's archive."""
        found = {os.fsencode(change.path[1:]): change.kind for change in self.changes()}
        writer = TarWriter(out)
        root = os.open(self._upper, os.O_RDONLY | os.O_DIRECTORY)
        try:
            write_tree(writer, root, lambda _writer, _directory, _name, path, _info: path not in found)
        finally:
            os.close(root)
        for path, kind in sorted(found.items()):
            if kind == DELETED:
                directory, _, name = path.rpartition(b"/")
                writer.header(os.path.join(directory, WHITEOUT + name), b"0", mode=0)
        writer.close()

    def size(self) -> int:
        """The sum of the sizes of files that were added or changed in bytes, hard links counted once."""
        sizes: dict[tuple[int, int], int] = {}
        for change in self.changes():
            if change.kind != DELETED:
                with contextlib.suppress(FileNotFoundError):  # a container that runs may take it away
                    info = os.lstat(self._upper + os.fsencode(change.path))
                    if stat.S_ISREG(info.st_mode):
                        sizes[info.st_dev, info.st_ino] = info.st_size
        return sum(sizes.values())


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
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _, entries, _ in trees.walk(top):
            for entry in entries:
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # a container that runs has taken it away
                    continue
                if not stat.S_ISREG(info.st_mode):
                    continue
                if info.st_nlink > 1:
                    if (info.st_dev, info.st_ino) in seen:
                        continue
                    seen.add((info.st_dev, info.st_ino))
                total += info.st_size
    finally:
        os.close(top)
    return total
