"""Directory trees of any depth, as a container can make them, walked and deleted with few descriptors.

Neither Python's stack (a level of recursion each) nor descriptors (one each) nor PATH_MAX may bound what can
be counted or deleted: else whoever nests directories deep enough keeps the disk. No link is followed.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator

from sampan.linux import syscalls

_LEVELS = 100  # what shutil.rmtree takes in its stride
_PATH_BYTES = 1000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_GONE = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.EXDEV,
)  # taken away or swapped meanwhile; another mount
_RESOLVE = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV


class _Anchor:
    """A directory that others are opened from, for as long as there are any left."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 1

    def let_go(self) -> None:
        self.users -= 1
        if self.users == 0:
            os.close(self.fd)


def walk(top: int, levels: int | None = None) -> Iterator[tuple[int, list[os.DirEntry[str]], int]]:
    """Every directory at and below `top` on its file system, parents first.

    Args:
        top: a descriptor of the directory (which stays the caller's).
        levels: how far down to go.

    Yields:
        A descriptor and the entries of the directory, both good until the next one, and its level from 0 on.
    """
    todo = [(_Anchor(os.dup(top)), "", 0)]
    try:
        while todo:
            anchor, path, level = todo.pop()
            try:
                fd = syscalls.openat2(anchor.fd, path or ".", _DIRECTORY, resolve=_RESOLVE)
            except OSError as error:
                if error.errno not in _GONE:
                    raise
                anchor.let_go()
                continue
            try:
                with os.scandir(fd) as found:
                    entries = list(found)
                yield fd, entries, level
                if levels is None or level < levels:
                    inner = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
                    from_here = len(os.fsencode(path)) > _PATH_BYTES
                    base = _Anchor(os.dup(fd)) if from_here and inner else anchor
                    prefix = "" if base is not anchor or not path else f"{path}/"
                    base.users += len(inner)
                    todo += [(base, prefix + name, level + 1) for name in inner]
                    if base is not anchor:
                        base.let_go()
            finally:
                os.close(fd)
                anchor.let_go()
    finally:
        for anchor, _, _ in todo:
            anchor.let_go()


def remove(path: str | os.PathLike[str]) -> None:
    """Delete a directory and all below it. What is gone already is no error.

    Raises:
        OSError: something cannot be deleted.
    """
    try:
        _remove(path)
        return
    except RecursionError:
        pass
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENAMETOOLONG):
            raise
    top = os.open(path, _DIRECTORY | os.O_CLOEXEC)
    try:
        _flatten(top)
    finally:
        os.close(top)
    _remove(path)


def _remove(path: str | os.PathLike[str]) -> None:
    if sys.version_info >= (3, 12):
        shutil.rmtree(path, onexc=_vanished)
    else:
        shutil.rmtree(path, onerror=_vanished)


def _vanished(_function: object, _path: str, information: object) -> None:
    error = information[1] if isinstance(information, tuple) else information
    if isinstance(error, BaseException) and not isinstance(error, FileNotFoundError):
        raise error


def _flatten(top: int) -> None:
    """Bring what lies deep up to the top, piece by piece, until nothing lies deep."""
    pieces = [""]
    while pieces:
        piece = pieces.pop()
        fd = os.open(piece or ".", _DIRECTORY | os.O_CLOEXEC, dir_fd=top)
        try:
            for place, entries, level in walk(fd, _LEVELS):
                for entry in entries if level == _LEVELS else ():
                    if entry.is_dir(follow_symlinks=False):
                        pieces.append(f".deep-{secrets.token_hex(8)}")
                        os.rename(entry.name, pieces[-1], src_dir_fd=place, dst_dir_fd=top)
        finally:
            os.close(fd)
