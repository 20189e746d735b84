"""From `--memory`, `--cpus`, `--blkio-…` and their kind to OCI `linux.resources`."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any

from sampan.engine.model import HostConfig, ThrottleDevice, WeightDevice
from sampan.errors import InvalidParameter

CPU_PERIOD_US = 100_000


def container_resources(host_config: HostConfig) -> dict[str, Any]:
    """All limits but those on devices; only what is set appears.

    Raises:
        InvalidParameter: a block device that is none.
    """
    resources: dict[str, Any] = {}
    for name, values in (
        ("memory", _memory(host_config)),
        ("cpu", _cpu(host_config)),
        ("blockIO", _block_io(host_config)),
    ):
        if values:
            resources[name] = values
    if host_config.pids_limit is not None and host_config.pids_limit > 0:
        resources["pids"] = {"limit": host_config.pids_limit}
    return resources


def _memory(host_config: HostConfig) -> dict[str, Any]:
    memory: dict[str, Any] = {}
    if host_config.memory > 0:
        memory["limit"] = host_config.memory
    if host_config.memory_reservation > 0:
        memory["reservation"] = host_config.memory_reservation
    if host_config.memory_swap > 0:
        memory["swap"] = host_config.memory_swap
    if host_config.memory_swappiness is not None and host_config.memory_swappiness >= 0:
        memory["swappiness"] = host_config.memory_swappiness
    if host_config.oom_kill_disable:
        memory["disableOOMKiller"] = True
    return memory


def _cpu(host_config: HostConfig) -> dict[str, Any]:
    cpu: dict[str, Any] = {}
    if host_config.nano_cpus > 0:
        cpu["period"] = CPU_PERIOD_US
        cpu["quota"] = host_config.nano_cpus * CPU_PERIOD_US // 1_000_000_000
    for name, value in (
        ("shares", host_config.cpu_shares),
        ("period", host_config.cpu_period),
        ("quota", host_config.cpu_quota),
        ("realtimePeriod", host_config.cpu_realtime_period),
        ("realtimeRuntime", host_config.cpu_realtime_runtime),
        ("cpus", host_config.cpuset_cpus),
        ("mems", host_config.cpuset_mems),
    ):
        if value:
            cpu[name] = value
    return cpu


def _block_io(host_config: HostConfig) -> dict[str, Any]:
    block_io: dict[str, Any] = {}
    if host_config.blkio_weight:
        block_io["weight"] = host_config.blkio_weight
    if host_config.blkio_weight_device:
        block_io["weightDevice"] = _weights(host_config.blkio_weight_device)
    for name, devices in (
        ("throttleReadBpsDevice", host_config.blkio_device_read_bps),
        ("throttleWriteBpsDevice", host_config.blkio_device_write_bps),
        ("throttleReadIOPSDevice", host_config.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", host_config.blkio_device_write_iops),
    ):
        if devices:
            block_io[name] = _rates(devices)
    return block_io


def _weights(devices: Sequence[WeightDevice]) -> list[dict[str, int]]:
    return [{**_numbers(device.path), "weight": device.weight} for device in devices]


def _rates(devices: Sequence[ThrottleDevice]) -> list[dict[str, int]]:
    return [{**_numbers(device.path), "rate": device.rate} for device in devices]


def _numbers(path: str) -> dict[str, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise InvalidParameter(f"stat {path}: {(error.strerror or str(error)).lower()}") from None
    if not stat.S_ISBLK(found.st_mode):
        raise InvalidParameter(f"{path} is not a block device")
    return {"major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}
