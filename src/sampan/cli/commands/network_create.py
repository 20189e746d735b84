"""`sampan network create`: make a network."""

from __future__ import annotations

from sampan.cli.app import line, warn
from sampan.cli.containers.limits import comma_separated
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values

_REFUSED = {
    "ingress": "it is for Swarm's routing mesh, which is not supported",
}


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Create a network and print its id."""
    for name, why in _REFUSED.items():
        if values.given(name):
            raise CommandError(f"--{name}: {why}")
    options = _pairs(values.items("opt"))
    if values.text("egress"):
        options["sampan.egress"] = values.text("egress")
    body: dict[str, Any] = {
        "Name": arguments[0],
        "Driver": values.text("driver"),
        "Scope": values.text("scope"),
        "ConfigOnly": values.on("config-only"),
        "ConfigFrom": {"Network": values.text("config-from")} if values.text("config-from") else None,
        "Internal": values.on("internal"),
        "Attachable": values.on("attachable"),
        "Options": options,
        "Labels": _pairs(values.items("label")),
        "IPAM": {
            "Driver": values.text("ipam-driver"),
            "Options": _pairs(values.items("ipam-opt")),
            "Config": pools(
                _many(values.items("subnet")),
                _many(values.items("ip-range")),
                _many(values.items("gateway")),
                _pairs(values.items("aux-address")),
            ),
        },
    }
    for name in ("ipv4", "ipv6"):
        if values.given(name):
            body[f"EnableIP{name[2:]}"] = values.on(name)
    answer = app.client.call("POST", "/networks/create", None, body)
    if answer.get("Warning"):
        warn(f"WARNING: {answer['Warning']}")
    line(answer["Id"])
    return 0


def _pairs(items: list[str]) -> dict[str, str]:
    return {key: value for key, _, value in (one.partition("=") for one in items)}


def _many(items: list[str]) -> list[str]:
    return [part for one in items for part in comma_separated(one)]


def pools(
    subnets: list[str], ranges: list[str], gateways: list[str], aux: dict[str, str]
) -> list[dict[str, Any]]:
    """The address pools of an IPAM configuration: each range, gateway and address with the subnet it is in.

    Raises:
        CommandError: there is no such subnet; in docker's words.
    """
    if len(subnets) < len(ranges) or len(subnets) < len(gateways):
        raise CommandError("every ip-range or gateway must have a corresponding subnet")
    from ipaddress import ip_interface

    found: dict[str, dict[str, Any]] = {}
    for subnet in subnets:
        try:
            network = ip_interface(subnet).network if "/" in subnet else None
        except ValueError:
            network = None
        if network is None:
            if len(subnets) + len(ranges) + len(gateways) + len(aux) == 1:
                return [{"Subnet": subnet}]  # nothing to compare it with: the daemon says what is wrong
            what = "invalid subnet: " if len(subnets) == 1 or "/" not in subnet else ""
            raise CommandError(f"{what}invalid CIDR address: {subnet}")
        if any(network.overlaps(ip_interface(other).network) for other in found):
            raise CommandError("multiple overlapping subnet configuration is not supported")
        found[subnet] = {"Subnet": subnet}

    def pool(what: str, text: str, key: str = "") -> dict[str, Any]:
        try:
            address = ip_interface(text).ip
        except ValueError:
            raise CommandError(f"invalid {what}: {text}") from None
        for subnet, one in found.items():
            if address in ip_interface(subnet).network:
                if key in one:
                    both = f"({text}, {one[key]})"
                    raise CommandError(
                        f"cannot configure multiple {what}s {both} on the same subnet ({subnet})"
                    )
                return one
        raise CommandError(f"no matching subnet for {what} {text}")

    for text in ranges:
        pool("range", text, "IPRange")["IPRange"] = text
    for text in gateways:
        pool("gateway", text, "Gateway")["Gateway"] = text
    for name, text in aux.items():
        pool("aux-address", text).setdefault("AuxiliaryAddresses", {})[name] = text
    return list(found.values())


COMMAND = Command(
    "network create",
    "[OPTIONS] NETWORK",
    "Create a network",
    (
        Flag("attachable", "bool", "Say that containers may be attached by hand, as they always may"),
        Flag("aux-address", "map", "Address in the subnet that no container gets: NAME=ADDRESS"),
        Flag("config-from", "string", "Configuration that it is made after"),
        Flag("config-only", "bool", "Create a configuration alone"),
        Flag("driver", "string", "Driver of the network", "d", "bridge"),
        Flag("egress", "string", "Where its containers may connect to: deny, or allow:NAME,NETWORK/BITS,…"),
        Flag("gateway", "strings", "Address of the bridge in the subnet"),
        Flag("ingress", "bool", "Create Swarm's routing mesh"),
        Flag("internal", "bool", "Give it no way out"),
        Flag("ip-range", "strings", "Part of the subnet that containers get addresses from"),
        Flag("ipam-driver", "string", "Driver of its addresses", default="default"),
        Flag("ipam-opt", "map", "Options of the driver of its addresses"),
        Flag("ipv4", "bool", "Have IPv4", default=True),
        Flag("ipv6", "bool", "Have IPv6"),
        Flag("label", "list", "Set a label", check="label"),
        Flag("opt", "map", "Options of the driver", "o"),
        Flag("scope", "string", "Scope of the network"),
        Flag("subnet", "strings", "Subnet in CIDR form"),
    ),
    run,
    least=1,
    most=1,
)
