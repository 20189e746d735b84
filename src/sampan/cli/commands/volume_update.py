"""`sampan volume update`: docker's client has it for Swarm's cluster volumes, and refuses every other."""

from __future__ import annotations

from sampan.cli.client import escape
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Look whether the volume is there, and refuse it as docker does."""
    found = app.client.request("GET", f"/volumes/{escape(arguments[0])}").json()
    if found.get("ClusterVolume"):
        raise CommandError(
            f"{found['Name']} is a cluster volume: Swarm is not offered, docker's own client has it"
        )
    raise CommandError("can only update cluster volumes")


COMMAND = Command(
    "volume update",
    "[OPTIONS] [VOLUME]",
    "Update a volume (cluster volumes only)",
    (
        Flag(
            "availability",
            "string",
            'Availability of a cluster volume ("active", "pause", "drain")',
            default="active",
        ),
    ),
    run,
    least=1,
    most=1,
)
