"""`sampan port`: where a container's ports are published."""

from __future__ import annotations

from sampan.cli.app import line
from sampan.cli.client import escape
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command
from sampan.cli.human import natural

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, _: Values, arguments: list[str]) -> int:
    """Print every mapping, or those of one port."""
    container = arguments[0]
    shown = app.client.call("GET", f"/containers/{escape(container)}/json")
    known = (shown.get("NetworkSettings") or {}).get("Ports") or {}
    if len(arguments) > 1:
        port, _slash, protocol = arguments[1].partition("/")
        if not port.isdecimal() or int(port) > 65535:
            reason = "value out of range" if port.isdecimal() else "invalid syntax"
            raise CommandError(f'Error: invalid port ({port}): strconv.ParseUint: parsing "{port}": {reason}')
        bindings = known.get(f"{port}/{protocol or 'tcp'}")
        if not bindings:
            raise CommandError(f"Error: No public port '{arguments[1]}' published for {container}")
        texts = [_address(one) for one in bindings]
    else:
        texts = [f"{name} -> {_address(one)}" for name, found in known.items() for one in found or ()]
    for text in sorted(texts, key=natural):
        line(text)
    return 0


def _address(binding: dict[str, str]) -> str:
    host = binding.get("HostIp", "")
    return f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}"


COMMAND = Command(
    "port",
    "CONTAINER [PRIVATE_PORT[/PROTO]]",
    "List port mappings or a specific mapping for the container",
    (),
    run,
    least=1,
    most=2,
    aliases=("container port", "port"),
)
