"""A faithful copy of a directory tree: hard links, attributes, devices, exact times; links never followed.

File contents are shared where the file system can (FICLONE, see ioctl_ficlone(2)) and copied in the kernel
where it cannot.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable

_FICLONE = 0x40049409
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_REFLINK = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY)
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_PIECE = 1 << 30


class TreeCopy:
    """Copies all below the directory `source`, and its own metadata, into the empty directory `target`.

    Args:
        changing: the source may change meanwhile: what goes away is left out, and so are sockets.
        keep_xattr: which extended attributes to copy; all when not given.
        skip: the beginning of names that are left out, with all below them.
    """

    def __init__(
        self,
        source: str,
        target: str,
        changing: bool = False,
        keep_xattr: Callable[[str], bool] | None = None,
        skip: str = "",
    ) -> None:
        self._skip = skip
        self._changing = changing
        self._keep_xattr = keep_xattr
        self._source = source
        self._target = target
        self._reflink = True
        self._links: dict[tuple[int, int], str] = {}

    def run(self) -> None:
        """Do it."""
        source, target = os.open(self._source, _DIRECTORY), os.open(self._target, _DIRECTORY)
        try:
            self._directory(source, target, "")
        finally:
            os.close(source)
            os.close(target)

    def _directory(self, source: int, target: int, path: str) -> None:
        pending: list[tuple[int, int, str, list[str]]] = [(source, target, path, os.listdir(source))]
        opened: list[int] = []
        try:
            while pending:
                source, target, path, names = pending[-1]
                if not names:
                    pending.pop()
                    self._metadata(source, target)
                    if len(opened) >= 2:
                        os.close(opened.pop())
                        os.close(opened.pop())
                    continue
                name = names.pop()
                if self._skip and name.startswith(self._skip):
                    continue
                below = f"{path}/{name}" if path else name
                try:
                    info = os.stat(name, dir_fd=source, follow_symlinks=False)
                    if not stat.S_ISDIR(info.st_mode):
                        self._file(source, target, name, below, info)
                        continue
                    opened.append(os.open(name, _DIRECTORY, dir_fd=source))
                except OSError as error:
                    if self._changing and error.errno in _GONE:
                        continue
                    raise
                try:
                    os.mkdir(name, 0o700, dir_fd=target)
                    opened.append(os.open(name, _DIRECTORY, dir_fd=target))
                except BaseException:
                    os.close(opened.pop())
                    raise
                pending.append((opened[-2], opened[-1], below, os.listdir(opened[-2])))
        finally:
            for fd in opened:
                os.close(fd)

    def _file(self, source: int, target: int, name: str, path: str, info: os.stat_result) -> None:
        if info.st_nlink > 1:
            first = self._links.setdefault((info.st_dev, info.st_ino), path)
            if first != path:
                os.link(f"{self._target}/{first}", name, dst_dir_fd=target, follow_symlinks=False)
                return
        if stat.S_ISREG(info.st_mode):
            old = _open_regular(source, name)
            try:
                new = os.open(name, _CREATE, 0o600, dir_fd=target)
                try:
                    self._content(old, new, os.fstat(old).st_size)
                    self._metadata(old, new)
                finally:
                    os.close(new)
            finally:
                os.close(old)
            return
        if stat.S_ISSOCK(info.st_mode) and self._changing:
            return
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, info.st_mode, info.st_rdev, dir_fd=target)
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(info.st_mode):
            os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=target)
        old_path, new_path = f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{name}"
        for key in self._xattrs(old_path):
            value = os.getxattr(old_path, key, follow_symlinks=False)
            os.setxattr(new_path, key, value, follow_symlinks=False)
        os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)

    def _content(self, old: int, new: int, size: int) -> None:
        if self._reflink:
            try:
                fcntl.ioctl(new, _FICLONE, old)
                return
            except OSError as error:
                if error.errno not in _NO_REFLINK:
                    raise
                self._reflink = False
        left = size
        while left:
            copied = os.copy_file_range(old, new, min(left, _PIECE))
            if not copied:
                break
            left -= copied

    def _metadata(self, old: int, new: int) -> None:
        info = os.fstat(old)
        os.fchown(new, info.st_uid, info.st_gid)
        for key in self._xattrs(old):
            os.setxattr(new, key, os.getxattr(old, key))
        os.fchmod(new, stat.S_IMODE(info.st_mode))
        os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns))

    def _xattrs(self, target: int | str) -> list[str]:
        keep = self._keep_xattr
        return [key for key in _list_xattrs(target) if keep is None or keep(key)]


def _open_regular(directory: int, name: str) -> int:
    """A regular file for reading; what was put in its place meanwhile, say a device, stays closed."""
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.ENOENT, "no longer a regular file", name)
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(handle)


def _list_xattrs(target: int | str) -> list[str]:
    try:
        return os.listxattr(target, follow_symlinks=isinstance(target, int))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return []
        raise
