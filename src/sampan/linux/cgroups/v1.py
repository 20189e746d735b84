"""A cgroup in the v1 hierarchies, one directory in each (Linux Documentation/admin-guide/cgroup-v1/)."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from typing import Any

from sampan.errors import InvalidParameter
from sampan.linux.cgroups import files, stats
from sampan.linux.cgroups.layout import Layout
from sampan.linux.cgroups.manager import Manager, Resources, make_directory
from sampan.linux.device_rules import with_defaults

_PATIENCE_S = 5.0


class ManagerV1(Manager):
    """The container's directories in every v1 hierarchy, and in the unified one of a hybrid machine."""

    version = 1

    def __init__(self, layout: Layout, path: str) -> None:
        directories = {name: root + path for name, root in layout.hierarchies.items()}
        self._roots = {root + path: root for root in layout.hierarchies.values()}
        if layout.unified is not None:
            directories[""] = layout.unified + path
            self._roots[layout.unified + path] = layout.unified
        super().__init__(directories)

    def open_dirfd(self) -> int | None:
        """None: v1 has nothing to clone into."""
        return None

    # --- making ---

    def _make(self, resources: Resources) -> None:
        for path in self._directories:
            try:
                make_directory(path)
            except FileNotFoundError:
                self._make_parents(os.path.dirname(path), self._roots[path])
                make_directory(path)
        cpuset = self._paths.get("cpuset")
        if cpuset is not None:
            _fill_cpuset(cpuset, self._roots[cpuset])

    def _make_parents(self, directory: str, root: str) -> None:
        if directory == root or not directory.startswith(root):
            return
        self._make_parents(os.path.dirname(directory), root)
        make_directory(directory)
        if root == self._root_of("cpuset"):
            _fill_cpuset(directory, root)
            files.write(f"{directory}/cgroup.clone_children", "1")  # children start with our cpus and mems
        if root == self._root_of("memory") and files.read_number(f"{directory}/memory.use_hierarchy") == 0:
            files.write(f"{directory}/memory.use_hierarchy", "1")

    def _root_of(self, controller: str) -> str | None:
        path = self._paths.get(controller)
        return None if path is None else self._roots[path]

    # --- limits ---

    def _set(self, resources: Resources, new: bool) -> list[str]:
        if resources.get("unified"):
            name = next(iter(resources["unified"]))
            raise InvalidParameter(f"cannot set {name}: this machine has cgroup v1, and it is a file of v2")
        if resources.get("devices"):
            self._set_devices(resources["devices"])
        for path, value in self._plain_values(resources):
            self._put(path, value)
        self._set_cpu(resources.get("cpu") or {})
        self._set_memory(resources.get("memory") or {}, new)
        return []

    def _in(self, controller: str, asked_for: str) -> str:
        try:
            return self._paths[controller]
        except KeyError:
            raise FileNotFoundError(
                errno.ENOENT, f"cannot set {asked_for}: the {controller} cgroup is not mounted"
            ) from None

    def _set_devices(self, rules: list[dict[str, Any]]) -> None:
        if "devices" not in self._paths:
            if all(rule.get("allow") for rule in rules):
                return
            raise FileNotFoundError(errno.ENOENT, "cannot limit devices: the devices cgroup is not mounted")
        path = self._paths["devices"]
        pending: list[str] = []
        verb = ""
        for rule in with_defaults(rules):
            wanted = "allow" if rule.allow else "deny"
            if wanted != verb and pending:
                files.write_each(f"{path}/devices.{verb}", pending)
                pending = []
            verb = wanted
            pending.append(str(rule))
        if pending:
            files.write_each(f"{path}/devices.{verb}", pending)

    def _plain_values(self, resources: Resources) -> Iterator[tuple[str, str]]:
        limit = (resources.get("pids") or {}).get("limit")
        if limit:
            yield f"{self._in('pids', 'pids.max')}/pids.max", str(limit) if limit > 0 else "max"
        cpu = resources.get("cpu") or {}
        for member in ("cpus", "mems"):
            if cpu.get(member):
                yield f"{self._in('cpuset', 'cpuset.' + member)}/cpuset.{member}", cpu[member]
        yield from self._blkio_values(resources.get("blockIO") or {})
        for entry in resources.get("hugepageLimits") or []:
            name = f"hugetlb.{entry['pageSize']}.limit_in_bytes"
            yield f"{self._in('hugetlb', name)}/{name}", str(entry["limit"])
        network = resources.get("network") or {}
        if network.get("classID"):
            yield f"{self._in('net_cls', 'net_cls.classid')}/net_cls.classid", str(network["classID"])
        for entry in network.get("priorities") or []:
            path = self._in("net_prio", "net_prio.ifpriomap")
            yield f"{path}/net_prio.ifpriomap", f"{entry['name']} {entry['priority']}"
        for device, entry in (resources.get("rdma") or {}).items():
            yield f"{self._in('rdma', 'rdma.max')}/rdma.max", rdma_line(device, entry)

    def _blkio_values(self, blkio: dict[str, Any]) -> Iterator[tuple[str, str]]:
        if not any(blkio.values()):
            return
        path = self._in("blkio", "block I/O limits")
        weight = "blkio.bfq.weight" if os.path.exists(f"{path}/blkio.bfq.weight") else "blkio.weight"
        if blkio.get("weight"):
            yield f"{path}/{weight}", str(blkio["weight"])
        if blkio.get("leafWeight"):
            yield f"{path}/blkio.leaf_weight", str(blkio["leafWeight"])
        for entry in blkio.get("weightDevice") or []:
            if entry.get("weight"):
                yield f"{path}/{weight}_device", f"{entry['major']}:{entry['minor']} {entry['weight']}"
            if entry.get("leafWeight"):
                line = f"{entry['major']}:{entry['minor']} {entry['leafWeight']}"
                yield f"{path}/blkio.leaf_weight_device", line
        for member, name in (
            ("throttleReadBpsDevice", "read_bps_device"),
            ("throttleWriteBpsDevice", "write_bps_device"),
            ("throttleReadIOPSDevice", "read_iops_device"),
            ("throttleWriteIOPSDevice", "write_iops_device"),
        ):
            for entry in blkio.get(member) or []:
                yield f"{path}/blkio.throttle.{name}", f"{entry['major']}:{entry['minor']} {entry['rate']}"

    def _set_cpu(self, cpu: dict[str, Any]) -> None:
        names = {
            "shares": "cpu.shares",
            "idle": "cpu.idle",
            "realtimePeriod": "cpu.rt_period_us",
            "realtimeRuntime": "cpu.rt_runtime_us",
            "period": "cpu.cfs_period_us",
            "quota": "cpu.cfs_quota_us",
            "burst": "cpu.cfs_burst_us",
        }
        wanted = {name: str(cpu[key]) for key, name in names.items() if cpu.get(key)}
        if not wanted:
            return
        path = self._in("cpu", next(iter(wanted)))
        late: list[tuple[str, str]] = []
        for name, value in wanted.items():
            try:
                self._put(f"{path}/{name}", value)
            except OSError as error:
                # A pair must be consistent at every moment; the other half may have to go first.
                if error.errno != errno.EINVAL or name in ("cpu.shares", "cpu.idle"):
                    raise
                late.append((name, value))
        for name, value in late:
            self._put(f"{path}/{name}", value)

    def _set_memory(self, memory: dict[str, Any], new: bool) -> None:
        if not any(value for key, value in memory.items() if key != "checkBeforeUpdate"):
            return
        path = self._in("memory", "memory limits")
        limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
        writes = []
        if limit:
            writes.append((f"{path}/memory.limit_in_bytes", str(limit)))
        if swap and not (swap < 0 and not os.path.exists(f"{path}/memory.memsw.limit_in_bytes")):
            writes.append((f"{path}/memory.memsw.limit_in_bytes", str(swap)))
        if swap < 0 or (not new and limit and swap and limit > (self._memory_limit(path) or 0)):
            writes.reverse()  # memory may never exceed memory and swap together
        if memory.get("reservation"):
            writes.append((f"{path}/memory.soft_limit_in_bytes", str(memory["reservation"])))
        if memory.get("kernelTCP"):
            writes.append((f"{path}/memory.kmem.tcp.limit_in_bytes", str(memory["kernelTCP"])))
        if memory.get("swappiness") is not None:
            writes.append((f"{path}/memory.swappiness", str(memory["swappiness"])))
        if memory.get("disableOOMKiller"):
            writes.append((f"{path}/memory.oom_control", "1"))
        for file, value in writes:
            self._put(file, value)

    @staticmethod
    def _memory_limit(path: str) -> int | None:
        return files.read_number(f"{path}/memory.limit_in_bytes")

    # --- processes ---

    def _process_directory(self) -> str:
        for name in ("pids", "freezer", "devices", "memory"):
            if name in self._paths:
                return self._paths[name]
        return self._directories[0]

    def freeze(self) -> None:
        """Stop all processes and return when they have stopped."""
        self._freezer("FROZEN")

    def thaw(self) -> None:
        """Let the processes go on."""
        self._freezer("THAWED")

    def _freezer(self, wanted: str) -> None:
        path = f"{self._in('freezer', 'freezer.state')}/freezer.state"
        deadline = time.monotonic() + _PATIENCE_S
        delay = 0.0005
        while True:
            files.write(path, wanted)
            if files.read(path) == wanted:
                return
            if time.monotonic() > deadline:
                if wanted == "FROZEN":
                    files.write(path, "THAWED")
                raise TimeoutError(errno.ETIMEDOUT, f"the cgroup does not become {wanted}", path)
            time.sleep(delay)
            delay = min(delay * 2, 0.05)

    def _kill_at_once(self) -> bool:
        unified = self._paths.get("")
        if unified is None:
            return False
        try:
            files.write(f"{unified}/cgroup.kill", "1")
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return False
            raise
        # A frozen process dies when it is thawed; one that left the unified cgroup is still to be found.
        freezer = self._paths.get("freezer")
        if freezer is not None and files.read_optional(f"{freezer}/freezer.state") not in (None, "THAWED"):
            self.thaw()
        return False

    # --- numbers ---

    def oom_kills(self) -> int:
        """From `memory.oom_control`; 0 without a memory cgroup."""
        path = self._paths.get("memory")
        return 0 if path is None else files.read_table(f"{path}/memory.oom_control").get("oom_kill", 0)

    def stats(self) -> stats.CgroupStats:
        """Usage now."""
        return stats.read_v1(self._paths)


def rdma_line(device: str, entry: dict[str, Any]) -> str:
    """A line of `rdma.max`, which both versions have."""
    handles, objects = entry.get("hcaHandles", "max"), entry.get("hcaObjects", "max")
    return f"{device} hca_handle={handles} hca_object={objects}"


def _fill_cpuset(directory: str, root: str) -> None:
    """Give a cpuset its parent's cpus and memory nodes where it has none: empty ones take no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if files.read(f"{directory}/{name}"):
            continue
        parent = os.path.dirname(directory)
        value = files.read(f"{parent}/{name}")
        if not value and parent != root and parent.startswith(root):
            _fill_cpuset(parent, root)
            value = files.read(f"{parent}/{name}")
        files.write(f"{directory}/{name}", value)
