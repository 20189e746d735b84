"""`sampan volume rm`: remove volumes."""

from __future__ import annotations

from sampan.cli.client import escape
from sampan.cli.containers.each import for_each
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Remove the volumes, printing each name."""

    def one(name: str) -> None:
        app.client.request("DELETE", f"/volumes/{escape(name)}", {"force": values.on("force")}).read()

    return for_each(arguments, one)


COMMAND = Command(
    "volume rm",
    "[OPTIONS] VOLUME [VOLUME...]",
    "Remove one or more volumes that no container uses",
    (Flag("force", "bool", "Let pass what cannot be found", "f"),),
    run,
    least=1,
    aliases=("volume rm", "volume remove"),
)
