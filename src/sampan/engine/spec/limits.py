"""Checks of resource limits against sense and against what this machine's cgroups can do."""

from __future__ import annotations

from sampan.engine.model import HostConfig
from sampan.errors import InvalidParameter
from sampan.linux.cgroups import Features, parse_list

_MINIMUM_MEMORY_BYTES = 6 * 1024 * 1024
_MISSING = "or the cgroup is not mounted."


def check_limits(host_config: HostConfig, machine: Features, update: bool = False) -> list[str]:
    """Refuse limits that mean nothing, discard with a warning those that cannot be had, complete the rest.

    Args:
        update: these are changes to a container: what is 0 is not spoken of, and is not completed.

    Raises:
        InvalidParameter: in Docker's words.
    """
    warnings: list[str] = []
    _memory(host_config, machine, warnings, update)
    _swap_and_oom(host_config, machine, warnings)
    _cpu(host_config, machine, warnings)
    _cpuset(host_config, machine, warnings)
    _block_io(host_config, machine, warnings)
    if host_config.pids_limit is not None and not machine.pids:
        if host_config.pids_limit > 0:
            warnings.append(
                f"Your kernel does not support PIDs limit capabilities {_MISSING} PIDs limit discarded."
            )
        host_config.pids_limit = None
    return warnings


def _memory(host: HostConfig, machine: Features, warnings: list[str], update: bool) -> None:
    if host.memory < 0 or 0 < host.memory < _MINIMUM_MEMORY_BYTES:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if host.memory_swap < -1:
        raise InvalidParameter(f"invalid memory swap limit {host.memory_swap}: use -1 for none")
    if host.memory and not machine.memory:
        warnings.append(
            f"Your kernel does not support memory limit capabilities {_MISSING} Limitation discarded."
        )
        host.memory, host.memory_swap = 0, -1
    if host.memory and host.memory_swap == 0:
        if not machine.swap:
            host.memory_swap = -1
            warnings.append(_NO_SWAP)
        elif not update:
            host.memory_swap = 2 * host.memory
    elif host.memory and host.memory_swap > 0 and not machine.swap:
        host.memory_swap = -1
        warnings.append(_NO_SWAP)
    if host.memory and 0 < host.memory_swap < host.memory:
        raise InvalidParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if not host.memory and host.memory_swap > 0 and not update:
        raise InvalidParameter(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if host.memory_reservation < 0 or 0 < host.memory_reservation < _MINIMUM_MEMORY_BYTES:
        raise InvalidParameter("Minimum memory reservation allowed is 6MB")
    if host.memory_reservation and not machine.memory_reservation:
        warnings.append(
            f"Your kernel does not support memory soft limit capabilities {_MISSING} Limitation discarded."
        )
        host.memory_reservation = 0
    if host.memory and host.memory_reservation > host.memory:
        raise InvalidParameter(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )


_NO_SWAP = (
    "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
    "Memory limited without swap."
)


def _swap_and_oom(host: HostConfig, machine: Features, warnings: list[str]) -> None:
    if host.memory_swappiness == -1:  # old clients' word for "not set"
        host.memory_swappiness = None
    if host.memory_swappiness is not None:
        if not 0 <= host.memory_swappiness <= 100:
            raise InvalidParameter(
                f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100"
            )
        if not machine.memory_swappiness:
            warnings.append(
                f"Your kernel does not support memory swappiness capabilities {_MISSING} "
                "Memory swappiness discarded."
            )
            host.memory_swappiness = None
    if host.oom_kill_disable:
        if not machine.oom_kill_disable:
            warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
            host.oom_kill_disable = None
        elif not host.memory:
            warnings.append(
                "OOM killer is disabled for the container, but no memory limit is set, this can result in "
                "the system running out of resources."
            )


def _cpu(host: HostConfig, machine: Features, warnings: list[str]) -> None:
    if host.nano_cpus > 0 and host.cpu_period > 0:
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if host.nano_cpus > 0 and host.cpu_quota > 0:
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if host.nano_cpus > 0 and not machine.cpu_cfs:
        raise InvalidParameter(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is "
            "not mounted"
        )
    count = len(machine.cpus)
    if host.nano_cpus and not 10_000_000 <= host.nano_cpus <= count * 1_000_000_000:
        raise InvalidParameter(
            f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
        )
    if host.cpu_shares < 0:
        raise InvalidParameter(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if host.cpu_shares and not machine.cpu_shares:
        warnings.append(f"Your kernel does not support CPU shares {_MISSING} Shares discarded.")
        host.cpu_shares = 0
    if (host.cpu_period or host.cpu_quota) and not machine.cpu_cfs:
        warnings.append("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.")
        host.cpu_period = host.cpu_quota = 0
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidParameter(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if host.cpu_quota > 0 and host.cpu_quota < 1000:
        raise InvalidParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if (host.cpu_realtime_period or host.cpu_realtime_runtime) and not machine.cpu_realtime:
        raise InvalidParameter("kernel does not support CPU real-time scheduler")
    if host.cpu_realtime_period and host.cpu_realtime_runtime > host.cpu_realtime_period:
        raise InvalidParameter("cpu real-time runtime cannot be higher than cpu real-time period")


def _cpuset(host: HostConfig, machine: Features, warnings: list[str]) -> None:
    if (host.cpuset_cpus or host.cpuset_mems) and not machine.cpuset:
        warnings.append(f"Your kernel does not support cpuset {_MISSING} Cpuset discarded.")
        host.cpuset_cpus = host.cpuset_mems = ""
    for value, kind, what, available in (
        (host.cpuset_cpus, "cpus", "CPUs", machine.cpus),
        (host.cpuset_mems, "mems", "memory nodes", machine.mems),
    ):
        try:
            wanted = parse_list(value)
        except ValueError:
            raise InvalidParameter(f"Invalid value {value} for cpuset {kind}") from None
        if not wanted <= available:
            raise InvalidParameter(
                f"Requested {what} are not available - requested {value}, available: {_list(available)}"
            )


def _list(numbers: frozenset[int]) -> str:
    """The kernel's spelling of a set, `0-3,7`."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)


def _block_io(host: HostConfig, machine: Features, warnings: list[str]) -> None:
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidParameter("Range of blkio weight is from 10 to 1000")
    if host.blkio_weight and not machine.blkio_weight:
        warnings.append(f"Your kernel does not support Block I/O weight {_MISSING} Weight discarded.")
        host.blkio_weight = 0
    for device in host.blkio_weight_device or []:
        if not 10 <= device.weight <= 1000:
            raise InvalidParameter("Range of blkio weight is from 10 to 1000")
    if host.blkio_weight_device and not machine.blkio_weight_device:
        warnings.append(
            f"Your kernel does not support Block I/O weight_device {_MISSING} Weight-device discarded."
        )
        host.blkio_weight_device = []
    if machine.blkio_throttle:
        return
    for name, text in (
        ("blkio_device_read_bps", "BPS Block I/O read limit {} Block I/O BPS read limit discarded."),
        ("blkio_device_write_bps", "BPS Block I/O write limit {} Block I/O BPS write limit discarded."),
        ("blkio_device_read_iops", "IOPS Block read limit {} Block I/O IOPS read limit discarded."),
        ("blkio_device_write_iops", "IOPS Block write limit {} Block I/O IOPS write limit discarded."),
    ):
        if getattr(host, name):
            warnings.append("Your kernel does not support " + text.format(_MISSING))
            setattr(host, name, [])
