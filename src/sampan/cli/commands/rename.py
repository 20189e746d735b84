"""`sampan rename`: give a container another name."""

from __future__ import annotations

from sampan.cli.client import escape
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Rename the first argument to the second."""
    old, new = (name.strip() for name in arguments)
    if not old or not new:
        raise CommandError("Error: Neither old nor new names may be empty")
    try:
        app.client.request("POST", f"/containers/{escape(old)}/rename", {"name": new}).read()
    except CommandError as error:
        raise CommandError(
            f"{error.message}\nError: failed to rename container named {old}", error.code
        ) from None
    return 0


COMMAND = Command(
    "rename",
    "CONTAINER NEW_NAME",
    "Rename a container",
    (),
    run,
    least=2,
    most=2,
    aliases=("container rename", "rename"),
)
