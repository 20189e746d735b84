"""A cgroup in the unified hierarchy (Linux Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import Iterator
from typing import Any

from sampan.errors import InvalidParameter
from sampan.linux import userns
from sampan.linux.cgroups import convert, files, stats
from sampan.linux.cgroups.layout import Layout
from sampan.linux.cgroups.manager import Manager, Resources, make_directory
from sampan.linux.cgroups.v1 import rdma_line

_FREEZE_TIMEOUT_MS = 5000
_WANTED = frozenset("cpu cpuset io memory pids hugetlb rdma misc".split())


class ManagerV2(Manager):
    """The container's one directory."""

    version = 2

    def __init__(self, layout: Layout, path: str) -> None:
        assert layout.unified is not None
        self._root = layout.unified
        self._path = layout.unified + path
        super().__init__({"": self._path})

    def open_dirfd(self) -> int | None:
        """A descriptor of the cgroup's directory, the caller's to close."""
        return os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    # --- making ---

    def _make(self, resources: Resources) -> None:
        parent = os.path.dirname(self._path)
        try:
            enabled = files.read(f"{parent}/cgroup.subtree_control")
        except FileNotFoundError:
            self._make_parents(parent)
            enabled = ""
        # Against the root's controllers: another thread may have made `parent` and not yet enabled a thing.
        if _missing(self._root, enabled):
            self._enable_down_to(parent)
        make_directory(self._path)

    def _make_parents(self, directory: str) -> None:
        if directory != self._root and not os.path.isdir(directory):
            self._make_parents(os.path.dirname(directory))
            make_directory(directory)

    def _enable_down_to(self, directory: str) -> None:
        """Enable all controllers that we use in every directory from the root to this one."""
        if directory != self._root:
            self._enable_down_to(os.path.dirname(directory))
        control = f"{directory}/cgroup.subtree_control"
        missing = _missing(directory, files.read(control))
        if not missing:
            return
        try:
            files.write(control, " ".join(f"+{name}" for name in missing))
        except OSError as error:
            if error.errno == errno.EBUSY and directory == self._root:
                self._empty_the_root()
            # One that cannot be had (realtime threads hold cpu back) must not cost the others; a limit that
            # needs it is refused by its file's name later.
            for name in missing:
                with contextlib.suppress(OSError):
                    files.write(control, f"+{name}")

    def _empty_the_root(self) -> None:
        """Move the processes of a delegated root into a leaf: with processes it gives nothing to children.

        This is so inside a container with a cgroup namespace; the machine's true root is exempt.
        """
        leaf = f"{self._root}/init"
        make_directory(leaf)
        for pid in files.read(f"{self._root}/cgroup.procs").split():
            with contextlib.suppress(OSError):  # it ended meanwhile, or may not be moved
                files.write(f"{leaf}/cgroup.procs", pid)

    # --- limits ---

    def _set(self, resources: Resources, new: bool) -> list[str]:
        warnings: list[str] = []
        if resources.get("devices") and not userns.nested():  # where no device can be made either
            self._set_devices(resources["devices"], new)
        for name, value in self._values(resources, warnings):
            self._write(name, value)
        unified = resources.get("unified") or {}
        for name, value in unified.items():
            if "/" in name or "." not in name:
                raise InvalidParameter(f"unified resource {name!r} must be a file name")
            for line in str(value).splitlines() or [""]:
                self._write(name, line)
        return warnings

    def _write(self, name: str, value: str) -> None:
        try:
            self._put(f"{self._path}/{name}", value)
        except FileNotFoundError:
            controller = name.partition(".")[0]
            available = files.read_optional(f"{self._path}/cgroup.controllers") or ""
            if controller in available.split():
                raise
            raise FileNotFoundError(
                errno.ENOENT,
                f"cannot set {name}: the {controller} cgroup controller is not available here",
                f"{self._path}/{name}",
            ) from None

    def _set_devices(self, rules: list[dict[str, Any]], new: bool) -> None:
        from sampan.linux import device_filter

        if new and all(rule.get("allow") for rule in rules):
            return  # no program allows everything
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            device_filter.attach(fd, rules)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            from sampan.linux import features

            raise OSError(error.errno, f"{error.strerror}: {features.lacking('cgroup_bpf')}") from None
        finally:
            os.close(fd)

    def _values(self, resources: Resources, warnings: list[str]) -> Iterator[tuple[str, str]]:
        limit = (resources.get("pids") or {}).get("limit")
        if limit:
            yield "pids.max", str(limit) if limit > 0 else "max"
        yield from self._cpu_values(resources.get("cpu") or {})
        yield from self._memory_values(resources.get("memory") or {}, warnings)
        yield from self._io_values(resources.get("blockIO") or {})
        for entry in resources.get("hugepageLimits") or []:
            yield f"hugetlb.{entry['pageSize']}.max", str(entry["limit"])
        for device, entry in (resources.get("rdma") or {}).items():
            yield "rdma.max", rdma_line(device, entry)
        if any((resources.get("network") or {}).values()):
            raise InvalidParameter("linux.resources.network: cgroup v2 has no network controllers")

    def _cpu_values(self, cpu: dict[str, Any]) -> Iterator[tuple[str, str]]:
        for member in ("realtimeRuntime", "realtimePeriod"):
            if cpu.get(member):
                raise InvalidParameter(f"linux.resources.cpu.{member}: cgroup v2 has no realtime limits")
        if cpu.get("idle"):
            yield "cpu.idle", str(cpu["idle"])
        if cpu.get("shares"):
            yield "cpu.weight", str(convert.cpu_weight(cpu["shares"]))
        if cpu.get("burst"):
            yield "cpu.max.burst", str(cpu["burst"])
        quota, period = cpu.get("quota"), cpu.get("period")
        if quota or period:
            maximum = str(quota) if quota and quota > 0 else "max"
            yield "cpu.max", f"{maximum} {period}" if period else maximum
        for member in ("cpus", "mems"):
            if cpu.get(member):
                yield f"cpuset.{member}", cpu[member]

    def _memory_values(self, memory: dict[str, Any], warnings: list[str]) -> Iterator[tuple[str, str]]:
        limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
        if limit:
            yield "memory.max", str(limit) if limit > 0 else "max"
        if swap:
            value = convert.swap_maximum(limit, swap)
            # Without swap there is nothing to limit: not worth a failure when the kernel has no such file.
            if value not in ("max", "0") or os.path.exists(f"{self._path}/memory.swap.max"):
                yield "memory.swap.max", value
        if memory.get("reservation"):
            low = memory["reservation"]
            yield "memory.low", str(low) if low > 0 else "max"
        if memory.get("disableOOMKiller"):
            warnings.append("cgroup v2 cannot disable the out-of-memory killer; it stays enabled")
        if memory.get("swappiness") is not None:
            warnings.append("cgroup v2 has no swappiness for each cgroup; the machine's stays in force")

    def _io_values(self, blkio: dict[str, Any]) -> Iterator[tuple[str, str]]:
        if blkio.get("leafWeight"):
            raise InvalidParameter("linux.resources.blockIO.leafWeight: cgroup v2 has no leaf weights")
        if blkio.get("weight") or blkio.get("weightDevice"):
            bfq = os.path.exists(f"{self._path}/io.bfq.weight")
            name = "io.bfq.weight" if bfq else "io.weight"
            if blkio.get("weight"):
                weight = blkio["weight"]
                yield name, str(weight if bfq else convert.io_weight(weight))
            for entry in blkio.get("weightDevice") or []:
                weight = entry["weight"] if bfq else convert.io_weight(entry["weight"])
                yield name, f"{entry['major']}:{entry['minor']} {weight}"
        for member, key in (
            ("throttleReadBpsDevice", "rbps"),
            ("throttleWriteBpsDevice", "wbps"),
            ("throttleReadIOPSDevice", "riops"),
            ("throttleWriteIOPSDevice", "wiops"),
        ):
            for entry in blkio.get(member) or []:
                yield "io.max", f"{entry['major']}:{entry['minor']} {key}={entry['rate'] or 'max'}"

    # --- processes ---

    def _process_directory(self) -> str:
        return self._path

    def freeze(self) -> None:
        """Stop all processes and return when they have stopped."""
        files.write(f"{self._path}/cgroup.freeze", "1")
        self._wait_frozen(1)

    def thaw(self) -> None:
        """Let the processes go on."""
        files.write(f"{self._path}/cgroup.freeze", "0")
        self._wait_frozen(0)

    def _wait_frozen(self, wanted: int) -> None:
        path = f"{self._path}/cgroup.events"
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            poller = select.poll()
            poller.register(fd, select.POLLPRI)
            while f"frozen {wanted}" not in os.pread(fd, 4096, 0).decode():
                if not poller.poll(_FREEZE_TIMEOUT_MS):
                    raise TimeoutError(errno.ETIMEDOUT, f"the cgroup does not become frozen={wanted}", path)
        finally:
            os.close(fd)

    def _kill_at_once(self) -> bool:
        try:
            files.write(f"{self._path}/cgroup.kill", "1")
        except OSError as error:
            if error.errno == errno.ENODEV or not os.path.isdir(self._path):
                return True
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    # --- numbers ---

    def oom_kills(self) -> int:
        """From `memory.events`, which counts the cgroups below too."""
        return files.read_table(f"{self._path}/memory.events").get("oom_kill", 0)

    def stats(self) -> stats.CgroupStats:
        """Usage now."""
        return stats.read_v2(self._path)


def _missing(directory: str, enabled: str) -> list[str]:
    available = set((files.read_optional(f"{directory}/cgroup.controllers") or "").split())
    return sorted((available & _WANTED) - set(enabled.split()))
