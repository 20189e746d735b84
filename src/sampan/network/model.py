"""What the network package hands to others: options in, networks, sandboxes and endpoints out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sampan.network.ports import Published


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """How the default bridge is set up; dockerd's options of the same names.

    Attributes:
        name: the bridge interface; "none" for no bridge network at all.
        bip: its address in CIDR form; without one, a free private subnet is chosen and remembered.
        mtu: bytes, of the bridge's and the containers' interfaces.
        icc: containers may reach each other.
        ip_masq: traffic that leaves the bridge's subnet gets the host's address.
        ip_forward: switch the host's IPv4 forwarding on when it is off.
        iptables: put our own nftables table in place (Docker's name for it); without, none is made.
    """

    name: str = "sampan0"
    bip: str | None = None
    mtu: int = 1500
    icc: bool = True
    ip_masq: bool = True
    ip_forward: bool = True
    iptables: bool = True


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's place in one network; texts are empty where the network has no such thing."""

    network_id: str
    endpoint_id: str
    mac_address: str = ""
    ip_address: str = ""
    prefix_len: int = 0
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A container's network namespace.

    Attributes:
        path: the file that is the namespace.
        endpoints: by network name.
        published: the ports that others reach it by.
    """

    path: str
    endpoints: dict[str, Endpoint]
    published: tuple[Published, ...] = ()


@dataclass(frozen=True, slots=True)
class Network:
    """A network as Docker shows it; `created_ns` is nanoseconds since 1970."""

    id: str
    name: str
    driver: str
    created_ns: int
    subnet: str = ""
    gateway: str = ""
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


def describe(network: Network, containers: Mapping[str, tuple[str, Endpoint]]) -> dict[str, Any]:
    """The `Network` object of Docker's API.

    Args:
        containers: container id to name and endpoint, of the running ones; empty in a list of networks.
    """
    config = [{"Subnet": network.subnet, "Gateway": network.gateway}] if network.subnet else None
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": _timestamp(network.created_ns),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": config},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            container_id: {
                "Name": name,
                "EndpointID": endpoint.endpoint_id,
                "MacAddress": endpoint.mac_address,
                "IPv4Address": f"{endpoint.ip_address}/{endpoint.prefix_len}" if endpoint.ip_address else "",
                "IPv6Address": "",
            }
            for container_id, (name, endpoint) in containers.items()
        },
        "Options": network.options,
        "Labels": network.labels,
    }


def _timestamp(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"
