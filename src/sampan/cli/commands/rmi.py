"""`sampan rmi`: remove images."""

from __future__ import annotations

from sampan.cli import platforms
from sampan.cli.app import line, warn
from sampan.cli.client import escape
from sampan.cli.failures import ApiError
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Remove the images, telling what was untagged and deleted."""
    query: dict[str, object] = {"force": values.on("force"), "noprune": values.on("no-prune")}
    if values.given("platform"):
        query["platforms"] = [platforms.as_json(text) for text in values.items("platform")]
    failed = False
    for image in arguments:
        try:
            gone = app.client.call("DELETE", f"/images/{escape(image, '/:@')}", query)
        except ApiError as error:
            warn(error.message)
            failed = not (error.status == 404 and values.on("force")) or failed
            continue
        for one in gone or ():
            line(
                f"Deleted: {one['Deleted']}" if one.get("Deleted") else f"Untagged: {one.get('Untagged', '')}"
            )
    return 1 if failed else 0


COMMAND = Command(
    "rmi",
    "[OPTIONS] IMAGE [IMAGE...]",
    "Remove one or more images",
    (
        Flag("force", "bool", "Remove the image whatever uses it", "f"),
        Flag("no-prune", "bool", "Keep parents that have no name"),
        Flag("platform", "strings", 'Remove only this platform ("os[/arch[/variant]]")'),
    ),
    run,
    least=1,
    aliases=("image rm", "image remove", "rmi"),
)
