"""Mounting an overlay of any number of layers (Documentation/filesystems/overlayfs.rst).

From kernel 6.7 on the layers are given one by one, so that only the kernel's 500 bounds their number. On
older kernels all options share one page: there the names are short links, relative to the driver's directory,
which a throwaway thread with a working directory of its own enters.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from sampan.linux import kernel, syscalls, userns
from sampan.storage.errors import DriverError

CLONE_FS = 0x200
_STRING_LIMIT = 255
_PAGE = 4096
_MOST_LAYERS = 500  # OVL_MAX_STACK
_PARAMETERS = Path("/sys/module/overlay/parameters")
_WANTED = {"index": "off", "metacopy": "off", "redirect_dir": "nofollow"}

# Before 6.5 an overlay took any option in silence and refused it, with a line in the kernel's log, later.
_by_descriptor = kernel.release() >= (6, 7)


def options() -> dict[str, str]:
    """Options that keep layers plain: no renames or copies that live in attributes, no index of links."""
    return {key: value for key, value in _WANTED.items() if (_PARAMETERS / key).exists()}


def mount_overlay(home: Path, lowers: list[str], links: list[str], target: Path, upper: Path | None) -> None:
    """Mount layers, and a writable directory on top of them, on `target`.

    Args:
        home: the directory that `lowers` and `links` are relative to.
        lowers: the layers' directories, topmost first.
        links: a short symbolic link for each, for old kernels.
        target: an existing directory.
        upper: the writable directory, with `work` beside it; None for a read-only view.

    Raises:
        DriverError: the kernel refused, with its reason.
    """
    global _by_descriptor
    if len(lowers) > _MOST_LAYERS:
        raise DriverError(f"{len(lowers)} layers are more than the {_MOST_LAYERS} that an overlay can have")
    paths = [str(home / lower) for lower in lowers]
    writable = [str(upper), str(upper.parent / "work")] if upper is not None else []
    if _by_descriptor and all(len(os.fsencode(path)) <= _STRING_LIMIT for path in paths + writable):
        try:
            _mount_by_descriptor(paths, writable, target)
        except OSError as error:
            if not isinstance(error, _NotOffered):
                raise DriverError(f"cannot mount the overlay {target}: {error.strerror}") from error
            _by_descriptor = False
        else:
            return
    _mount_by_page(home, links, writable, target)


class _NotOffered(OSError):
    """The kernel is too old for this way of mounting."""


def _mount_by_descriptor(paths: list[str], writable: list[str], target: Path) -> None:
    try:
        fd = syscalls.fsopen("overlay")
    except OSError as error:
        raise _NotOffered(error.errno, error.strerror) from error
    try:
        syscalls.fsconfig(fd, syscalls.FSCONFIG_SET_STRING, "source", "overlay")
        for key, value in options().items():
            syscalls.fsconfig(fd, syscalls.FSCONFIG_SET_STRING, key, value)
        if userns.nested():
            syscalls.fsconfig(fd, syscalls.FSCONFIG_SET_FLAG, "userxattr")
        try:
            for path in paths:
                syscalls.fsconfig(fd, syscalls.FSCONFIG_SET_STRING, "lowerdir+", path)
        except OSError as error:
            if b"nknown parameter" in _log(fd) or path == paths[0]:
                raise _NotOffered(error.errno, error.strerror) from error
            raise
        try:
            for key, path in zip(("upperdir", "workdir"), writable, strict=False):
                syscalls.fsconfig(fd, syscalls.FSCONFIG_SET_STRING, key, path)
            syscalls.fsconfig(fd, syscalls.FSCONFIG_CMD_CREATE)
        except OSError as error:
            reason = _log(fd).decode(errors="replace").strip() or error.strerror
            raise OSError(error.errno, reason) from error
        mount = syscalls.fsmount(fd)
    finally:
        os.close(fd)
    try:
        syscalls.move_mount(mount, "", syscalls.AT_FDCWD, str(target), syscalls.MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(mount)


def _log(fd: int) -> bytes:
    """What the kernel says about a file system being configured; each read gives one message."""
    parts = []
    with contextlib.suppress(OSError):
        while part := os.read(fd, 4096):
            parts.append(part)
    return b" ".join(parts)


def _mount_by_page(home: Path, links: list[str], writable: list[str], target: Path) -> None:
    words = ["lowerdir=" + ":".join(links)]
    words += [
        f"{key}={_relative(path, home)}" for key, path in zip(("upperdir", "workdir"), writable, strict=False)
    ]
    words += [f"{key}={value}" for key, value in options().items()]
    if userns.nested():
        words.append("userxattr")
    data = ",".join(words)
    if len(os.fsencode(data)) >= _PAGE:
        raise DriverError(f"{len(links)} layers are more than this kernel can stack (6.7 and later can)")
    failure: list[OSError] = []

    def work() -> None:
        try:
            syscalls.unshare(CLONE_FS)
            os.chdir(home)
            syscalls.mount("overlay", str(target), "overlay", 0, data)
        except OSError as error:
            failure.append(error)

    thread = threading.Thread(target=work, name="overlay-mount")
    thread.start()
    thread.join()
    if failure:
        raise DriverError(f"cannot mount the overlay {target}: {failure[0].strerror}") from failure[0]


def _relative(path: str, home: Path) -> str:
    return os.path.relpath(path, home)


def mount_points(beneath: Path) -> set[str]:
    """Every mount point below a directory, from this process's view."""
    prefix = f"{beneath}/"
    found = set()
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            point = line.split(" ", 5)[4]
            if "\\" in point:
                for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
                    point = point.replace(code, character)
            if point.startswith(prefix):
                found.add(point)
    return found
