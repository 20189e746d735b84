"""What the daemon knows of its machine, for `info` and `version`."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

from sampan.dataclasses import dataclass
from sampan.engine.profiles import apparmor
from sampan.linux.cgroups import Features

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts that do not change while we run; memory in bytes."""

    kernel: str
    operating_system: str
    os_version: str
    architecture: str
    go_architecture: str
    cpus: int
    memory_bytes: int
    name: str


@functools.cache
def machine() -> Machine:
    """This machine."""
    release = _os_release()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    uname = os.uname()
    return Machine(
        kernel=uname.release,
        operating_system=release.get("PRETTY_NAME", "Linux"),
        os_version=release.get("VERSION_ID", ""),
        architecture=uname.machine,
        go_architecture=ARCHITECTURES.get(uname.machine, uname.machine),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=pages,
        name=uname.nodename,
    )


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def ipv4_forwarding() -> bool:
    """Whether the kernel forwards IPv4."""
    try:
        return Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
    except OSError:
        return False


def seccomp_supported() -> bool:
    """Whether the kernel has seccomp filters (proc(5), `/proc/sys/kernel/seccomp`)."""
    return os.path.exists("/proc/sys/kernel/seccomp/actions_avail")


_CAP_SYS_RESOURCE = 24


def missing_features(features: Features) -> list[str]:
    """What this machine cannot do, a line each, in the words that `docker info` users know."""
    lacking = [
        (features.memory, "No memory limit support"),
        (features.swap, "No swap limit support"),
        (features.cpu_shares, "No cpu shares support"),
        (features.cpu_cfs, "No cpu cfs quota support"),
        (features.cpuset, "No cpuset support"),
        (features.pids, "No pids limit support"),
        (features.blkio_throttle, "No blkio throttle support"),
        (ipv4_forwarding(), "IPv4 forwarding is disabled"),
        (seccomp_supported(), "No seccomp support: containers run without a system call filter"),
        (
            _effective_capabilities() >> _CAP_SYS_RESOURCE & 1 == 1,
            "No CAP_SYS_RESOURCE: limits (--ulimit, --oom-score-adj) can only be lowered",
        ),
    ]
    unconfined = apparmor.lacking()
    if unconfined:
        lacking.append((False, f"AppArmor is on, but containers run without a profile: {unconfined}"))
    return [f"WARNING: {text}" for present, text in lacking if not present]


def _effective_capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
