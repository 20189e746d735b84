"""`sampan top`: the processes of a container, with the options of ps(1)."""

from __future__ import annotations

from sampan.cli.client import escape
from sampan.cli.flags import Command
from sampan.cli.listing import align

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values

_COLUMN = 20


def run(app: App, _: Values, arguments: list[str]) -> int:
    """Print the table; all words behind the container are for ps."""
    container, words = arguments[0], arguments[1:]
    query = {"ps_args": " ".join(words) or None}
    table = app.client.call("GET", f"/containers/{escape(container)}/top", query)
    align([table["Titles"], *(table["Processes"] or [])], _COLUMN)
    return 0


COMMAND = Command(
    "top",
    "CONTAINER [ps OPTIONS]",
    "Display the running processes of a container",
    (),
    run,
    least=1,
    interspersed=False,
    aliases=("container top", "top"),
)
