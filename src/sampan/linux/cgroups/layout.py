"""Which cgroup hierarchies this machine has, and where they are mounted (cgroups(7), mountinfo)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from functools import cache

from sampan.dataclasses import dataclass

_V1_CONTROLLERS = frozenset(
    (
        *("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb"),
        *("net_cls", "net_prio", "perf_event", "rdma", "misc"),
    )
)


@dataclass(frozen=True, slots=True)
class Layout:
    """The mounted hierarchies.

    Attributes:
        version: 2 when every controller is in the unified hierarchy, else 1.
        unified: where cgroup v2 is mounted; with version 1, beside the others (a hybrid machine).
        hierarchies: v1 only: controller, or `name=…`, to mount point; some share one.
    """

    version: int
    unified: str | None
    hierarchies: Mapping[str, str] = field(default_factory=dict)


@cache
def detect() -> Layout:
    """The layout of this process's mount namespace, looked up once."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return parse(file.read())


def parse(mountinfo: str) -> Layout:
    """The layout that a `/proc/self/mountinfo` describes.

    Raises:
        OSError: no cgroup file system is mounted at all.
    """
    unified = None
    hierarchies: dict[str, str] = {}
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        if not rest.startswith("cgroup"):
            continue
        mount_point = _unescape(fields.split(" ")[4])
        fstype, _, options = rest.split(" ", 2)
        if fstype == "cgroup2":
            if unified is None or mount_point == "/sys/fs/cgroup":
                unified = mount_point
        elif fstype == "cgroup":
            for option in options.split(","):
                if option in _V1_CONTROLLERS or option.startswith("name="):
                    known = hierarchies.get(option)
                    if known is None or mount_point.startswith("/sys/fs/cgroup/") > known.startswith(
                        "/sys/fs/cgroup/"
                    ):
                        hierarchies[option] = mount_point
    if any(not name.startswith("name=") for name in hierarchies):
        return Layout(1, unified, hierarchies)
    if unified is not None:
        return Layout(2, unified)
    raise FileNotFoundError(
        2, "no cgroup file system is mounted: `mount -t cgroup2 cgroup2 /sys/fs/cgroup`", "/sys/fs/cgroup"
    )


def _unescape(text: str) -> str:
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, character)
    return text
