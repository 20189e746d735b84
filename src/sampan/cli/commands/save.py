"""`sampan save`: images to an archive."""

from __future__ import annotations

from sampan.cli import platforms
from sampan.cli.flags import Command, Flag
from sampan.cli.output_file import write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Write the archive to a file (complete, or not at all) or to our standard output."""
    query = {"names": arguments, **platforms.query(values.text("platform"))}
    write_output(
        values.text("output"),
        "failed to save image",
        lambda: app.client.request("GET", "/images/get", query),
    )
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
