"""`sampan rm`: Remove one or more containers."""

from __future__ import annotations

from sampan.cli.app import warn
from sampan.cli.client import escape
from sampan.cli.containers.each import for_each
from sampan.cli.failures import ApiError
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Remove the containers."""
    query = {"force": values.on("force"), "v": values.on("volumes"), "link": values.on("link")}

    def one(container: str) -> None:
        name = container.strip("/")
        if not name:
            raise ValueError("Container name cannot be empty")
        try:
            app.client.request("DELETE", f"/containers/{escape(name)}", query).read()
        except ApiError as error:
            if error.status != 404 or not values.on("force"):
                raise
            warn(error.message)

    return for_each(arguments, one)


COMMAND = Command(
    "rm",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Remove one or more containers",
    (
        Flag("force", "bool", "Remove a running container too (by SIGKILL)", "f"),
        Flag("link", "bool", "Remove a link", "l"),
        Flag("volumes", "bool", "Remove its anonymous volumes too", "v"),
    ),
    run,
    least=1,
    aliases=("container rm", "container remove", "rm"),
)
