"""Whose the files below a directory are, changed at once: chown(2) of a tree.

The tree may be a container's, which changes it meanwhile: every name is taken relative to its directory's
descriptor and never through a symbolic link, and what another file system is mounted on is left alone.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable

from sampan.dataclasses import dataclass
from sampan.linux import trees


@dataclass(frozen=True, slots=True)
class Translation:
    """A user and group as containers know them, and as whom they write to the disk."""

    uid: int
    gid: int
    disk_uid: int
    disk_gid: int


def give(path: str, uid: int, gid: int) -> None:
    """Let everything at and below a path belong to one user and group.

    Raises:
        OSError: the file system has no owners, or is read-only.
    """
    _walk(path, lambda _: (uid, gid))


def translate(path: str, owners: Translation) -> None:
    """Let what belongs to the container's user or group belong to the disk's; the rest stays."""

    def wanted(found: os.stat_result) -> tuple[int, int]:
        return (
            owners.disk_uid if found.st_uid == owners.uid else found.st_uid,
            owners.disk_gid if found.st_gid == owners.gid else found.st_gid,
        )

    _walk(path, wanted)


def _walk(path: str, wanted: Callable[[os.stat_result], tuple[int, int]]) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISDIR(found.st_mode):
            ids = wanted(found)
            if ids != (found.st_uid, found.st_gid):
                os.chown(f"/proc/self/fd/{fd}", *ids)
            return
        top = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(fd)
    device = found.st_dev
    try:
        for place, entries, _ in trees.walk(top):
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # it was taken away meanwhile
                    found = os.stat(entry.name, dir_fd=place, follow_symlinks=False)
                    if found.st_dev != device:
                        continue
                    ids = wanted(found)
                    if not stat.S_ISDIR(found.st_mode) and ids != (found.st_uid, found.st_gid):
                        os.chown(entry.name, *ids, dir_fd=place, follow_symlinks=False)
            found = os.fstat(place)
            ids = wanted(found)
            if ids != (found.st_uid, found.st_gid):
                os.fchown(place, *ids)
    finally:
        os.close(top)
