"""`sampan save`: images to an archive."""

from __future__ import annotations

import os

from sampan.cli import platforms
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag
from sampan.cli.streams import show_raw, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Write the archive to a file (complete, or not at all) or to our standard output."""
    path = values.text("output")
    if not path and os.isatty(1):
        raise CommandError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    folder = os.path.dirname(path) or "."
    if path and not os.path.isdir(folder):
        raise CommandError(f'failed to save image: invalid output path: directory "{folder}" does not exist')
    if path and os.path.isdir(path):
        raise CommandError(f'failed to save image: invalid output path: "{path}" must be a file')
    query = {"names": arguments, **platforms.query(values.text("platform"))}
    answer = app.client.request("GET", "/images/get", query)
    if not path:
        show_raw(answer.pieces())
        return 0
    partial = os.path.join(folder, f".{os.path.basename(path)}.{os.getpid()}.partial")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for piece in answer.pieces():
            write_all(fd, piece)
        os.rename(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
    finally:
        os.close(fd)
    return 0


COMMAND = Command(
    "save",
    "[OPTIONS] IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    (
        Flag("output", "string", "Write to this file instead of STDOUT", "o"),
        Flag("platform", "string", 'Save only this platform ("os[/arch[/variant]]")'),
    ),
    run,
    least=1,
    aliases=("image save", "save"),
)
