"""The way into a new process's namespaces and cgroups: what surrounds its clone, here and in the child."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from sampan.dataclasses import dataclass
from sampan.linux import cgroups, process, syscalls
from sampan.runtime.init import Refused
from sampan.runtime.newborn import reap


@dataclass(slots=True)
class CgroupEntry:
    """How a new process gets into its cgroups.

    It is born in its unified one (CLONE_INTO_CGROUP), and writes itself into the `tasks` file of each v1
    hierarchy: moving only oneself takes no lock of the whole system, where a write of another's pid to
    `cgroup.procs` waits for an RCU grace period (Linux kernel/cgroup/cgroup.c, cgroup_procs_write_start).
    """

    directory: int | None
    tasks: tuple[str, ...]

    def close(self) -> None:
        if self.directory is not None:
            os.close(self.directory)

    def clone(self, flags: int) -> tuple[int, int]:
        if self.directory is None:
            return process.clone(flags)
        try:
            return process.clone(flags, self.directory)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.E2BIG):
                raise
        # CLONE_INTO_CGROUP came with kernel 5.7. The child waits for our "go", or joins what is here first.
        child = process.clone(flags)
        if child[0] != 0:
            try:
                _write_pid(self.directory, child[0])
            except OSError:
                reap(*child)
                raise
        return child

    def join(self) -> None:
        for path in self.tasks:
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, b"0")
                finally:
                    os.close(fd)
            except OSError as error:
                raise Refused("cgroup", f"{path}: {error.strerror}", error.errno or 0) from None


def cgroup_paths(manager: cgroups.Manager, leaf: cgroups.Leaf | None = None) -> tuple[str, tuple[str, ...]]:
    """Where to enter a container's cgroups, and in one hierarchy a leaf below the container's.

    Returns:
        The directory in the unified hierarchy, "" for none, and the `tasks` files in the others.
    """
    paths = manager.paths()
    if leaf is not None:
        paths["" if leaf.unified else "freezer"] = leaf.path
    unified = paths.pop("", "")
    return unified, tuple(f"{path}/tasks" for path in dict.fromkeys(paths.values()))


def cgroup_entry(manager: cgroups.Manager | None) -> CgroupEntry:
    """The entry to a container's cgroups."""
    if manager is None:
        return CgroupEntry(None, ())
    unified, tasks = cgroup_paths(manager)
    directory = os.open(unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if unified else None
    return CgroupEntry(directory, tasks)


def clone(flags: int, entry: CgroupEntry, join_pid: Callable[[], None] | None) -> tuple[int, int]:
    """Clone into the container's cgroup. A pid namespace that is joined for the child is left again here."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if join_pid is not None else -1
    child = (-1, -1)
    try:
        if join_pid is not None:
            join_pid()
        child = entry.clone(flags)
    finally:
        if own >= 0:
            if child[0] != 0:
                syscalls.setns(own, syscalls.CLONE_NEWPID)
            os.close(own)
        entry.close()
    return child


def _write_pid(cgroup: int, pid: int) -> None:
    fd = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup)
    try:
        os.write(fd, b"%d" % pid)
    finally:
        os.close(fd)
