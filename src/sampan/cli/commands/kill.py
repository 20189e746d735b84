"""`sampan kill`: Kill one or more running containers."""

from __future__ import annotations

from sampan.cli.client import escape
from sampan.cli.containers.each import for_each
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Kill the containers, or send them another signal."""
    signal = values.text("signal") or None

    def one(container: str) -> None:
        app.client.request("POST", f"/containers/{escape(container)}/kill", {"signal": signal}).read()

    return for_each(arguments, one)


COMMAND = Command(
    "kill",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Kill one or more running containers",
    (Flag("signal", "string", "Signal to send to the container", "s"),),
    run,
    least=1,
    aliases=("container kill", "kill"),
)
