"""A directory tree as a tar archive: sorted, with links, attributes and times, and nothing followed.

Each directory is entered by descriptor from the one above it, so that a name swapped for a link during the
walk leads nowhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import BinaryIO

from sampan.linux import beneath
from sampan.storage.tar_writer import TarWriter, kind_of

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_HIDDEN_XATTRS = ("trusted.overlay.", "user.overlay.", "system.", "security.selinux")

# Called with (writer, directory descriptor, name, path, metadata); True when it has dealt with the file.
Special = Callable[[TarWriter, int, bytes, bytes, os.stat_result], bool]


def export_tar(rootfs: str | int, out: BinaryIO) -> None:
    """Write everything below `rootfs` to `out` as one archive.

    Args:
        rootfs: a directory's path or descriptor (the descriptor stays the caller's).
        out: where to write; nothing is read back.
    """
    writer = TarWriter(out)
    root = os.open(rootfs, _DIRECTORY) if isinstance(rootfs, str) else os.open(".", _DIRECTORY, dir_fd=rootfs)
    try:
        write_tree(writer, root)
    finally:
        os.close(root)
    writer.close()


def write_tree(writer: TarWriter, root: int, special: Special | None = None, prefix: bytes = b"") -> None:
    """Write every file below the directory `root`, without the end mark; `prefix` leads each name."""
    links: dict[tuple[int, int], bytes] = {}
    stack = [(root, prefix, _names(root), 0)]
    try:
        while stack:
            directory, path, names, at = stack.pop()
            if at == len(names):
                if directory != root:
                    os.close(directory)
                continue
            stack.append((directory, path, names, at + 1))
            name = names[at]
            try:
                info = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                continue  # gone since the directory was read
            full = path + name
            if special is not None and special(writer, directory, name, full, info):
                continue
            if not stat.S_ISDIR(info.st_mode):
                _write_file(writer, directory, name, full, info, links)
                continue
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                child = os.open(name, _DIRECTORY, dir_fd=directory)
                stack.append((child, full + b"/", [], 0))
                _header(writer, full + b"/", os.fstat(child), _xattrs(child))
                stack[-1] = (child, full + b"/", _names(child), 0)
    finally:
        for directory, _, _, _ in stack:
            if directory != root:
                os.close(directory)


def archive_path(root: int, path: str, name: str, out: BinaryIO) -> None:
    """Write the file or directory at `path` beneath the directory `root` as an archive, as `name` in it.

    A link in the last place is written as a link, unless the path ends in "/" or "/.".

    Raises:
        OSError: there is no such file.
    """
    writer = TarWriter(out)
    write_path(writer, root, path, os.fsencode(name))
    writer.close()


def write_path(writer: TarWriter, root: int, path: str, name: bytes) -> None:
    """As `archive_path`, without the end mark."""
    handle = beneath.open_path(root, path, _LOOK, nofollow_last=True)
    try:
        info = os.fstat(handle)
        if stat.S_ISDIR(info.st_mode):
            directory = os.open(".", _DIRECTORY, dir_fd=handle)
            try:
                inside = name if name.endswith(b"/") else name + b"/"
                _header(writer, inside, info, _xattrs(directory))
                write_tree(writer, directory, prefix=inside)
            finally:
                os.close(directory)
            return
        above, _, last = os.fsencode(path).rpartition(b"/")
        parent = beneath.open_path(root, os.fsdecode(above), os.O_PATH | os.O_DIRECTORY)
        try:
            _write_file(writer, parent, last, name, info, {})
        finally:
            os.close(parent)
    finally:
        os.close(handle)


def _names(directory: int) -> list[bytes]:
    return sorted(os.fsencode(name) for name in os.listdir(directory))


def _write_file(
    writer: TarWriter,
    directory: int,
    name: bytes,
    path: bytes,
    info: os.stat_result,
    links: dict[tuple[int, int], bytes],
) -> None:
    kind = kind_of(info.st_mode)
    if kind is None:
        return
    if info.st_nlink > 1:
        first = links.setdefault((info.st_dev, info.st_ino), path)
        if first != path:
            writer.header(
                path, b"1", mode=stat.S_IMODE(info.st_mode), uid=info.st_uid, gid=info.st_gid,
                mtime_ns=info.st_mtime_ns, link=first,
            )  # fmt: skip
            return
    if kind != b"0":
        try:
            link = os.readlink(name, dir_fd=directory) if kind == b"2" else b""
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):
                return  # gone, or something else, since it was looked at
            raise
        _header(writer, path, info, _xattrs(f"/proc/self/fd/{directory}/".encode() + name), link)
        return
    fd = _open_regular(directory, name)
    if fd is None:
        return
    try:
        info = os.fstat(fd)
        _header(writer, path, info, _xattrs(fd))
        writer.file(fd, info.st_size)
    finally:
        os.close(fd)


def _open_regular(directory: int, name: bytes) -> int | None:
    """A regular file for reading. What a container puts in its place, say a device, stays closed."""
    try:
        handle = os.open(name, _LOOK, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(handle)


def _header(
    writer: TarWriter, path: bytes, info: os.stat_result, xattrs: dict[str, bytes], link: bytes = b""
) -> None:
    kind = kind_of(info.st_mode)
    assert kind is not None
    writer.header(
        path,
        kind,
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        size=info.st_size if kind == b"0" else 0,
        mtime_ns=info.st_mtime_ns,
        link=link,
        device=(os.major(info.st_rdev), os.minor(info.st_rdev)) if kind in b"34" else (0, 0),
        xattrs=xattrs,
    )


def _xattrs(target: int | bytes) -> dict[str, bytes]:
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
        return {
            name: os.getxattr(target, name, follow_symlinks=follow)
            for name in names
            if not name.startswith(_HIDDEN_XATTRS)
        }
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENODATA, errno.ENOENT, errno.EPERM):
            return {}
        raise
