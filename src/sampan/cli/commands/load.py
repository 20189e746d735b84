"""`sampan load`: images from an archive that `save` or another tool made."""

from __future__ import annotations

import os

from sampan.cli import platforms
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag
from sampan.cli.pieces import pieces_of
from sampan.cli.progress import show_progress
from sampan.cli.streams import show_raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Load the archive and tell the names that it brought."""
    path = values.text("input")
    fd = 0
    if path:
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise CommandError(f"open {path}: {(error.strerror or '').lower()}") from None
    elif os.isatty(0):
        raise CommandError("requested load from stdin, but stdin is empty")
    quiet = values.on("quiet") or not os.isatty(1)
    query: dict[str, Any] = {"quiet": "1" if quiet else "0", **platforms.query(values.text("platform"))}
    answer = app.client.request(
        "POST", "/images/load", query, pieces_of(fd), {"Content-Type": "application/x-tar"}
    )
    if answer.headers.get("content-type", "").startswith("application/json"):
        show_progress(answer.values())
    else:
        show_raw(answer.pieces())
    return 0


COMMAND = Command(
    "load",
    "[OPTIONS]",
    "Load an image from a tar archive or STDIN",
    (
        Flag("input", "string", "Read this archive instead of STDIN", "i"),
        Flag("platform", "string", 'Load only this platform ("os[/arch[/variant]]")'),
        Flag("quiet", "bool", "Show no progress", "q"),
    ),
    run,
    most=0,
    aliases=("image load", "load"),
)
