"""`sampan network connect` and `disconnect`: put a container into a network, and take it out."""

from __future__ import annotations

from sampan.cli.client import escape
from sampan.cli.containers.limits import comma_separated
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values


def _connect(app: App, values: Values, arguments: list[str]) -> int:
    network, container = arguments

    def many(name: str) -> list[str]:
        return [part for one in values.items(name) for part in comma_separated(one)]

    options = {}
    for one in many("driver-opt"):
        key, equals, value = one.partition("=")
        if not equals or not key:
            raise CommandError("invalid key/value pair format in driver options")
        options[key.lower()] = value
    addresses: dict[str, Any] = {
        name: value
        for name, value in (
            ("IPv4Address", values.text("ip")),
            ("IPv6Address", values.text("ip6")),
            ("LinkLocalIPs", many("link-local-ip")),
        )
        if value
    }
    settings: dict[str, Any] = {
        "IPAMConfig": addresses,
        "Links": values.items("link"),
        "Aliases": many("alias"),
        "DriverOpts": options,
        "GwPriority": values.number("gw-priority"),
    }
    body = {
        "Container": container,
        "EndpointConfig": {name: value for name, value in settings.items() if value},
    }
    app.client.request("POST", f"/networks/{escape(network)}/connect", None, body).read()
    return 0


def _disconnect(app: App, values: Values, arguments: list[str]) -> int:
    network, container = arguments
    body = {"Container": container, "Force": values.on("force")}
    app.client.request("POST", f"/networks/{escape(network)}/disconnect", None, body).read()
    return 0


COMMANDS = {
    "connect": Command(
        "network connect",
        "[OPTIONS] NETWORK CONTAINER",
        "Put a container into a network",
        (
            Flag("alias", "strings", "Another name of the container in the network"),
            Flag("driver-opt", "strings", "Options of the driver for this container"),
            Flag("gw-priority", "int", "The default route goes by the network where this is highest"),
            Flag("ip", "string", "IPv4 address"),
            Flag("ip6", "string", "IPv6 address"),
            Flag("link", "list", "Another name of a peer: CONTAINER[:ALIAS]", check="link"),
            Flag("link-local-ip", "strings", "Link-local address"),
        ),
        _connect,
        least=2,
        most=2,
    ),
    "disconnect": Command(
        "network disconnect",
        "[OPTIONS] NETWORK CONTAINER",
        "Take a container out of a network",
        (Flag("force", "bool", "Take it out of a network too that there is no more", "f"),),
        _disconnect,
        least=2,
        most=2,
    ),
}
