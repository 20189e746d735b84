"""Subvolumes, snapshots and their limits on btrfs, by ioctl(2): <linux/btrfs.h>, btrfs-ioctl(2).

A subvolume is a tree of files that can be snapshotted and deleted as one; elsewhere it looks like a
directory, whose inode has the number 256. In a snapshot, a subvolume that lay in the original is an empty
directory (inode 2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
import sys
from collections.abc import Iterator

from sampan.linux import syscalls

ROOT_INODE, HOLLOW_INODE = 256, 2
_MAGIC = 0x9123683E

_CREATE, _DESTROY = 0x5000940E, 0x5000940F
_INODE_LOOKUP = 0xD0009412
_SNAPSHOT = 0x50009417
_GET_FLAGS, _SET_FLAGS = 0x80089419, 0x4008941A
_READ_ONLY = 1 << 1
_QUOTA_CONTROL, _RESCAN_WAIT = 0xC0109428, 0x942E
_GROUP_CREATE, _GROUP_LIMIT = 0x4010942A, 0x8030942B
_ENABLE = 1
_MAX_REFERENCED = 1 << 0

_BY_NAME = struct.Struct("=q4088s")
_FROM_SUBVOLUME = struct.Struct("=qQQ32x4040s")
_LOOKUP = struct.Struct("=QQ4080x")
_CONTROL = struct.Struct("=QQ")
_LIMIT = struct.Struct("=QQQQQQ")  # group, which limits; referenced, exclusive, and two that are not used
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Place = str | os.PathLike[str]


def is_btrfs(directory: Place) -> bool:
    """Whether a directory lies on btrfs; statfs(2)."""
    buffer = ctypes.create_string_buffer(256)
    if syscalls.libc.statfs(os.fsencode(directory), buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(directory))
    return int(ctypes.c_long.from_buffer(buffer).value) == _MAGIC


def create(target: Place) -> None:
    """Make an empty subvolume."""
    with _directory(os.path.dirname(target)) as above:
        fcntl.ioctl(above, _CREATE, bytearray(_BY_NAME.pack(0, os.fsencode(os.path.basename(target)))))


def snapshot(source: Place, target: Place) -> None:
    """Make a writable snapshot of the subvolume `source`."""
    with _directory(source) as original, _directory(os.path.dirname(target)) as above:
        name = os.fsencode(os.path.basename(target))
        fcntl.ioctl(above, _SNAPSHOT, bytearray(_FROM_SUBVOLUME.pack(original, 0, 0, name)))


def is_subvolume(info: os.stat_result) -> bool:
    """Whether this is the metadata of a subvolume, for a file that is known to lie on btrfs."""
    return info.st_ino == ROOT_INODE


def set_read_only(subvolume: Place) -> None:
    """Let nothing be changed in a subvolume any more."""
    with _directory(subvolume) as fd:
        _change_flags(fd, _READ_ONLY, 0)


def set_writable_in(above: int, name: str) -> None:
    """Let the subvolume `name` in the directory behind a descriptor be changed again."""
    fd = os.open(name, _OPEN, dir_fd=above)
    try:
        _change_flags(fd, 0, _READ_ONLY)
    finally:
        os.close(fd)


def _change_flags(fd: int, set_: int, clear: int) -> None:
    flags = bytearray(8)
    fcntl.ioctl(fd, _GET_FLAGS, flags)
    value = (int.from_bytes(flags, sys.byteorder) | set_) & ~clear
    fcntl.ioctl(fd, _SET_FLAGS, value.to_bytes(8, sys.byteorder))


def destroy(subvolume: Place) -> int:
    """Delete a subvolume with all its files, which the file system then frees by and by.

    Returns:
        its number, for `remove_group`.

    Raises:
        OSError: ENOTEMPTY when there are subvolumes in it.
    """
    with _directory(os.path.dirname(subvolume)) as above:
        return destroy_in(above, os.path.basename(subvolume))


def destroy_in(above: int, name: str) -> int:
    """`destroy` for a subvolume in the directory behind a descriptor."""
    fd = os.open(name, _OPEN, dir_fd=above)
    try:
        lookup = bytearray(_LOOKUP.pack(0, ROOT_INODE))
        fcntl.ioctl(fd, _INODE_LOOKUP, lookup)
    finally:
        os.close(fd)
    fcntl.ioctl(above, _DESTROY, bytearray(_BY_NAME.pack(0, os.fsencode(name))))
    number: int = _LOOKUP.unpack(lookup)[0]
    return number


def remove_group(directory: Place, number: int) -> bool:
    """Remove the quota group of a subvolume that was destroyed; whether there is none now.

    It stays busy until all of the subvolume is freed; from kernel 6.11 on it goes by itself then.

    Args:
        directory: any of the file system.
    """
    with _directory(directory) as fd:
        try:
            fcntl.ioctl(fd, _GROUP_CREATE, _CONTROL.pack(0, number))
        except OSError as error:
            return error.errno != errno.EBUSY  # others: there is none, or quotas are off
    return True


def limit(subvolume: Place, size_bytes: int) -> None:
    """Let a subvolume hold no more than this, what it shares with others included.

    Turns quotas on for the whole file system, which must then count what is there.
    """
    with _directory(subvolume) as fd:
        try:
            fcntl.ioctl(fd, _QUOTA_CONTROL, bytearray(_CONTROL.pack(_ENABLE, 0)))
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
        fcntl.ioctl(fd, _RESCAN_WAIT)
        fcntl.ioctl(fd, _GROUP_LIMIT, _LIMIT.pack(0, _MAX_REFERENCED, size_bytes, 0, 0, 0))


@contextlib.contextmanager
def _directory(path: Place) -> Iterator[int]:
    fd = os.open(path, _OPEN)
    try:
        yield fd
    finally:
        os.close(fd)
