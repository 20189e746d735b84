"""What the daemon knows of its machine, for `info` and `version`."""

from __future__ import annotations

import functools
import os
import platform
from dataclasses import dataclass
from pathlib import Path

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


def apparmor_supported() -> bool:
    """Whether AppArmor is on."""
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False
