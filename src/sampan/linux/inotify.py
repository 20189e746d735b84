"""inotify(7): a descriptor that becomes readable when files change."""

from __future__ import annotations

import os

from sampan.linux.syscalls import libc, raise_errno

IN_MODIFY = 0x2
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200


def open_watch(path: str, mask: int) -> int:
    """A non-blocking, close-on-exec descriptor that reports `mask` on `path`; the caller closes it.

    Raises:
        OSError: no such path, or the user's limit of inotify instances is reached.
    """
    fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise_errno("inotify_init1")
    if libc.inotify_add_watch(fd, os.fsencode(path), mask) < 0:
        error = OSError
        try:
            raise_errno("inotify_add_watch", path)
        except error:
            os.close(fd)
            raise
    return fd


def drain(fd: int) -> None:
    """Take all pending reports, so that the descriptor is silent until the next change."""
    try:
        while os.read(fd, 65536):
            pass
    except BlockingIOError:
        pass
