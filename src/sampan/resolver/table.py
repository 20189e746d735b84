"""Who is on which network under which names, as the wire has them; and what one container may know of it.

Names are kept in lower case and as on the wire, so that a query's name is looked up without being decoded.
Beside `name` each network holds `name.network`, as Docker's resolver answers to both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field

from sampan.dataclasses import dataclass
from sampan.resolver.protocol import Membership
from sampan.resolver.wire import A, address_record, encode_name, pointer_record, reverse_key


class Entry:
    """One name's addresses, of one container or, for a shared alias, of several."""

    __slots__ = ("_holders", "_turn", "a", "aaaa")

    def __init__(self) -> None:
        self.a: list[bytes] = []
        self.aaaa: list[bytes] = []
        self._holders: dict[str, tuple[str, ...]] = {}
        self._turn = 0

    def put(self, container_id: str, addresses: tuple[str, ...]) -> None:
        """Add a container."""
        self._holders[container_id] = addresses
        self._build()

    def remove(self, container_id: str) -> bool:
        """Take a container away; whether none is left."""
        self._holders.pop(container_id, None)
        self._build()
        return not self._holders

    def _build(self) -> None:
        records = [address_record(one) for addresses in self._holders.values() for one in addresses]
        self.a = [record for kind, record in records if kind == A]
        self.aaaa = [record for kind, record in records if kind != A]

    def turned(self, records: list[bytes]) -> list[bytes]:
        """The records, each time with another one first."""
        if len(records) < 2:
            return records
        self._turn += 1
        first = self._turn % len(records)
        return records[first:] + records[:first]


@dataclass(slots=True)
class Network:
    """One network's names; `reverse` has the PTR record for each address."""

    name: str
    names: dict[bytes, Entry] = field(default_factory=dict)
    reverse: dict[bytes, bytes] = field(default_factory=dict)
    members: dict[str, Membership] = field(default_factory=dict)


def keys(name: str, network: str) -> list[bytes]:
    """What a name and the same with the network's behind it are in the table."""
    encoded = (encode_name(name), encode_name(f"{name}.{network}"))
    return [key.lower() for key in encoded if key is not None]


class Table:
    """All networks, by id."""

    def __init__(self) -> None:
        self.networks: dict[str, Network] = {}
        self._of: dict[str, dict[str, Membership]] = {}  # by container and network, in the order of joining

    def put(self, member: Membership) -> None:
        """A container is in a network, under these names and no others."""
        self._take_out(member.network_id, member.container_id)
        self._of.setdefault(member.container_id, {})[member.network_id] = member
        network = self.networks.setdefault(member.network_id, Network(member.network))
        network.members[member.container_id] = member
        for name in member.names:
            for key in keys(name, network.name):
                network.names.setdefault(key, Entry()).put(member.container_id, member.addresses)
        own = encode_name(f"{member.names[0]}.{network.name}") if member.names else None
        if own is not None:
            for address in member.addresses:
                network.reverse[reverse_key(address)] = pointer_record(own)

    def remove(self, network_id: str, container_id: str) -> None:
        """A container is in a network no more; one that was not is fine."""
        self._take_out(network_id, container_id)
        theirs = self._of.get(container_id, {})
        theirs.pop(network_id, None)
        if not theirs:
            self._of.pop(container_id, None)

    def _take_out(self, network_id: str, container_id: str) -> None:
        network = self.networks.get(network_id)
        member = network.members.pop(container_id, None) if network is not None else None
        if network is None or member is None:
            return
        for name in member.names:
            for key in keys(name, network.name):
                entry = network.names.get(key)
                if entry is not None and entry.remove(container_id):
                    del network.names[key]
        for address in member.addresses:
            network.reverse.pop(reverse_key(address), None)
        if not network.members:
            del self.networks[network_id]

    def memberships(self, container_id: str) -> list[Membership]:
        """The networks that a container is on, in the order in which it joined them."""
        return list(self._of.get(container_id, {}).values())

    def view(self, container_id: str) -> View:
        """What a container may know."""
        return View(self, self.memberships(container_id))


class View:
    """What one container is answered with: names of the networks it is on, and its own links there."""

    __slots__ = ("_links", "_networks")

    def __init__(self, table: Table, memberships: Iterable[Membership]) -> None:
        self._networks: list[Network] = []
        self._links: dict[bytes, tuple[Network, bytes]] = {}
        for member in memberships:
            network = table.networks[member.network_id]
            self._networks.append(network)
            for alias, name in member.links.items():
                target = encode_name(name)
                if target is not None:
                    for key in keys(alias, network.name):
                        self._links.setdefault(key, (network, target.lower()))

    def find(self, key: bytes) -> Entry | None:
        """The entry of a name."""
        if self._links:
            link = self._links.get(key)
            if link is not None:
                return link[0].names.get(link[1])
        for network in self._networks:
            entry = network.names.get(key)
            if entry is not None:
                return entry
        return None

    def reverse(self, key: bytes) -> bytes | None:
        """The PTR record for the name that stands for an address."""
        for network in self._networks:
            record = network.reverse.get(key)
            if record is not None:
                return record
        return None

    def knows_link(self, key: bytes) -> bool:
        """Whether a name is a link of this container's, be its peer there or not."""
        return key in self._links
