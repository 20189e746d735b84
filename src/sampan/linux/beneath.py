"""Open and create files beneath a directory that an image's author controls, never outside it (openat2(2)).

Every step is taken at descriptors: a component that turns into a symbolic link, or is renamed away in the
middle, cannot lead out of the root.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.linux import syscalls

_IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS


def open_path(
    root: int,
    path: str,
    flags: int = os.O_PATH,
    follow: bool = True,
    nofollow_last: bool = False,
    crossing: bool = True,
) -> int:
    """Open `path` as a process whose root directory is `root` would.

    Args:
        root: descriptor of the root directory.
        path: absolute or relative to the root; `..` and links stay inside.
        flags: as for open(2); O_CLOEXEC is added.
        follow: False refuses symbolic links anywhere in the path, with ELOOP.
        nofollow_last: with O_PATH, opens a link in the last place itself; "/" or "/." behind it follow it.
        crossing: False refuses whatever is mounted beneath the root, with EXDEV.

    Raises:
        OSError: as openat2(2).
    """
    resolve = _IN_ROOT if follow else _IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS
    resolve |= 0 if crossing else syscalls.RESOLVE_NO_XDEV
    flags |= os.O_NOFOLLOW if nofollow_last else 0
    return syscalls.openat2(root, path or "/", flags, 0, resolve)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def make_directory(root: int, path: str, mode: int = 0o755, follow: bool = True) -> int:
    """Open the directory `path` beneath `root` with O_PATH, making what is missing.

    A link that dangles inside the root has its target made, as a shell inside would do with `mkdir -p`.

    Raises:
        NotADirectoryError: when something else is in the way.
    """
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        return open_path(root, path, flags, follow)
    except FileNotFoundError:
        pass
    done: list[str] = []
    current = open_path(root, "/", flags)
    todo = _parts(path)
    links = 0
    while todo:
        name = todo.pop(0)
        if name == "..":
            done = done[:-1]
            following = open_path(root, "/" + "/".join(done), flags)
        else:
            try:
                os.mkdir(name, mode, dir_fd=current)
            except FileExistsError:
                pass
            try:
                following = syscalls.openat2(
                    current, name, flags, 0, syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
                )
                done.append(name)
            except OSError as error:
                if error.errno != errno.ELOOP or not follow:
                    os.close(current)
                    raise
                links += 1
                if links > 40:
                    os.close(current)
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                target = os.readlink(name, dir_fd=current)
                if target.startswith("/"):
                    done = []
                todo = _parts(target) + todo
                following = open_path(root, "/" + "/".join(done), flags)
        os.close(current)
        current = following
    return current


def make_file(root: int, path: str, follow: bool = True) -> int:
    """Open the file `path` beneath `root` with O_PATH, making it empty, with its directories, if missing."""
    try:
        return open_path(root, path, os.O_PATH, follow)
    except FileNotFoundError:
        pass
    parts = _parts(path)
    if not parts or parts[-1] == "..":
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    parent = make_directory(root, "/".join(parts[:-1]), follow=follow)
    try:
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC
        fd = os.open(parts[-1], flags, 0o644, dir_fd=parent)
        try:
            return syscalls.openat2(parent, parts[-1], os.O_PATH | os.O_NOFOLLOW, 0, syscalls.RESOLVE_BENEATH)
        finally:
            os.close(fd)
    finally:
        os.close(parent)


def real_path(root: int, path: str) -> str:
    """The path with all links resolved inside the root, as far as its files exist; for messages and checks.

    Whoever may rename files meanwhile can make it untrue: what is then done must not trust it.

    Raises:
        OSError: ELOOP for more than 255 links.
    """
    done: list[str] = []
    todo = _parts(path)
    links = 0
    missing = False
    while todo:
        name = todo.pop(0)
        if name == "..":
            done = done[:-1]
            continue
        done.append(name)
        if missing:
            continue
        try:
            handle = open_path(root, "/" + "/".join(done), os.O_PATH, nofollow_last=True)
        except (FileNotFoundError, NotADirectoryError):
            missing = True
            continue
        try:
            if not stat.S_ISLNK(os.fstat(handle).st_mode):
                continue
            target = os.readlink("", dir_fd=handle)
        finally:
            os.close(handle)
        links += 1
        if links > 255:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        done = [] if target.startswith("/") else done[:-1]
        todo = _parts(target) + todo
    return "/" + "/".join(done)
