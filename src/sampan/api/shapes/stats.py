"""What a container uses as JSON: `ContainerStatsResponse` of the API, in the shapes for cgroup v1 and v2."""

from __future__ import annotations

from typing import Any

from sampan.api.shapes.times import ZERO, rfc3339
from sampan.engine import Live
from sampan.engine.machine import machine
from sampan.engine.stats import Frame, Sample
from sampan.linux.cgroups import BlkioEntry, CgroupStats

_BLKIO = (
    "io_service_bytes_recursive",
    "io_serviced_recursive",
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
)
_NO_PIDS_LIMIT_V2 = 2**64 - 1
_V1_MEMORY = frozenset(
    """cache rss rss_huge mapped_file dirty writeback pgpgin pgpgout pgfault pgmajfault inactive_anon
    active_anon inactive_file active_file unevictable""".split()
)
_V2_MEMORY = frozenset(
    """anon file kernel_stack slab sock shmem file_mapped file_dirty file_writeback anon_thp inactive_anon
    active_anon inactive_file active_file unevictable slab_reclaimable slab_unreclaimable pgfault pgmajfault
    workingset_refault workingset_activate workingset_nodereclaim pgrefill pgscan pgsteal pgactivate
    pgdeactivate pglazyfree pglazyfreed thp_fault_alloc thp_collapse_alloc""".split()
)


def stats(live: Live, frame: Frame) -> dict[str, Any]:
    """One frame; all zeros where the container does not run."""
    sample, previous = frame.sample, frame.previous
    shape: dict[str, Any] = {
        "name": f"/{live.container.name}",
        "id": live.id,
        "read": rfc3339(sample.at_ns) if sample else ZERO,
        "preread": rfc3339(previous.at_ns) if previous else ZERO,
        "pids_stats": _pids(sample) if sample else {},
        "blkio_stats": _blkio(sample) if sample else dict.fromkeys(_BLKIO),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(sample),
        "precpu_stats": _cpu(previous),
        "memory_stats": _memory(sample) if sample else {},
    }
    if sample and sample.networks:
        shape["networks"] = {
            name: {
                "rx_bytes": one.rx_bytes,
                "rx_packets": one.rx_packets,
                "rx_errors": one.rx_errors,
                "rx_dropped": one.rx_dropped,
                "tx_bytes": one.tx_bytes,
                "tx_packets": one.tx_packets,
                "tx_errors": one.tx_errors,
                "tx_dropped": one.tx_dropped,
            }
            for name, one in sample.networks.items()
        }
    return shape


def _cpu(sample: Sample | None) -> dict[str, Any]:
    usage = sample.usage if sample else CgroupStats()
    cpu: dict[str, Any] = {"total_usage": usage.cpu_total_ns}
    if usage.cpu_per_core_ns:
        cpu["percpu_usage"] = usage.cpu_per_core_ns
    cpu["usage_in_kernelmode"] = usage.cpu_system_ns
    cpu["usage_in_usermode"] = usage.cpu_user_ns
    shape: dict[str, Any] = {"cpu_usage": cpu}
    if sample:
        shape["system_cpu_usage"] = sample.machine_ns
        shape["online_cpus"] = sample.online_cpus
    shape["throttling_data"] = {
        "periods": usage.throttling_periods,
        "throttled_periods": usage.throttled_periods,
        "throttled_time": usage.throttled_ns,
    }
    return shape


def _pids(sample: Sample) -> dict[str, int]:
    usage = sample.usage
    limit = usage.pids_limit
    if limit is None and sample.cgroup_version == 2 and usage.pids_current:
        limit = _NO_PIDS_LIMIT_V2  # so Docker says "max" there
    return _without_zeros({"current": usage.pids_current, "limit": limit or 0})


def _memory(sample: Sample) -> dict[str, Any]:
    usage = sample.usage
    whole = machine().memory_bytes
    limit = whole if usage.memory_limit_bytes is None else min(usage.memory_limit_bytes, whole)
    numbers = {"usage": usage.memory_usage_bytes}
    if sample.cgroup_version == 1:
        rows = {
            name: value
            for name, value in usage.memory.items()
            if name.removeprefix("total_") in _V1_MEMORY or name.startswith("hierarchical_")
        }
        numbers["max_usage"] = usage.memory_max_usage_bytes or 0
        numbers["failcnt"] = usage.memory_failures
    else:
        numbers["failcnt"] = usage.memory_oom_events
        rows = {name: value for name, value in usage.memory.items() if name in _V2_MEMORY}
    shape: dict[str, Any] = _without_zeros(numbers)
    if rows:
        shape["stats"] = rows
    shape["limit"] = limit
    return shape


def _blkio(sample: Sample) -> dict[str, Any]:
    usage = sample.usage
    if sample.cgroup_version == 1:
        shape: dict[str, Any] = {name: [] for name in _BLKIO}
        shape["io_service_bytes_recursive"] = [_entry(one, one.operation) for one in usage.blkio_bytes]
        shape["io_serviced_recursive"] = [_entry(one, one.operation) for one in usage.blkio_operations]
        return shape
    shape = dict.fromkeys(_BLKIO)
    moved = [
        _entry(one, one.operation.lower()) for one in usage.blkio_bytes if one.operation in ("Read", "Write")
    ]
    shape["io_service_bytes_recursive"] = moved or None
    return shape


def _entry(one: BlkioEntry, operation: str) -> dict[str, Any]:
    return {"major": one.major, "minor": one.minor, "op": operation, "value": one.value}


def _without_zeros(numbers: dict[str, int]) -> dict[str, int]:
    return {name: value for name, value in numbers.items() if value}
