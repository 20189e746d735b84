"""What this machine's cgroups can limit."""

from __future__ import annotations

import os
from functools import cache

from sampan.dataclasses import dataclass
from sampan.linux import userns
from sampan.linux.cgroups import files
from sampan.linux.cgroups.layout import Layout, detect


@dataclass(frozen=True, slots=True)
class Features:
    """One flag for each kind of limit.

    Attributes:
        version: 1 or 2; a hybrid machine counts as 1.
        cpus, mems: the processors and memory nodes that a cpuset may name.
    """

    version: int
    hybrid: bool
    memory: bool
    swap: bool
    memory_reservation: bool
    memory_swappiness: bool
    oom_kill_disable: bool
    cpu_shares: bool
    cpu_cfs: bool
    cpu_realtime: bool
    cpuset: bool
    pids: bool
    devices: bool
    freezer: bool
    blkio_weight: bool
    blkio_weight_device: bool
    blkio_throttle: bool
    hugetlb: bool
    cgroup_namespaces: bool
    cpus: frozenset[int]
    mems: frozenset[int]


@cache
def features(ours: bool = True) -> Features:
    """This machine's, looked up once.

    Args:
        ours: False where we may make no cgroup.
    """
    if not ours:
        from sampan.linux.cgroups.absent import no_features

        return no_features()
    return look(detect())


def look(layout: Layout) -> Features:
    """The features of given hierarchies."""
    return _look_v2(layout) if layout.version == 2 else _look_v1(layout)


def _look_v1(layout: Layout) -> Features:
    def has(controller: str, file: str = "") -> bool:
        root = layout.hierarchies.get(controller)
        return root is not None and os.path.exists(f"{root}/{file}")

    def either(*names: str) -> bool:
        return any(has("blkio", name) for name in names)

    cpuset = layout.hierarchies.get("cpuset")
    return Features(
        version=1,
        hybrid=layout.unified is not None,
        memory=has("memory", "memory.limit_in_bytes"),
        swap=has("memory", "memory.memsw.limit_in_bytes"),
        memory_reservation=has("memory", "memory.soft_limit_in_bytes"),
        memory_swappiness=has("memory", "memory.swappiness"),
        oom_kill_disable=has("memory", "memory.oom_control"),
        cpu_shares=has("cpu", "cpu.shares"),
        cpu_cfs=has("cpu", "cpu.cfs_quota_us"),
        cpu_realtime=has("cpu", "cpu.rt_runtime_us"),
        cpuset=has("cpuset"),
        pids=has("pids"),
        devices=has("devices"),
        freezer=has("freezer"),
        blkio_weight=either("blkio.weight", "blkio.bfq.weight"),
        blkio_weight_device=either("blkio.weight_device", "blkio.bfq.weight_device"),
        blkio_throttle=either("blkio.throttle.read_bps_device"),
        hugetlb=has("hugetlb"),
        cgroup_namespaces=os.path.exists("/proc/self/ns/cgroup"),
        cpus=_cpus(f"{cpuset}/cpuset.cpus" if cpuset else None),
        mems=_mems(f"{cpuset}/cpuset.mems" if cpuset else None),
    )


def _look_v2(layout: Layout) -> Features:
    root = layout.unified
    available = set((files.read_optional(f"{root}/cgroup.controllers") or "").split())
    memory, cpu, io = "memory" in available, "cpu" in available, "io" in available
    return Features(
        version=2,
        hybrid=False,
        memory=memory,
        swap=memory and _has_swap_files(str(root)),
        memory_reservation=memory,
        memory_swappiness=False,
        oom_kill_disable=False,
        cpu_shares=cpu,
        cpu_cfs=cpu,
        cpu_realtime=False,
        cpuset="cpuset" in available,
        pids="pids" in available,
        devices=not userns.nested(),  # by a BPF program: no controller is needed, but root of the machine
        freezer=True,
        blkio_weight=io,
        blkio_weight_device=io,
        blkio_throttle=io,
        hugetlb="hugetlb" in available,
        cgroup_namespaces=os.path.exists("/proc/self/ns/cgroup"),
        cpus=_cpus(f"{root}/cpuset.cpus.effective"),
        mems=_mems(f"{root}/cpuset.mems.effective"),
    )


def _has_swap_files(root: str) -> bool:
    """The machine's root has no `memory.swap.max`; what is root to us, our own one, or any child, tells."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        own = next((line.strip()[3:] for line in file if line.startswith("0::")), "/")
    candidates = [root, f"{root}{own}"]
    with os.scandir(root) as entries:
        candidates += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for directory in candidates:
        if os.path.exists(f"{directory}/memory.max"):
            return os.path.exists(f"{directory}/memory.swap.max")
    return os.path.exists("/proc/swaps")


def _cpus(path: str | None) -> frozenset[int]:
    text = files.read_optional(path) if path is not None else None
    return parse_list(text) if text else frozenset(os.sched_getaffinity(0))


def _mems(path: str | None) -> frozenset[int]:
    text = files.read_optional(path) if path is not None else None
    return parse_list(text) if text else frozenset((0,))


def parse_list(text: str) -> frozenset[int]:
    """The numbers of a list like `0-3,7` (cpuset(7), "List format").

    Raises:
        ValueError: it is not one.
    """
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, dash, last = part.strip().partition("-")
        if not (first.isascii() and first.isdigit() and (not dash or (last.isascii() and last.isdigit()))):
            raise ValueError(f"invalid list {text!r}")
        low, high = int(first), int(last or first)
        if high < low or high > 8191:
            raise ValueError(f"invalid list {text!r}")
        numbers.update(range(low, high + 1))
    return frozenset(numbers)
