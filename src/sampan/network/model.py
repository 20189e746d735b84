"""What the network package hands to others: options in, networks, sandboxes and endpoints out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from sampan.dataclasses import dataclass
from sampan.network.egress import Policy
from sampan.network.ports import Published

PREDEFINED = ("bridge", "host", "none")
PREFIX = "com.docker.network."


@dataclass(frozen=True, slots=True)
class AddressPool:
    """A range that networks' subnets are taken from; an entry of dockerd's `default-address-pools`.

    Attributes:
        base: the range, in CIDR form.
        size: the prefix length of each subnet.
    """

    base: str
    size: int


@dataclass(frozen=True, slots=True)
class Pool:
    """Addresses of a network in one subnet.

    Attributes:
        subnet: in CIDR form; "" for one of the address pools.
        ip_range: the part of the subnet that containers get addresses from; "" for all of it.
        gateway: the bridge's address; "" for the first one.
        aux_addresses: name to address, of what else is in the subnet and no container's.
    """

    subnet: str = ""
    ip_range: str = field(default="", metadata={"json": "IPRange"})
    gateway: str = ""
    aux_addresses: dict[str, str] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """The subnet's IP version."""
        return 6 if ":" in self.subnet else 4

    @property
    def shown(self) -> dict[str, Any]:
        """An entry of the `IPAM.Config` of Docker's API."""
        config: dict[str, Any] = {"Subnet": self.subnet}
        if self.gateway:
            config["Gateway"] = self.gateway
        if self.ip_range:
            config["IPRange"] = self.ip_range
        if self.aux_addresses:
            config["AuxiliaryAddresses"] = self.aux_addresses
        return config


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """How the default bridge is set up; dockerd's options of the same names.

    Attributes:
        name: the bridge interface; "none" for no default bridge network at all.
        bip: its address in CIDR form; without one, a free private subnet is chosen and remembered.
        mtu: bytes, of the bridge's and the containers' interfaces.
        icc: containers may reach each other.
        ip_masq: traffic that leaves the bridge's subnet gets the host's address.
        ip_forward: switch the host's IPv4 forwarding on when it is off; for all networks.
        iptables: put our own nftables table in place (Docker's name for it); without, none is made.
        ipv6: give the default bridge IPv6 as well.
        bip6: its IPv6 address in CIDR form; without one, the first of `fixed_cidr_v6`.
        fixed_cidr_v6: its IPv6 subnet, or with `bip6` the part of that subnet that containers get addresses
            from; without either, a /64 of the data root's own.
        address_pools: where subnets are chosen from that nobody names; empty for our own choice.
        publish_mode: "nat" or "proxy", for ports of containers that do not say.
    """

    name: str = "sampan0"
    bip: str | None = None
    mtu: int = 1500
    icc: bool = True
    ip_masq: bool = True
    ip_forward: bool = True
    iptables: bool = True
    ipv6: bool = False
    bip6: str | None = None
    fixed_cidr_v6: str | None = None
    address_pools: tuple[AddressPool, ...] = ()
    publish_mode: str = "nat"


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A network that is to be made, as the API's user asks for it; not yet checked.

    Attributes:
        subnet: in CIDR form; "" for one of the address pools.
        ip_range: the part of the subnet that containers get addresses from; "" for all of it.
        gateway: the bridge's address; "" for the first one.
        aux_addresses: name to address, of what else is in the subnet and no container's.
        enable_ipv4: without, it has no IPv4 addresses, and none of the above.
        ipv6: the same of IPv6; None for a network without.
        more: further subnets of either version.
        unused: subnets of a version that it has not: shown, and nothing else, as in Docker.
        config_only: it is a configuration for others alone.
        config_from: the name of the one that it is made after; "" for none.
    """

    name: str
    driver: str = "bridge"
    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    aux_addresses: dict[str, str] = field(default_factory=dict)
    internal: bool = False
    attachable: bool = False
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    ipam_options: dict[str, str] | None = None
    ipv6: Pool | None = None
    more: list[Pool] = field(default_factory=list)
    unused: list[Pool] = field(default_factory=list)
    enable_ipv4: bool = True
    config_only: bool = False
    config_from: str = ""

    @property
    def ipv4(self) -> Pool | None:
        """Its IPv4 addresses, those of the first subnet; None for a network without."""
        if not self.enable_ipv4:
            return None
        return Pool(self.subnet, self.ip_range, self.gateway, self.aux_addresses)


@dataclass(frozen=True, slots=True)
class Request:
    """A place in a network that a container is to have.

    Attributes:
        network_id: of which network.
        address, address6: the IPv4 and IPv6 address it must be; "" for any.
        mac: the MAC address; "" for one that follows from the address.
        interface: what it is called in the container; "" for the next `eth0`, `eth1`, ….
        gw_priority: the default route goes by the network where this is highest.
        link_local: further addresses of the interface, without a network behind them.
        sysctls: files below /proc/sys, and what they are set to.
        no_ipv6: the container switches IPv6 off for itself, so that an address of that would lead nowhere.
        names, links: for peers and for itself, as `sampan.network.names.Member` has them.
        egress: the container's own policy; None for that of the network, if it has one.
    """

    network_id: str
    address: str = ""
    address6: str = ""
    mac: str = ""
    interface: str = ""
    gw_priority: int = 0
    link_local: tuple[str, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    no_ipv6: bool = False
    names: tuple[str, ...] = ()
    links: dict[str, str] = field(default_factory=dict)
    egress: Policy | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's place in one network; texts are empty where the network has no such thing."""

    network_id: str
    endpoint_id: str
    mac_address: str = ""
    ip_address: str = ""
    prefix_len: int = 0
    gateway: str = ""
    ipv6_address: str = ""
    ipv6_prefix_len: int = 0
    ipv6_gateway: str = ""


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
    """A network as Docker shows it; `created_ns` is nanoseconds since 1970.

    Attributes:
        enable_ipv4: it has IPv4 addresses.
        ipv6: its IPv6 addresses, if it has some.
        more: its further subnets of either version, which all are of the user's choice.
        unused: as in `NetworkSpec`.
        static, static6: the subnet is one that the user chose, so that containers may choose addresses in it.
        config_only, config_from: as in `NetworkSpec`.
        ipam_options: none there are, but inspect gives back whether the user said so.
    """

    id: str
    name: str
    driver: str
    created_ns: int
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    aux_addresses: dict[str, str] = field(default_factory=dict)
    static: bool = False
    internal: bool = False
    attachable: bool = False
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    ipam_options: dict[str, str] | None = None
    ipv6: Pool | None = None
    static6: bool = False
    more: list[Pool] = field(default_factory=list)
    unused: list[Pool] = field(default_factory=list)
    enable_ipv4: bool = True
    config_only: bool = False
    config_from: str = ""

    @property
    def ipv4(self) -> Pool | None:
        """Its IPv4 addresses, those of the first subnet; None for a network without."""
        if not self.enable_ipv4:
            return None
        return Pool(self.subnet, self.ip_range, self.gateway, self.aux_addresses)

    def pools(self, version: int) -> list[Pool]:
        """All its subnets of an IP version; none of one that has no subnet yet."""
        found = [self.ipv4 if version == 4 else self.ipv6, *self.more]
        return [one for one in found if one is not None and one.subnet and one.version == version]

    def chosen_pools(self, version: int) -> list[Pool]:
        """Those of the user's choice, in which containers may choose addresses, be they used or not."""
        static = self.static if version == 4 else self.static6
        return self.pools(version) if static else [one for one in self.unused if one.version == version]

    @property
    def predefined(self) -> bool:
        """Whether it is one of the three that are always there."""
        return self.name in PREDEFINED


def describe(network: Network, containers: Mapping[str, tuple[str, Endpoint]]) -> dict[str, Any]:
    """The `Network` object of Docker's API.

    Args:
        containers: container id to name and endpoint, of the running ones; empty in a list of networks.
    """
    pools = [*network.pools(4), *network.pools(6), *network.unused]
    configs = [one.shown for one in sorted(pools, key=lambda pool: pool.version)]
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": _timestamp(network.created_ns),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": network.enable_ipv4,
        "EnableIPv6": network.ipv6 is not None,
        "IPAM": {
            "Driver": "default",
            "Options": network.ipam_options,
            "Config": configs or None,
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": network.config_from},
        "ConfigOnly": network.config_only,
        "Containers": {
            container_id: {
                "Name": name,
                "EndpointID": endpoint.endpoint_id,
                "MacAddress": endpoint.mac_address,
                "IPv4Address": _with_prefix(endpoint.ip_address, endpoint.prefix_len),
                "IPv6Address": _with_prefix(endpoint.ipv6_address, endpoint.ipv6_prefix_len),
            }
            for container_id, (name, endpoint) in containers.items()
        },
        "Options": network.options,
        "Labels": network.labels,
    }


def _with_prefix(address: str, prefix_len: int) -> str:
    return f"{address}/{prefix_len}" if address else ""


def _timestamp(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"
