"""`sampan restart`: Restart one or more containers."""

from __future__ import annotations

from sampan.cli.client import escape
from sampan.cli.containers.each import for_each
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Send the requests, one container after the other."""
    query: dict[str, object] = {"signal": values.text("signal") or None}
    if values.given("time") and values.given("timeout"):
        raise ValueError("conflicting options: cannot specify both --timeout and --time")
    for flag in ("time", "timeout"):
        if values.given(flag):
            query["t"] = values.number(flag)

    def one(container: str) -> None:
        app.client.request("POST", f"/containers/{escape(container)}/restart", query).read()

    return for_each(arguments, one)


COMMAND = Command(
    "restart",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Restart one or more containers",
    (
        Flag("signal", "string", "Signal to send to the container", "s"),
        Flag("time", "int", "Seconds to wait before killing the container", hidden=True),
        Flag("timeout", "int", "Seconds to wait before killing the container", "t"),
    ),
    run,
    least=1,
    aliases=("container restart", "restart"),
)
