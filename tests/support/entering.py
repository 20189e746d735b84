"""What a daemon under test does first, before it is one: going into a cgroup, making that the root of all."""

from __future__ import annotations

from pathlib import Path

from sampan.linux import syscalls
from support.machine import CGROUP_ROOT


def enter_cgroup(cgroup: Path) -> None:
    """Move this process there (cgroups(7), cgroup.procs)."""
    (cgroup / "cgroup.procs").write_text("0")


def enter_root(cgroup: Path, hidden: str | None) -> None:
    """Move there, and see that cgroup as the root of all, as in a container.

    Args:
        hidden: a folder in whose place an empty one is to be seen.
    """
    enter_cgroup(cgroup)
    syscalls.unshare(syscalls.CLONE_NEWCGROUP | syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.umount2(str(CGROUP_ROOT))
    syscalls.mount("cgroup2", str(CGROUP_ROOT), "cgroup2")
    if hidden is not None:
        syscalls.mount("/run/out", hidden, None, syscalls.MS_BIND)
