"""What containers of one network stand on: its bridge or parent, and its subnets with their addresses."""

from __future__ import annotations

import ipaddress

from sampan.dataclasses import dataclass
from sampan.network import bridge
from sampan.network.firewall import Zone
from sampan.network.lans import Lan
from sampan.network.model import Network, Pool
from sampan.network.pool import AddressPool, IPAddress, IPNetwork
from sampan.network.settings import ISOLATED, NAT_UNPROTECTED, ROUTED, BridgeSettings


@dataclass(slots=True, eq=False)
class Part:
    """One subnet of a network.

    Attributes:
        gateway: where default routes lead; None where nobody is to be.
    """

    pool: AddressPool
    gateway: IPAddress | None

    @property
    def subnet(self) -> IPNetwork:
        """The subnet."""
        return self.pool.subnet

    @property
    def version(self) -> int:
        """Its IP version."""
        return self.pool.subnet.version


@dataclass(slots=True, eq=False)
class Ground:
    """A network in place.

    Attributes:
        parts: its subnets; of a bridge network one of each version at most.
        made: the bridge is of our making, and ours to delete.
        index: the bridge's.
        lan: there is no bridge, but an interface of the host's; `made` and `index` are that one's.
    """

    network: Network
    settings: BridgeSettings
    parts: tuple[Part, ...]
    made: bool
    index: int = 0
    lan: Lan | None = None

    def parts_of(self, version: int) -> list[Part]:
        """Its subnets of an IP version."""
        return [part for part in self.parts if part.version == version]

    def part_of(self, address: str) -> Part | None:
        """The subnet that an address is in, or else the first of its version; None for none of that."""
        wanted = ipaddress.ip_address(address)
        found = self.parts_of(wanted.version)
        return next((part for part in found if wanted in part.subnet), found[0] if found else None)

    @property
    def versions(self) -> frozenset[int]:
        """The IP versions that it has addresses of."""
        return frozenset(part.version for part in self.parts)

    @property
    def address(self) -> ipaddress.IPv4Interface | None:
        """The bridge's own IPv4 address."""
        found = None if self.settings.inhibit_ipv4 else self._of_bridge(4)
        return found if isinstance(found, ipaddress.IPv4Interface) else None

    @property
    def address6(self) -> ipaddress.IPv6Interface | None:
        """The bridge's own IPv6 address."""
        found = self._of_bridge(6)
        return found if isinstance(found, ipaddress.IPv6Interface) else None

    def _of_bridge(self, version: int) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface | None:
        if self.settings.gateway_mode(version) == ISOLATED:
            return None
        for part in self.parts_of(version):
            if part.gateway is not None:
                return ipaddress.ip_interface(f"{part.gateway}/{part.subnet.prefixlen}")
        return None

    @property
    def zone(self) -> Zone:
        """What the firewall is to know of it."""
        chosen = self.settings

        def versions(mode: str) -> frozenset[int]:
            return frozenset(version for version in (4, 6) if chosen.gateway_mode(version) == mode)

        subnets = {part.version: part.subnet for part in self.parts}
        subnet, subnet6 = subnets.get(4), subnets.get(6)
        assert not isinstance(subnet, ipaddress.IPv6Network) and not isinstance(
            subnet6, ipaddress.IPv4Network
        )
        return Zone(
            chosen.interface, subnet, chosen.icc, chosen.masquerade, self.network.internal, subnet6,
            versions(ROUTED), versions(NAT_UNPROTECTED), chosen.sources,
        )  # fmt: skip

    @property
    def wanted(self) -> bridge.Wanted:
        """Its bridge."""
        chosen = self.settings
        return bridge.Wanted(
            chosen.interface, self.address, chosen.mtu, self.index, self.address6,
            isolated=chosen.gateway_mode(4) == ISOLATED,
        )  # fmt: skip


def ground(network: Network, chosen: BridgeSettings, made: bool, lan: Lan | None = None) -> Ground:
    """A network's ground, its pools full, its bridge not yet raised."""
    pools = [*network.pools(4), *network.pools(6)]
    return Ground(network, chosen, tuple(map(_part, pools)), made, lan=lan)


def _part(pool: Pool) -> Part:
    gateway = ipaddress.ip_address(pool.gateway) if pool.gateway else None
    addresses = AddressPool(
        ipaddress.ip_network(pool.subnet),
        gateway,
        ipaddress.ip_network(pool.ip_range) if pool.ip_range else None,
        map(ipaddress.ip_address, pool.aux_addresses.values()),
    )
    return Part(addresses, gateway)
