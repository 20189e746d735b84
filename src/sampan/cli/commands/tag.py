"""`sampan tag`: another name for an image."""

from __future__ import annotations

from sampan.cli.client import escape
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command
from sampan.cli.reference import split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Name the first argument's image by the second."""
    source, target = arguments
    try:
        name, tag, _ = split(target)
    except ValueError as error:
        raise CommandError(
            f'Error parsing reference: "{target}" is not a valid repository/tag: {error}'
        ) from None
    app.client.request(
        "POST", f"/images/{escape(source, '/:@')}/tag", {"repo": name, "tag": tag or "latest"}
    ).read()
    return 0


COMMAND = Command(
    "tag",
    "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    (),
    run,
    least=2,
    most=2,
    aliases=("image tag", "tag"),
)
