"""`sampan system dial-stdio`: standard input and output as a connection to the daemon, for `-H ssh://`."""

from __future__ import annotations

from sampan.cli.flags import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Pass bytes on, both ways, until the daemon ends its side; the end of ours is passed on as well."""
    from sampan.cli.client import Channel
    from sampan.cli.streams import Copier

    Copier(Channel(app.client.dial()), framed=False, stdin=0).copy()
    return 0


COMMAND = Command(
    "system dial-stdio",
    "",
    "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
    (),
    run,
    most=0,
)
