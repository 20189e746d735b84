"""The first-use copy: an empty volume receives what the image has where the volume will be mounted.

Neither the container's files are to be trusted nor the volume, which another container may have mounted and
change meanwhile: the source is found by openat2(2) with RESOLVE_IN_ROOT, and in both every name is opened
relative to its directory's descriptor and never through a symbolic link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from sampan.linux import trees
from sampan.linux.syscalls import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    openat2,
)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_BYTES = 1 << 24


def open_source(rootfs: str, path: str) -> int | None:
    """A descriptor of the directory `path` of a root file system; None when there is no such directory."""
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY
        return openat2(root, path, flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    finally:
        os.close(root)


def copy_tree(source: int, target: Path) -> None:
    """Copy the directory `source` into the empty directory `target`.

    Owners, modes, extended attributes, hard links, device nodes and times (nanoseconds) come along, those of
    the directory itself too.

    Raises:
        OSError: when something cannot be copied; the caller empties the target again.
    """
    destination = os.open(target, _DIRECTORY)
    try:
        _Copy(destination).directory(source, destination)
    finally:
        os.close(destination)


def empty(target: Path) -> None:
    """Delete what is in a directory."""
    for entry in list(os.scandir(target)):
        with contextlib.suppress(FileNotFoundError):  # a container has taken it away meanwhile
            if entry.is_dir(follow_symlinks=False):
                trees.remove(entry.path)
            else:
                os.unlink(entry.path)


class _Copy:
    """One copy; remembers the files with several links, by inode, as a path below the target."""

    def __init__(self, top: int) -> None:
        self._linked: dict[tuple[int, int], str] = {}
        self._top = top

    def directory(self, source: int, destination: int, prefix: str = "") -> None:
        """Copy the content of one open directory into another, then the directory's own attributes."""
        for name in os.listdir(source):
            self._entry(source, destination, name, prefix + name)
        status = os.fstat(source)
        os.fchown(destination, status.st_uid, status.st_gid)
        os.fchmod(destination, stat.S_IMODE(status.st_mode))
        _copy_xattrs(source, destination)
        os.utime(destination, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _entry(self, source: int, destination: int, name: str, path: str) -> None:
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            self._subdirectory(source, destination, name, path)
            return
        if status.st_nlink > 1:
            key = (status.st_dev, status.st_ino)
            if key in self._linked:
                self._link(self._linked[key], destination, name)
                return
            self._linked[key] = path
        if kind == stat.S_IFREG:
            _copy_file(source, destination, name)
            return
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=destination)
        elif kind == stat.S_IFSOCK:
            return  # a socket file without its owner is of no use
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=destination)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=destination, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            _change_mode(destination, name, status.st_mode)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=destination, follow_symlinks=False)

    def _link(self, path: str, destination: int, name: str) -> None:
        """Link what was copied to `path`: a symbolic link in its last place itself, none before that."""
        directory, _, first = path.rpartition("/")
        beneath = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
        above = openat2(self._top, directory or ".", os.O_PATH | os.O_DIRECTORY, resolve=beneath)
        try:
            os.link(first, name, src_dir_fd=above, dst_dir_fd=destination, follow_symlinks=False)
        finally:
            os.close(above)

    def _subdirectory(self, source: int, destination: int, name: str, path: str) -> None:
        os.mkdir(name, 0o700, dir_fd=destination)
        inner = os.open(name, _DIRECTORY, dir_fd=source)
        try:
            made = os.open(name, _DIRECTORY, dir_fd=destination)
            try:
                self.directory(inner, made, path + "/")
            finally:
                os.close(made)
        finally:
            os.close(inner)


def _change_mode(directory: int, name: str, mode: int) -> None:
    """chmod(2), which follows links, of what is none: mknod(2) heeded the umask."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if stat.S_IFMT(os.fstat(fd).st_mode) == stat.S_IFMT(mode):
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(mode))
    finally:
        os.close(fd)


def _copy_file(source: int, destination: int, name: str) -> None:
    # O_NONBLOCK: should the name have become a FIFO meanwhile, the open does not wait for a writer
    reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    try:
        status = os.fstat(reader)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writer = os.open(name, flags, 0o600, dir_fd=destination)
        try:
            while os.sendfile(writer, reader, None, _COPY_BYTES):
                pass
            os.fchown(writer, status.st_uid, status.st_gid)
            os.fchmod(writer, stat.S_IMODE(status.st_mode))
            _copy_xattrs(reader, writer)
            os.utime(writer, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _copy_xattrs(source: int, destination: int) -> None:
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # a file system without them
            return
        raise
    for name in names:
        if name.startswith(("trusted.overlay.", "security.selinux")):
            continue  # the layers' bookkeeping, and a label that belongs to another place
        os.setxattr(destination, name, os.getxattr(source, name))
