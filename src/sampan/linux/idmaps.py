"""A user namespace that nobody lives in, for its map of ids: an id-mapped mount wants one (mount_setattr(2)).

A child is cloned into a new one, the map is written from outside (user_namespaces(7)), the namespace is kept
by a descriptor, and the child ends. Cloning is for processes with one thread, see `process`.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable

from sampan.linux import process, syscalls

Lines = Iterable[tuple[int, int, int]]


def user_namespace(uids: Lines, gids: Lines) -> int:
    """A descriptor of a user namespace with these maps: first id inside, first outside, how many, a line.

    Raises:
        OSError: the kernel refuses them, or has no user namespaces (`user.max_user_namespaces`).
    """
    waiting, ours = os.pipe2(os.O_CLOEXEC)
    try:
        pid, pidfd = process.clone(syscalls.CLONE_NEWUSER)
        if pid == 0:
            try:
                os.close(ours)
                os.read(waiting, 1)
            finally:
                os._exit(0)
        try:
            return _mapped(pid, uids, gids)
        finally:
            os.close(ours)
            ours = -1
            os.waitpid(pid, 0)
            os.close(pidfd)
    finally:
        os.close(waiting)
        if ours >= 0:
            os.close(ours)


_HELPER = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
print(ctypes.get_errno() if libc.unshare(0x10000000) else 0, flush=True)
sys.stdin.read()
"""


def user_namespace_from_threads(uids: Lines, gids: Lines) -> int:
    """As `user_namespace`, for a process with threads, which may not clone: a program of its own does it."""
    import subprocess

    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _HELPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as helper:
        assert helper.stdin is not None and helper.stdout is not None
        try:
            number = int(helper.stdout.readline() or errno.EIO)
            if number:
                syscalls.raise_errno("unshare", number=number)
            return _mapped(helper.pid, uids, gids)
        finally:
            helper.stdin.close()


def _mapped(pid: int, uids: Lines, gids: Lines) -> int:
    """Write the maps of a process's new user namespace, and keep it."""
    for name, lines in (("uid_map", uids), ("gid_map", gids)):
        text = "".join(f"{inside} {outside} {size}\n" for inside, outside, size in lines)
        with open(f"/proc/{pid}/{name}", "wb", buffering=0) as file:
            file.write(text.encode())
    return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
