"""`sampan wait`: Block until one or more containers stop, then print their exit codes."""

from __future__ import annotations

from sampan.cli.client import escape
from sampan.cli.containers.each import for_each
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Print the exit code of each container once it has stopped."""

    def one(container: str) -> str:
        answer = app.client.call("POST", f"/containers/{escape(container)}/wait")
        if (answer.get("Error") or {}).get("Message"):
            raise CommandError(answer["Error"]["Message"])
        return str(answer["StatusCode"])

    return for_each(arguments, one)


COMMAND = Command(
    "wait",
    "CONTAINER [CONTAINER...]",
    "Block until one or more containers stop, then print their exit codes",
    (),
    run,
    least=1,
    aliases=("container wait", "wait"),
)
