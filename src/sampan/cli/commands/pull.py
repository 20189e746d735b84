"""`sampan pull`: an image from a registry."""

from __future__ import annotations

from sampan.cli import trust
from sampan.cli.app import line
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag
from sampan.cli.pulling import pull
from sampan.cli.reference import full, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Pull one tag or digest, or every tag, and print the full name."""
    trust.need_none(values)
    image, every, quiet = arguments[0], values.on("all-tags"), values.on("quiet")
    name, tag, digest = split(image)
    if every and (tag or digest):
        raise CommandError("tag can't be used with --all-tags/-a")
    if not every and not tag and not digest:
        tag = "latest"
        if not quiet:
            line("Using default tag: latest")
    pull(app, name, tag, digest, values.text("platform"), 1, quiet)
    line(full(name, tag, digest))
    return 0


COMMAND = Command(
    "pull",
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    "Download an image from a registry",
    (
        Flag("all-tags", "bool", "Download all tagged images in the repository", "a"),
        trust.FLAG,
        Flag("platform", "string", "Platform of the image, where there are several"),
        Flag("quiet", "bool", "Show no progress", "q"),
    ),
    run,
    least=1,
    most=1,
    aliases=("image pull", "pull"),
)
