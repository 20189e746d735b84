"""`sampan network rm`: remove networks."""

from __future__ import annotations

from sampan.cli.app import line, warn
from sampan.cli.client import escape
from sampan.cli.failures import ApiError
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Remove the networks, printing each name."""
    failed = False
    for name in arguments:
        try:
            app.client.request("DELETE", f"/networks/{escape(name)}").read()
        except ApiError as error:
            if values.on("force") and error.status == 404:
                continue
            warn(error.message)
            failed = True
        else:
            line(name)
    return 1 if failed else 0


COMMAND = Command(
    "network rm",
    "NETWORK [NETWORK...]",
    "Remove one or more networks that no container is in",
    (Flag("force", "bool", "Let pass what cannot be found", "f"),),
    run,
    least=1,
    aliases=("network rm", "network remove"),
)
