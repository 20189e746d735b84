"""The kernel's configuration held against the tables: what it has, by the version that it is of."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from sampan.doctor import tables
from sampan.doctor.model import Group, Line
from sampan.doctor.tables import Driver, Option, Version
from sampan.linux.kconfig import Config

ENABLED, AS_MODULE, MISSING = "enabled", "enabled (as module)", "missing"


class Judge:
    """One configuration.

    Args:
        version: of the kernel that it is of.
        cgroup: the version of control groups that the machine has; 0 where only a file is looked at.
    """

    def __init__(self, config: Config, version: Version, cgroup: int) -> None:
        self._config = config
        self._version = version
        self._cgroup = cgroup

    def groups(self, machine: Iterable[Line] = ()) -> list[Group]:
        """The sections about the configuration.

        Args:
            machine: what comes first of all, about the machine itself.
        """
        general = Group("Generally Necessary", [*machine, *self._lines(tables.GENERAL)])
        general.lines += self._lines(tables.FIREWALL)
        optional = Group("Optional Features", self._lines(tables.OPTIONAL))
        optional.lines += self._swap() + self._vsyscall() + self._lines(tables.OPTIONAL_REST)
        optional.lines += self._ext()
        network = Group("Network Drivers", groups=[self._driver(one) for one in tables.NETWORK_DRIVERS])
        storage = Group("Storage Drivers", groups=[self._driver(one) for one in tables.STORAGE_DRIVERS])
        if self._cgroup:
            storage.groups.append(Group('"zfs"', _zfs()))
        optional.groups = [network, storage]
        return [general, optional]

    def _lines(self, options: Iterable[Option]) -> list[Line]:
        return [self._line(one) for one in options if one.concerns(self._version, self._cgroup)]

    def _line(self, option: Option) -> Line:
        state = self._config.options.get(option.name)
        if state is not None:
            return Line(f"CONFIG_{option.name}", AS_MODULE if state == "m" else ENABLED, True, option.needed)
        notes = (f"({tables.PREFIX}{option.without})",) if option.without else ()
        if option.without == tables.IPTABLES:
            notes = (f"({option.without})",)
        needed = option.needed and not (option.cgroup and not self._cgroup and self._either())
        if option.name == "OVERLAY_FS" and (self._config.has("FUSE_FS") or self._config.has("BTRFS_FS")):
            needed = False  # fuse-overlayfs or btrfs can take its place
        return Line(f"CONFIG_{option.name}", MISSING, False, needed, notes)

    def _either(self) -> bool:
        """Whether one of the two versions of cgroups will do; which the machine will have is not known."""
        return self._config.has("CGROUP_DEVICE") or self._config.has("CGROUP_BPF")

    def _driver(self, driver: Driver) -> Group:
        group = Group(f'"{driver.name}"', self._lines(driver.options))
        if driver.extra:
            group.groups = [Group(driver.extra_title, self._lines(driver.extra))]
        return group

    def _swap(self) -> list[Line]:
        """Swap accounting: an option, with a default that the boot options change; always on later."""
        lines = self._lines((tables.SWAP,))
        enabled = self._lines((tables.SWAP_ENABLED,))
        off = "(swap is not counted; the boot option swapaccount=1 enables it)"
        if not enabled:
            if not lines and self._config.has("MEMCG") and self._config.has("SWAP"):
                lines = [Line("cgroup swap accounting", ENABLED, notes=("(part of CONFIG_MEMCG since 6.1)",))]
            return lines
        (found,) = enabled
        counted = self._cgroup == 1 and os.path.exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
        if counted or found.good:
            notes: tuple[str, ...] = ("(cgroup swap accounting is currently enabled)",)
        else:
            notes = (off,) if self._config.has("MEMCG_SWAP") else ()
        return [*lines, Line(found.name, found.state, found.good or counted, False, notes)]

    def _vsyscall(self) -> list[Line]:
        """How calls at the old fixed address are served (x86), for programs with a glibc before 2.14."""
        if self._config.has("LEGACY_VSYSCALL_NATIVE"):
            note = "(dangerous: executable code at an address that every attacker knows)"
            return [Line("CONFIG_LEGACY_VSYSCALL_NATIVE", ENABLED, False, notes=(note,))]
        for name in ("EMULATE", "XONLY"):
            if self._config.has(f"LEGACY_VSYSCALL_{name}"):
                return [Line(f"CONFIG_LEGACY_VSYSCALL_{name}", ENABLED)]
        if self._config.has("LEGACY_VSYSCALL_NONE"):
            note = "(images with glibc 2.13 or older, as CentOS 6, need the boot option vsyscall=emulate)"
            return [Line("CONFIG_LEGACY_VSYSCALL_NONE", ENABLED, False, notes=(note,))]
        return []

    def _ext(self) -> list[Line]:
        ext3 = () if self._config.has("EXT4_USE_FOR_EXT2") else tables.EXT3
        return self._lines(ext3) + self._lines(tables.EXT4)


def _zfs() -> list[Line]:
    """Not in the kernel's tree: a device and two programs."""
    try:
        there = stat.S_ISCHR(os.stat("/dev/zfs").st_mode)
    except OSError:
        there = False
    lines = [Line("/dev/zfs", "present" if there else MISSING, there)]
    for name in ("zfs", "zpool"):
        found = shutil.which(name) is not None
        lines.append(Line(f"{name} command", "available" if found else MISSING, found))
    return lines


# --- limits ---

_LIMITS = (
    # file, the least that will do, what happens below it
    ("/proc/sys/kernel/keys/root_maxkeys", 10_000, "each container takes keys for its keyring"),
    ("/proc/sys/kernel/keys/root_maxbytes", 250_000, "each container takes keys for its keyring"),
    ("/proc/sys/fs/inotify/max_user_instances", 128, "programs that watch files fail: too many open files"),
    (
        "/proc/sys/fs/inotify/max_user_watches",
        8192,
        "programs that watch files fail: no space left on device",
    ),
    ("/proc/sys/kernel/pid_max", 32_768, "all containers share these process ids"),
)


def limits(root: Path = Path("/")) -> Group:
    """The kernel's limits that many containers come up against."""
    group = Group("Limits")
    for path, least, why in _LIMITS:
        try:
            value = int((root / path.lstrip("/")).read_text())
        except (OSError, ValueError):
            continue  # a kernel without keys, or a /proc that does not show it
        good = value >= least
        key = path.removeprefix("/proc/sys/").replace("/", ".")
        notes = () if good else (f"({why}; at least {least}: sysctl -w {key}={max(least, value * 10)})",)
        group.lines.append(Line(path, str(value), good, False, notes))
    return group
