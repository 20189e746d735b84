"""`sampan export`: a container's root file system as an archive."""

from __future__ import annotations

from sampan.cli.client import escape
from sampan.cli.flags import Command, Flag
from sampan.cli.output_file import write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Write the archive to a file (complete, or not at all) or to our standard output."""
    path = f"/containers/{escape(arguments[0])}/export"
    write_output(values.text("output"), "failed to export container", lambda: app.client.request("GET", path))
    return 0


COMMAND = Command(
    "export",
    "[OPTIONS] CONTAINER",
    "Export a container's filesystem as a tar archive",
    (Flag("output", "string", "Write to this file instead of STDOUT", "o"),),
    run,
    least=1,
    most=1,
    aliases=("container export", "export"),
)
