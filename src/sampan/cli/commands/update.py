"""`sampan update`: other limits and another restart policy for containers, running or not."""

from __future__ import annotations

from sampan.cli.app import line, warn
from sampan.cli.client import escape
from sampan.cli.containers.config import HOST_PLAIN
from sampan.cli.containers.limits import parse_restart
from sampan.cli.containers.options import CREATE_FLAGS
from sampan.cli.failures import ApiError, CommandError, Exit
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values

_OWN = (
    Flag("blkio-weight", "uint16", "Block I/O weight, 10 to 1000"),
    Flag("restart", "string", "Restart policy after an exit"),
)
# Those that are the same as at `create`.
_LIMITS = frozenset(
    (
        *("cpu-period", "cpu-quota", "cpu-rt-period", "cpu-rt-runtime", "cpu-shares", "cpus", "cpuset-cpus"),
        *("cpuset-mems", "memory", "memory-reservation", "memory-swap", "pids-limit"),
    )
)


def update_body(values: Values) -> dict[str, Any]:
    """The body of `POST /containers/{id}/update`.

    Raises:
        CommandError: no flag was given.
    """
    given = [flag.name for flag in COMMAND.flags or () if values.given(flag.name)]
    if not given:
        raise CommandError("you must provide one or more flags when using this command")
    body: dict[str, Any] = {
        HOST_PLAIN[flag]: values[flag] for flag in given if values[flag] and flag in HOST_PLAIN
    }
    if values.text("restart"):
        body["RestartPolicy"] = parse_restart(values.text("restart"))
    return body


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Change each container; the others go on when one is refused."""
    body = update_body(values)
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
    (_OWN[0], *(flag for flag in CREATE_FLAGS if flag.name in _LIMITS), _OWN[1]),
    run,
    least=1,
    aliases=("container update", "update"),
)
