"""What stands in for a container's cgroup where none may be made: without root, and nothing from systemd.

Nothing is limited, measured or frozen then; who is in the container is told by its PID namespace.
"""

from __future__ import annotations

import os

from sampan.errors import Unsupported
from sampan.linux.cgroups.features import Features
from sampan.linux.cgroups.manager import Manager, Resources, kill_each
from sampan.linux.cgroups.stats import CgroupStats

NO_CGROUP = "containers of a daemon without root have no cgroup"


def no_features() -> Features:
    """What can be limited without a cgroup."""
    return Features(
        version=1,
        **dict.fromkeys(
            (
                *("hybrid", "memory", "swap", "memory_reservation", "memory_swappiness", "oom_kill_disable"),
                *("cpu_shares", "cpu_cfs", "cpu_realtime", "cpuset", "pids", "devices", "freezer"),
                *("blkio_weight", "blkio_weight_device", "blkio_throttle", "hugetlb"),
            ),
            False,
        ),
        cgroup_namespaces=os.path.exists("/proc/self/ns/cgroup"),
        cpus=frozenset(os.sched_getaffinity(0)),
        mems=frozenset((0,)),
    )


class AbsentManager(Manager):
    """A container's cgroup that is not there.

    Args:
        pid: the container's first process; 0 when it has none.
    """

    version = 1

    def __init__(self, pid: int) -> None:
        super().__init__({})
        self._pid = pid

    def open_dirfd(self) -> int | None:
        """None: there is no directory."""
        return None

    def pids(self) -> list[int]:
        """The processes in the container's PID namespace; only the first where it has none of its own."""
        theirs = _namespace(self._pid) if self._pid else None
        if theirs is None:
            return []
        if theirs == _namespace(os.getpid()):
            return [self._pid]
        return [
            int(name) for name in os.listdir("/proc") if name.isdigit() and _namespace(int(name)) == theirs
        ]

    def freeze(self) -> None:
        """Refused.

        Raises:
            Unsupported: always.
        """
        raise Unsupported(f"nothing can be paused: {NO_CGROUP}")

    def thaw(self) -> None:
        """Nothing is ever frozen."""

    def oom_kills(self) -> int:
        """Nobody counts them."""
        return 0

    def stats(self) -> CgroupStats:
        """Nothing is measured."""
        return CgroupStats()

    def _process_directory(self) -> str:
        raise AssertionError("there is no directory")

    def _kill_at_once(self) -> bool:
        kill_each(self.pids, frozen=False)
        return True

    def _make(self, resources: Resources) -> None:
        pass

    def _set(self, resources: Resources, new: bool) -> list[str]:
        return []


def _namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None  # it has ended, or is not ours to look at
