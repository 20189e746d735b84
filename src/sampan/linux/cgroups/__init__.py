"""Control groups, v1, v2 and hybrid, behind one `Manager` (cgroups(7)).

A manager holds nothing but paths: daemon, launcher and clean-up each make their own.
"""

from __future__ import annotations

from sampan.linux.cgroups.absent import AbsentManager
from sampan.linux.cgroups.features import Features, features, parse_list
from sampan.linux.cgroups.layout import Layout, detect
from sampan.linux.cgroups.leaf import Leaf
from sampan.linux.cgroups.manager import Manager, checked_path
from sampan.linux.cgroups.oom import OomNotifier
from sampan.linux.cgroups.stats import BlkioEntry, CgroupStats

__all__ = [
    "AbsentManager",
    "BlkioEntry",
    "CgroupStats",
    "Features",
    "Layout",
    "Leaf",
    "Manager",
    "OomNotifier",
    "detect",
    "features",
    "manager_for",
    "parse_list",
    "unified_directory",
]


def manager_for(cgroups_path: str, layout: Layout | None = None) -> Manager:
    """The manager of a cgroup, which need not exist yet.

    Args:
        cgroups_path: below each hierarchy's root, like `/sampan/<id>`.
        layout: the machine's hierarchies, when they are not to be detected.

    Raises:
        InvalidParameter: an empty path, or one with `..`.
        OSError: no cgroup file system is mounted.
    """
    layout = layout or detect()
    path = checked_path(cgroups_path)
    if layout.version == 2:
        from sampan.linux.cgroups.v2 import ManagerV2

        return ManagerV2(layout, path)
    from sampan.linux.cgroups.v1 import ManagerV1

    return ManagerV1(layout, path)


def unified_directory(pid: int) -> str:
    """The directory of the unified hierarchy's cgroup that a process is in.

    Raises:
        OSError: there is no such process, or no unified hierarchy.
    """
    unified = detect().unified
    if unified is not None:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                if line.startswith("0::"):
                    return unified + line.rstrip("\n")[3:].removesuffix(" (deleted)")
    raise FileNotFoundError(2, f"process {pid} is in no cgroup of version 2")
