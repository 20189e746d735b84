"""`sampan diff`: what a container has changed of its image's files."""

from __future__ import annotations

from sampan.cli.app import line
from sampan.cli.client import escape
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values

_KINDS = ("C", "A", "D")


def run(app: App, values: Values, arguments: list[str]) -> int:
    """One line for each file: changed, added or deleted."""
    if not arguments[0]:
        raise CommandError("invalid container name or ID: value is empty")
    for change in app.client.call("GET", f"/containers/{escape(arguments[0])}/changes") or ():
        line(f"{_KINDS[change['Kind']]} {change['Path']}")
    return 0


COMMAND = Command(
    "diff",
    "CONTAINER",
    "Inspect changes to files or directories on a container's filesystem",
    (),
    run,
    least=1,
    most=1,
    aliases=("container diff", "diff"),
)
