"""What a cgroup has used: one record, read from the files of either version."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field

from sampan.dataclasses import dataclass
from sampan.linux.cgroups import files

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True)
class BlkioEntry:
    """One number of one block device; `operation` is Read, Write, Sync, Async, Discard or Total."""

    major: int
    minor: int
    operation: str
    value: int


@dataclass(slots=True)
class CgroupStats:
    """Usage of a cgroup.

    Attributes:
        cpu_per_core_ns: v1 only.
        memory_limit_bytes: None for none.
        memory_max_usage_bytes: the high-water mark; None where the kernel does not keep it.
        memory_failures: how often the limit was hit.
        memory_oom_events: v2 only: how often that came to the out-of-memory killer.
        memory: the rows of `memory.stat`, whose names differ between the versions.
        pids_limit: None for none.
        blkio_bytes, blkio_operations: recursive, by device.
    """

    cpu_total_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    cpu_per_core_ns: list[int] = field(default_factory=list)
    throttling_periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0
    memory_usage_bytes: int = 0
    memory_max_usage_bytes: int | None = None
    memory_limit_bytes: int | None = None
    memory_failures: int = 0
    memory_oom_events: int = 0
    memory: dict[str, int] = field(default_factory=dict)
    pids_current: int = 0
    pids_limit: int | None = None
    blkio_bytes: list[BlkioEntry] = field(default_factory=list)
    blkio_operations: list[BlkioEntry] = field(default_factory=list)


def read_v1(paths: Mapping[str, str]) -> CgroupStats:
    """Usage from v1 hierarchies; a controller that is missing leaves its numbers at 0."""
    stats = CgroupStats()
    if (path := paths.get("cpuacct")) is not None:
        stats.cpu_total_ns = files.read_number(f"{path}/cpuacct.usage") or 0
        ticks = files.read_table(f"{path}/cpuacct.stat")
        stats.cpu_user_ns = ticks.get("user", 0) * _TICK_NS
        stats.cpu_system_ns = ticks.get("system", 0) * _TICK_NS
        per_core = files.read_optional(f"{path}/cpuacct.usage_percpu") or ""
        stats.cpu_per_core_ns = [int(text) for text in per_core.split()]
    if (path := paths.get("cpu")) is not None:
        table = files.read_table(f"{path}/cpu.stat")
        stats.throttling_periods = table.get("nr_periods", 0)
        stats.throttled_periods = table.get("nr_throttled", 0)
        stats.throttled_ns = table.get("throttled_time", 0)
    if (path := paths.get("memory")) is not None:
        stats.memory_usage_bytes = files.read_number(f"{path}/memory.usage_in_bytes") or 0
        stats.memory_max_usage_bytes = files.read_number(f"{path}/memory.max_usage_in_bytes")
        limit = files.read_number(f"{path}/memory.limit_in_bytes")
        stats.memory_limit_bytes = limit if limit is not None and limit < _UNLIMITED else None
        stats.memory_failures = files.read_number(f"{path}/memory.failcnt") or 0
        stats.memory = files.read_table(f"{path}/memory.stat")
    if (path := paths.get("pids")) is not None:
        _pids(stats, path)
    if (path := paths.get("blkio")) is not None:
        for kind in ("blkio.throttle", "blkio.bfq"):
            stats.blkio_bytes = stats.blkio_bytes or _blkio(f"{path}/{kind}.io_service_bytes_recursive")
            stats.blkio_operations = stats.blkio_operations or _blkio(f"{path}/{kind}.io_serviced_recursive")
    return stats


def read_v2(path: str) -> CgroupStats:
    """Usage from the unified hierarchy."""
    stats = CgroupStats()
    table = files.read_table(f"{path}/cpu.stat")
    stats.cpu_total_ns = table.get("usage_usec", 0) * 1000
    stats.cpu_user_ns = table.get("user_usec", 0) * 1000
    stats.cpu_system_ns = table.get("system_usec", 0) * 1000
    stats.throttling_periods = table.get("nr_periods", 0)
    stats.throttled_periods = table.get("nr_throttled", 0)
    stats.throttled_ns = table.get("throttled_usec", 0) * 1000
    stats.memory_usage_bytes = files.read_number(f"{path}/memory.current") or 0
    stats.memory_max_usage_bytes = files.read_number(f"{path}/memory.peak")
    stats.memory_limit_bytes = files.read_number(f"{path}/memory.max")
    events = files.read_table(f"{path}/memory.events")
    stats.memory_failures, stats.memory_oom_events = events.get("max", 0), events.get("oom", 0)
    stats.memory = files.read_table(f"{path}/memory.stat")
    _pids(stats, path)
    for line in (files.read_optional(f"{path}/io.stat") or "").splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        values = dict(pair.split("=", 1) for pair in pairs)
        for key, operation in (("r", "Read"), ("w", "Write"), ("d", "Discard")):
            for kind, into in (("bytes", stats.blkio_bytes), ("ios", stats.blkio_operations)):
                value = values.get(key + kind, "")
                if value.isdigit() and minor.isdigit():
                    into.append(BlkioEntry(int(major), int(minor), operation, int(value)))
    return stats


def _pids(stats: CgroupStats, path: str) -> None:
    stats.pids_current = files.read_number(f"{path}/pids.current") or 0
    stats.pids_limit = files.read_number(f"{path}/pids.max")


def _blkio(path: str) -> list[BlkioEntry]:
    entries = []
    for line in (files.read_optional(path) or "").splitlines():
        words = line.split()
        if len(words) == 3 and words[2].isdigit():
            major, _, minor = words[0].partition(":")
            entries.append(BlkioEntry(int(major), int(minor), words[1], int(words[2])))
    return entries
