"""Namespaces by name: their clone flags, and joining them by file or pidfd (namespaces(7), setns(2))."""

from __future__ import annotations

import os
from collections.abc import Iterable

from sampan.linux import syscalls

# Names as the OCI runtime spec has them, the file below /proc/<pid>/ns, and the clone flag. The mount
# namespace comes last: after it, /proc is another one.
KINDS = {
    "user": ("user", syscalls.CLONE_NEWUSER),
    "cgroup": ("cgroup", syscalls.CLONE_NEWCGROUP),
    "ipc": ("ipc", syscalls.CLONE_NEWIPC),
    "uts": ("uts", syscalls.CLONE_NEWUTS),
    "network": ("net", syscalls.CLONE_NEWNET),
    "pid": ("pid", syscalls.CLONE_NEWPID),
    "time": ("time", syscalls.CLONE_NEWTIME),
    "mount": ("mnt", syscalls.CLONE_NEWNS),
}


def flag(kind: str) -> int:
    """The clone flag of a namespace kind by its OCI name."""
    return KINDS[kind][1]


def join_path(kind: str, path: str) -> None:
    """Join the namespace that the file `path` stands for.

    Raises:
        OSError: when there is none, or it is of another kind.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(fd, flag(kind))
    except OSError as error:
        raise OSError(error.errno, f"join {kind} namespace: {os.strerror(error.errno or 0)}", path) from None
    finally:
        os.close(fd)


def leave_chroot() -> None:
    """Make the root of this mount namespace the process's own, and its working directory (setns(2)).

    In a chroot they differ; elsewhere nothing changes.
    """
    join_path("mount", "/proc/self/ns/mnt")


def open_each(pid: int, kinds: Iterable[str]) -> list[tuple[int, int]]:
    """Descriptors of a process's namespaces, with their flags, in the order in which they can be joined."""
    wanted = set(kinds)
    opened: list[tuple[int, int]] = []
    try:
        for kind, (name, one) in KINDS.items():
            if kind in wanted:
                opened.append((os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), one))
    except BaseException:
        for fd, _ in opened:
            os.close(fd)
        raise
    return opened
