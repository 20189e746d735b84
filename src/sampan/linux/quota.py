"""Limits on directory trees by project quotas: quotactl_fd(2), ioctl_xfs_fsgetxattr(2), <linux/dqblk_xfs.h>.

A tree belongs to a project by number; all that is made in it inherits the number, and ext4 and XFS count and
limit each project's blocks where they are mounted with `prjquota`. Needs kernel 5.14 (`quotactl_fd`).

Which numbers are taken is asked of the file system, not kept: one that owns no file is free. Which one a
tree was given is written down beside it: root in a container can put the tree into another project, whose
limit is not to be lifted with that tree. Two may pass: whoever may change attributes of files it owns in the
first user namespace can take them out of their project (`chattr -p`), and CAP_SYS_RESOURCE is not limited by
ext4 (but through an overlay is).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import struct
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from sampan.dataclasses import dataclass
from sampan.linux import kernel, syscalls

SYS_QUOTACTL_FD = 443
_PROJECT = 2  # the kind of quota
_GET, _SET_LIMITS, _GET_STATE = 0x5803, 0x5804, 0x5808
_ENFORCED = 1 << 5  # FS_QUOTA_PDQ_ENFD
_OF_PROJECT = 2  # FS_PROJ_QUOTA
_BLOCK_LIMITS = 0x0C  # FS_DQ_BSOFT | FS_DQ_BHARD
_UNIT = 512

_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x801C581F, 0x401C5820
_ATTRIBUTES = struct.Struct("=5I8x")  # flags, extent size, extents, project, CoW extent size
_INHERIT = 0x200

_FIRST, _LAST = 1 << 20, (1 << 31) - 1  # small numbers are people's, in /etc/projects
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_lock = threading.Lock()


class _Quota(ctypes.Structure):
    """struct fs_disk_quota."""

    _fields_ = (
        ("version", ctypes.c_int8),
        ("flags", ctypes.c_int8),
        ("fieldmask", ctypes.c_uint16),
        ("id", ctypes.c_uint32),
        ("block_hard", ctypes.c_uint64),
        ("block_soft", ctypes.c_uint64),
        ("inode_hard", ctypes.c_uint64),
        ("inode_soft", ctypes.c_uint64),
        ("blocks", ctypes.c_uint64),
        ("inodes", ctypes.c_uint64),
        ("rest", ctypes.c_uint8 * 56),
    )


@dataclass(frozen=True, slots=True)
class Usage:
    """What a project has used of what it may, and in how many files; a limit of 0 is none."""

    used_bytes: int
    limit_bytes: int
    files: int


def obstacle(directory: str | os.PathLike[str]) -> str:
    """Why trees below a directory cannot be limited, in words; empty when they can."""
    fd = os.open(directory, _OPEN)
    try:
        state = ctypes.create_string_buffer(b"\1", 512)  # struct fs_quota_statv, version 1
        try:
            _control(fd, _GET_STATE, 0, state)
        except OSError as error:  # ENOSYS is also said by file systems without any quota
            if error.errno == errno.ENOSYS and kernel.release() < (5, 14):
                return "limits on directories need kernel 5.14"
            return "its file system has no project quotas (ext4 and XFS have them when mounted with prjquota)"
        if not int.from_bytes(state.raw[2:4], sys.byteorder) & _ENFORCED:
            return "its file system does not enforce project quotas (mount it with prjquota)"
        flags, _, _, project, _ = _attributes(fd)
        if flags & _INHERIT:
            return f"it lies in project {project} itself, and a project cannot hold another"
    finally:
        os.close(fd)
    return ""


def limit(directories: Sequence[str | os.PathLike[str]], size_bytes: int, record: Path | None = None) -> int:
    """Let empty directories of one file system, together, hold no more than this.

    Args:
        record: a file to keep the project's number in, for `release_recorded`; out of containers' reach.

    Returns:
        the project that they and all that is made in them belong to.

    Raises:
        OSError: the file system cannot (see `obstacle`).
    """
    opened: list[int] = []
    try:
        opened.extend(os.open(directory, _OPEN) for directory in directories)
        with _lock:
            project = _free_project(opened[0])
            if record is not None:
                record.write_text(str(project))
            _set_limit(opened[0], project, size_bytes)
            try:
                for fd in opened:
                    flags, extent, count, _, cow = _attributes(fd)
                    changed = _ATTRIBUTES.pack(flags | _INHERIT, extent, count, project, cow)
                    fcntl.ioctl(fd, _SET_ATTRIBUTES, changed)
            except OSError:
                _set_limit(opened[0], project, 0)
                raise
    finally:
        for fd in opened:
            os.close(fd)
    return project


def project_of(directory: str | os.PathLike[str]) -> int:
    """The project that a directory belongs to; 0 for none, also where the file system knows no projects."""
    fd = os.open(directory, _OPEN)
    try:
        return _attributes(fd)[3]
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL):
            return 0
        raise
    finally:
        os.close(fd)


def usage(directory: str | os.PathLike[str], project: int) -> Usage:
    """What a project of the file system that holds `directory` uses."""
    fd = os.open(directory, _OPEN)
    try:
        found = _get(fd, project)
    finally:
        os.close(fd)
    return Usage(found.blocks * _UNIT, found.block_hard * _UNIT, found.inodes)


def release(directory: str | os.PathLike[str], project: int) -> None:
    """Take the limit off a project whose tree is gone, so that the file system may forget it.

    XFS counts files for some moments longer than they live: the number is free when it does not any more.

    Args:
        directory: any directory of the file system.
        project: 0 is left alone.
    """
    fd = os.open(directory, _OPEN)
    try:
        if project:
            _set_limit(fd, project, 0)
    finally:
        os.close(fd)


def release_recorded(directory: str | os.PathLike[str], record: Path) -> None:
    """`release` the project that `limit` has recorded, if it has; where quotas are off, nothing is."""
    try:
        project = int(record.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):  # none; cut short by a crash
        return
    with contextlib.suppress(OSError):
        release(directory, project)


def _free_project(fd: int) -> int:
    while True:
        project = _FIRST + secrets.randbelow(_LAST - _FIRST)
        if _get(fd, project).inodes == 0:
            return project


def _attributes(fd: int) -> tuple[int, int, int, int, int]:
    data = bytearray(_ATTRIBUTES.size)
    fcntl.ioctl(fd, _GET_ATTRIBUTES, data)
    flags, extent, count, project, cow = _ATTRIBUTES.unpack(data)
    return flags, extent, count, project, cow


def _get(fd: int, project: int) -> _Quota:
    found = _Quota()
    try:
        _control(fd, _GET, project, found)
    except OSError as error:
        if error.errno != errno.ENOENT:  # XFS: nothing is known of it
            raise
    return found


def _set_limit(fd: int, project: int, size_bytes: int) -> None:
    units = -(-size_bytes // _UNIT)
    wanted = _Quota(
        version=1, flags=_OF_PROJECT, fieldmask=_BLOCK_LIMITS, id=project, block_hard=units, block_soft=units
    )
    _control(fd, _SET_LIMITS, project, wanted)


def _control(fd: int, command: int, project: int, argument: ctypes.Array[ctypes.c_char] | _Quota) -> None:
    number = command << 8 | _PROJECT
    syscalls.syscall("quotactl_fd", SYS_QUOTACTL_FD, fd, number, project, ctypes.byref(argument))
