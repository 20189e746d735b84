"""`sampan unpause`: Unpause all processes within one or more containers."""

from __future__ import annotations

from sampan.cli.client import escape
from sampan.cli.containers.each import for_each
from sampan.cli.flags import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, _: Values, arguments: list[str]) -> int:
    """Let the containers go on."""

    def one(container: str) -> None:
        app.client.request("POST", f"/containers/{escape(container)}/unpause").read()

    return for_each(arguments, one)


COMMAND = Command(
    "unpause",
    "CONTAINER [CONTAINER...]",
    "Unpause all processes within one or more containers",
    (),
    run,
    least=1,
    aliases=("container unpause", "unpause"),
)
