"""`sampan volume create`: make a volume."""

from __future__ import annotations

from sampan.cli.app import line
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values

_CLUSTER = (
    Flag("availability", "string", "Availability of a cluster volume", default="active"),
    Flag("group", "string", "Group of a cluster volume"),
    Flag("limit-bytes", "bytes", "Least size of a cluster volume"),
    Flag("required-bytes", "bytes", "Greatest size of a cluster volume"),
    Flag("scope", "string", "Access scope of a cluster volume", default="single"),
    Flag("secret", "map", "Secrets of a cluster volume"),
    Flag("sharing", "string", "Sharing of a cluster volume", default="none"),
    Flag("topology-preferred", "list", "Topology that a cluster volume prefers"),
    Flag("topology-required", "list", "Topology that a cluster volume needs"),
    Flag("type", "string", "Access type of a cluster volume", default="block"),
)


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Create a volume (nameless: the daemon finds a name) and print its name."""
    for flag in _CLUSTER:
        if values.given(flag.name):
            raise CommandError(f"--{flag.name} is for cluster volumes, which are not supported")
    body = {
        "Name": arguments[0] if arguments else "",
        "Driver": values.text("driver"),
        "DriverOpts": dict(one.partition("=")[::2] for one in values.items("opt")),
        "Labels": dict(one.partition("=")[::2] for one in values.items("label")),
    }
    line(app.client.call("POST", "/volumes/create", None, body)["Name"])
    return 0


COMMAND = Command(
    "volume create",
    "[OPTIONS] [VOLUME]",
    "Create a volume",
    (
        *_CLUSTER,
        Flag("driver", "string", "Volume driver", "d", "local"),
        Flag("label", "list", "Set a label", check="label"),
        Flag("name", "string", "Name of the volume", hidden=True),
        Flag("opt", "map", "Options of the driver", "o"),
    ),
    run,
    most=1,
)
