"""`docker update`: other limits and another restart policy, for a container that runs or does not.

All or nothing: the request is checked against what the container has already, the kernel's files are written
and put back when one is refused, and only then is it written down.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from sampan.engine.core import Core, Live, in_thread
from sampan.engine.create import check_restart_policy
from sampan.engine.model import HostConfig, RestartPolicy
from sampan.engine.spec.limits import check_limits
from sampan.engine.spec.resources import container_resources
from sampan.errors import Conflict, InvalidParameter, SampanError
from sampan.linux.cgroups import features

_CHANGEABLE = (
    *("blkio_weight", "cpu_shares", "nano_cpus", "cpu_period", "cpu_quota", "cpuset_cpus", "cpuset_mems"),
    *("memory", "memory_swap", "memory_reservation", "cpu_realtime_period", "cpu_realtime_runtime"),
)


async def update(core: Core, live: Live, wanted: HostConfig) -> list[str]:
    """Change limits and restart policy.

    Args:
        wanted: what is to change; a member that is 0, empty or None stays as it is, a limit of processes of 0
            or less means none.

    Returns:
        Warnings for the user.

    Raises:
        InvalidParameter: a value that is wrong, or a member that cannot be changed.
        Conflict: it contradicts what the container has, or the container is being removed.
        SampanError: the kernel refuses a limit; all of them are as before.
    """
    _refuse_others(wanted)
    unlimited = wanted.pids_limit is not None and wanted.pids_limit <= 0
    if unlimited:
        wanted.pids_limit = 0
    warnings = check_limits(wanted, features(bool(core.options.cgroup_parent)), update=True)
    if wanted.restart_policy.name:
        check_restart_policy(wanted.restart_policy)
    async with live.lock:
        container = live.container
        if live.removing or container.state.status == "dead":
            raise Conflict(
                f'Cannot update container {live.id}: Container is marked for removal and cannot be "update".'
            )
        old = container.host_config
        try:
            new = merged(old, wanted)
        except SampanError as error:
            error.message = f"Cannot update container {live.id}: {error.message}"
            error.args = (error.message,)
            raise
        manager = None
        changed = changes(old, new)
        if changed and container.state.running:
            manager = core.cgroup(container)
            try:
                warnings += await in_thread(lambda: manager.update(changed))
            except OSError as error:
                raise SampanError(f"Cannot update container {live.id}: {error.strerror or error}") from None
        container.host_config = new
        try:
            core.store.save(container)
        except BaseException:
            container.host_config = old
            if manager is not None:
                manager.revert()
            raise
    core.publish(live, "update")
    return warnings


def _refuse_others(wanted: HostConfig) -> None:
    for field in dataclasses.fields(HostConfig):
        value = getattr(wanted, field.name)
        known = field.name in _CHANGEABLE or field.name in ("pids_limit", "restart_policy")
        if known or value in (None, False, 0, "", [], {}) or dataclasses.is_dataclass(value):
            continue
        if field.name == "memory_swappiness" and value == -1:
            continue  # old clients' word for "not set"
        raise InvalidParameter(f"{field.name} cannot be changed by update: create the container anew")


def merged(old: HostConfig, wanted: HostConfig) -> HostConfig:
    """The container's options with the changes in them.

    Raises:
        Conflict, InvalidParameter: they contradict what it has.
    """
    for given, given_name, present, present_name in (
        (wanted.nano_cpus, "Nano CPUs cannot", old.cpu_period, "CPU Period"),
        (wanted.nano_cpus, "Nano CPUs cannot", old.cpu_quota, "CPU Quota"),
        (wanted.cpu_period, "CPU Period cannot", old.nano_cpus, "NanoCPUs"),
        (wanted.cpu_quota, "CPU Quota cannot", old.nano_cpus, "NanoCPUs"),
    ):
        if given > 0 and present > 0:
            raise Conflict(
                f"Conflicting options: {given_name} be updated as {present_name} has already been set"
            )
    if wanted.memory > old.memory_swap and not wanted.memory_swap:  # also where there is none, as Docker
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the "
            "same time"
        )
    new = dataclasses.replace(
        old, **{name: getattr(wanted, name) for name in _CHANGEABLE if getattr(wanted, name)}
    )
    if new.memory_swap > 0 and not new.memory:
        raise InvalidParameter(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if 0 < new.memory_swap < new.memory:
        raise InvalidParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if wanted.pids_limit is not None:
        new.pids_limit = wanted.pids_limit
    if wanted.restart_policy.name:
        if old.auto_remove and wanted.restart_policy.name != "no":
            raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
        policy = wanted.restart_policy
        new.restart_policy = RestartPolicy(policy.name, policy.maximum_retry_count)
    return new


def changes(old: HostConfig, new: HostConfig) -> dict[str, Any]:
    """OCI resources that lead from the one to the other.

    Pairs of which the kernel checks one against the other go together, changed or not: memory with swap,
    period with quota.
    """
    before, after = container_resources(old), container_resources(new)
    result: dict[str, Any] = {}
    for kind in ("memory", "cpu", "blockIO"):
        then, now = before.get(kind, {}), after.get(kind, {})
        different = {name for name, value in now.items() if then.get(name) != value}
        for pair in ({"limit", "swap"}, {"period", "quota"}, {"realtimePeriod", "realtimeRuntime"}):
            if different & pair:
                different |= pair & set(now)
        if different:
            result[kind] = {name: now[name] for name in now if name in different}
    if new.memory_swap == -1 and (old.memory_swap != -1 or "memory" in result):
        result["memory"] = {**result.get("memory", {}), "swap": -1}
        if new.memory:
            result["memory"]["limit"] = new.memory
    if (new.pids_limit or 0) != (old.pids_limit or 0):
        result["pids"] = {"limit": new.pids_limit or -1}
    return result
