"""`sampan commit`: an image of what a container has changed."""

from __future__ import annotations

from sampan.cli.app import line
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Make the image and print its id."""
    query: dict[str, Any] = {
        "container": arguments[0],
        "comment": values.text("message"),
        "author": values.text("author"),
        "changes": values.items("change"),
        "pause": "1" if values.on("pause") else "0",
    }
    if len(arguments) > 1:
        from sampan.cli.reference import split

        name, tag, _ = split(arguments[1])
        query |= {"repo": name, "tag": tag or "latest"}
    answer = app.client.call("POST", "/commit", query)
    line(answer["Id"])
    return 0


COMMAND = Command(
    "commit",
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    "Create a new image from a container's changes",
    (
        Flag("author", "string", 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")', "a"),
        Flag("change", "list", "Apply a Dockerfile instruction to the image", "c"),
        Flag("message", "string", "Comment of the image", "m"),
        Flag("pause", "bool", "Let the container hold still meanwhile", "p", True),
    ),
    run,
    least=1,
    most=2,
    aliases=("container commit", "commit"),
)
