"""`sampan update`: other limits and another restart policy for containers, running or not."""

from __future__ import annotations

from sampan.cli.app import line, warn
from sampan.cli.client import escape
from sampan.cli.containers.limits import parse_restart
from sampan.cli.failures import ApiError, CommandError, Exit
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values

_MEMBERS = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpus": "NanoCpus",
    "cpuset-cpus": "CpusetCpus",
    "cpuset-mems": "CpusetMems",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
    "pids-limit": "PidsLimit",
}


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Change each container; the others go on when one is refused."""
    given = [flag.name for flag in COMMAND.flags or () if values.given(flag.name)]
    if not given:
        raise CommandError("you must provide one or more flags when using this command")
    body: dict[str, Any] = {
        _MEMBERS[flag]: values[flag] for flag in given if values[flag] and flag in _MEMBERS
    }
    if values.text("restart"):
        body["RestartPolicy"] = parse_restart(values.text("restart"))
    warnings: list[str] = []
    errors: list[str] = []
    for container in arguments:
        try:
            answer = app.client.call("POST", f"/containers/{escape(container)}/update", None, body)
        except ApiError as error:
            errors.append(error.message)
            continue
        line(container)
        warnings += answer.get("Warnings") or []
    for warning in warnings:
        line(warning)
    for message in errors:
        warn(message)
    if errors:
        raise Exit(1)
    return 0


COMMAND = Command(
    "update",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Update configuration of one or more containers",
    (
        Flag("blkio-weight", "uint16", "Block I/O weight, 10 to 1000"),
        Flag("cpu-period", "int", "Period of the CFS processor limit in microseconds"),
        Flag("cpu-quota", "int", "Quota of the CFS processor limit in microseconds"),
        Flag("cpu-rt-period", "int", "Period of the real-time limit in microseconds"),
        Flag("cpu-rt-runtime", "int", "Run time of the real-time limit in microseconds"),
        Flag("cpu-shares", "int", "Relative weight of processor time", "c"),
        Flag("cpus", "decimal", "Number of processors"),
        Flag("cpuset-cpus", "string", "Processors to run on (0-3, 0,1)"),
        Flag("cpuset-mems", "string", "Memory nodes to use (0-3, 0,1)"),
        Flag("memory", "bytes", "Memory limit", "m"),
        Flag("memory-reservation", "bytes", "Soft memory limit"),
        Flag("memory-swap", "bytes", "Limit of memory plus swap; '-1' for none", check="swap"),
        Flag("pids-limit", "int", "Limit of processes (-1 for none)"),
        Flag("restart", "string", "Restart policy after an exit"),
    ),
    run,
    least=1,
    aliases=("container update", "update"),
)
