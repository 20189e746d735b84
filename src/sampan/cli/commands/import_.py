"""`sampan import`: a root file system's tar archive becomes an image of one layer."""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag
from sampan.cli.pieces import pieces_of
from sampan.cli.progress import show_progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Import a file, a URL (fetched by the daemon) or our standard input."""
    source = arguments[0]
    name = arguments[1] if len(arguments) > 1 else ""
    if name:
        from sampan.cli.reference import split

        split(name)
    query: dict[str, Any] = {
        "fromSrc": "-",
        "repo": name or None,
        "message": values.text("message") or None,
        "changes": values.items("change"),
        "platform": values.text("platform") or None,
    }
    if source.startswith(("http://", "https://")):
        query["fromSrc"] = source
        show_progress(app.client.request("POST", "/images/create", query, b"").values())
        return 0
    if source == "-":
        fd = 0
    else:
        try:
            fd = os.open(source, os.O_RDONLY)
        except OSError as error:
            raise CommandError(f"open {source}: {(error.strerror or '').lower()}") from None
    show_progress(app.client.request("POST", "/images/create", query, pieces_of(fd)).values())
    return 0


COMMAND = Command(
    "import",
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    "Import the contents from a tarball to create a filesystem image",
    (
        Flag("change", "list", "Apply a Dockerfile instruction to the image", "c"),
        Flag("message", "string", "Comment of the image", "m"),
        Flag("platform", "string", "Platform of the image"),
    ),
    run,
    least=1,
    aliases=("image import", "import"),
)
