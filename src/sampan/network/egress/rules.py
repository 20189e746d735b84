"""The nftables tables behind egress policies: rules that never change, and the elements of each endpoint.

Tables of one name, made with the first policy. That of family bridge lets an endpoint with a policy send with
its own MAC and IP addresses alone, and nothing but IPv4 and ARP, and where it has an IPv6 address that and
neighbour discovery: whatever rights a container has, what comes out of its port is known by its source.
Those of family ip, and of ip6 while an endpoint has such an address, judge by that address, where a packet
comes in and before any destination is rewritten: what is forwarded, what is for the host, what is for a
published port. Answers within connections that others have begun, or that were let through, pass.

Sets hold what differs: the endpoints, their networks, the destinations of their policies, and for a time the
addresses that names were answered with. So a packet costs the same however many policies there are, and one
of a container without a policy a single lookup more.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from sampan.dataclasses import dataclass
from sampan.linux import nftables
from sampan.linux.netlink import NETLINK_NETFILTER, Message, Netlink
from sampan.linux.nftkeys import (
    ARP_SADDR_IP,
    ETHER_SADDR,
    IIFNAME,
    IP6_DADDR,
    IP6_SADDR,
    IP_DADDR,
    IP_SADDR,
    L4PROTO,
    ND_TARGET,
    TH_DPORT,
    Element,
    Field,
    KeySet,
    Meter,
    interface,
    mac,
    port,
    protocol,
)
from sampan.network.egress.policy import Destination, IPAddress, Policy, Ports, apart

SNAP_BYTES = 80  # of a refused packet: the longest IPv4 header, or that of IPv6, and the ports
_BRIDGE, _IP, _IP6 = socket.AF_BRIDGE, socket.AF_INET, socket.AF_INET6
_ETHER_IP, _ETHER_ARP, _ETHER_IP6 = 0x0800, 0x0806, 0x86DD
_TCP, _UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
_HIGHEST = protocol(255) + port(65535)
_LOWEST = protocol(0) + port(0)
_SOLICITATION, _ADVERTISEMENT = 135, 136  # RFC 4861: of neighbours
_DISCOVERY = (133, 134, _ADVERTISEMENT, 137)  # routers' and redirects, which are no container's

_GUARDED = KeySet("guarded", (IIFNAME,), _BRIDGE)
_OWN = KeySet("own-addresses", (IIFNAME, ETHER_SADDR, IP_SADDR), _BRIDGE)
_OWN6 = KeySet("own-addresses6", (IIFNAME, ETHER_SADDR, IP6_SADDR), _BRIDGE)
_OWN_NEIGHBOUR6 = KeySet("own-neighbour-addresses6", (IIFNAME, ETHER_SADDR, IP6_SADDR), _BRIDGE)
_OWN_TARGETS6 = KeySet("own-targets6", (IIFNAME, ETHER_SADDR, ND_TARGET), _BRIDGE)
_BRIDGE_SETS = (_GUARDED, _OWN, _OWN6, _OWN_NEIGHBOUR6, _OWN_TARGETS6)


@dataclass(frozen=True, slots=True)
class _Family:
    """The sets of the table that judges what is of one IP version."""

    policed: KeySet
    neighbours: KeySet
    destinations: KeySet
    hosts: KeySet
    named: KeySet
    named_ports: KeySet
    named_ranges: KeySet
    meter: Meter

    @property
    def sets(self) -> tuple[KeySet, ...]:
        """All but the meter."""
        return (
            self.policed, self.neighbours, self.destinations, self.hosts, self.named, self.named_ports,
            self.named_ranges,
        )  # fmt: skip


def _family(family: int, source: Field, destination: Field) -> _Family:
    ends, ports_too = (source, destination), (source, destination, L4PROTO, TH_DPORT)
    return _Family(
        policed=KeySet("policed", (source,), family),
        neighbours=KeySet("neighbours", ends, family, ranged=True),
        destinations=KeySet("destinations", ports_too, family, ranged=True),
        hosts=KeySet("single-addresses", ports_too, family, ranged=True),
        named=KeySet("named", ends, family, timed=True),
        named_ports=KeySet("named-ports", ports_too, family, timed=True),
        named_ranges=KeySet("named-ranges", ports_too, family, ranged=True, timed=True),
        meter=Meter("lately-refused", per_second=10, burst=50, family=family),
    )


_OF = {4: _family(_IP, IP_SADDR, IP_DADDR), 6: _family(_IP6, IP6_SADDR, IP6_DADDR)}
NAMED_SETS = tuple(one for of in _OF.values() for one in (of.named, of.named_ports, of.named_ranges))
_FAMILIES: dict[int, int] = {4: _IP, 6: _IP6}
Place = ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass(frozen=True, slots=True)
class Lane:
    """An endpoint with a policy: a way by which packets of a container come.

    Attributes:
        places: its addresses, one of an IP version at most, each with the subnet that it is in.
        veth: the host's end of its pair.
        own: the policy is the container's own, and not its network's.
    """

    endpoint_id: str
    container_id: str
    network_id: str
    places: tuple[Place, ...]
    mac: str
    veth: str
    policy: Policy
    own: bool

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """What it sends from."""
        return tuple(place.ip for place in self.places)


def has_ipv6(lane: Lane) -> bool:
    """Whether a lane has an IPv6 address."""
    return any(place.version == 6 for place in lane.places)


def _link_local(lane: Lane) -> ipaddress.IPv6Address:
    """What the kernel makes of a MAC address for neighbour discovery (RFC 4291, appendix A)."""
    first, *rest = bytes.fromhex(lane.mac.replace(":", ""))
    identifier = bytes([first ^ 2, *rest[:2], 0xFF, 0xFE, *rest[2:]])
    return ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + identifier)


@dataclass(frozen=True, slots=True)
class Opening:
    """An address that a lane may reach for a time, since a name was answered with it."""

    source: IPAddress
    destination: IPAddress
    ports: Ports | None

    def elements(self, seconds: float) -> list[tuple[KeySet, Element]]:
        """What it is in the sets."""
        ends, of = self.source.packed + self.destination.packed, _OF[self.source.version]
        if self.ports is None:
            return [(of.named, Element(ends, seconds=seconds))]
        first, last = map(port, self.ports)
        keys = [ends + protocol(number) for number in (_TCP, _UDP)]
        if first == last:
            return [(of.named_ports, Element(key + first, seconds=seconds)) for key in keys]
        return [(of.named_ranges, Element(key + first, key + last, seconds)) for key in keys]

    @classmethod
    def of(cls, element: Element) -> Opening:
        """The opening that is this element of one of the sets."""
        key, last = element.first, element.last or element.first
        size = 4 if len(key) <= 16 else 16
        ends = ipaddress.ip_address(key[:size]), ipaddress.ip_address(key[size : 2 * size])
        if len(key) == 2 * size:
            return cls(*ends, None)
        at = slice(2 * size + 4, 2 * size + 6)
        return cls(*ends, (int.from_bytes(key[at], "big"), int.from_bytes(last[at], "big")))


Change = Iterable[tuple[KeySet, Element]]


def destinations(lane: Lane) -> Iterator[tuple[KeySet, Element]]:
    """What a lane's policy names by address, as elements."""
    for one in apart(lane.policy.destinations):
        for place in lane.places:
            if place.version == one.network.version:
                yield from _destination(one, place)


def _destination(one: Destination, place: Place) -> Iterator[tuple[KeySet, Element]]:
    of = _OF[place.version]
    first = place.ip.packed + one.network.network_address.packed
    last = place.ip.packed + one.network.broadcast_address.packed
    if one.ports is None:
        found = [Element(first + _LOWEST, last + _HIGHEST)]
    else:
        low, high = map(port, one.ports)
        numbers = map(protocol, (_TCP, _UDP))
        found = [Element(first + number + low, last + number + high) for number in numbers]
    for element in found:
        yield of.destinations, element
        if one.network.prefixlen == one.network.max_prefixlen:
            yield of.hosts, element


def entry(lane: Lane) -> Iterator[tuple[KeySet, Element]]:
    """What a lane is in the sets beside its policy."""
    own = interface(lane.veth) + mac(lane.mac)
    yield _GUARDED, Element(interface(lane.veth))
    for place in lane.places:
        of, source = _OF[place.version], place.ip.packed
        yield of.policed, Element(source)
        lowest, highest = place.network.network_address, place.network.broadcast_address
        yield of.neighbours, Element(source + lowest.packed, source + highest.packed)
        if place.version == 4:
            yield _OWN, Element(own + source)
            continue
        link_local = _link_local(lane).packed
        yield _OWN6, Element(own + source)
        for one in (_OWN_NEIGHBOUR6, _OWN_TARGETS6):
            yield one, Element(own + source)
            yield one, Element(own + link_local)
        yield of.policed, Element(link_local)


def added(table: str, change: Change) -> list[Message]:
    """The requests to add elements, which are not there."""
    return [message for one, element in change for message in one.add(table, [element])]


def deleted(table: str, change: Change) -> list[Message]:
    """The requests to delete elements, which are there."""
    return [message for one, element in change for message in one.delete(table, [element])]


def opened(table: str, openings: Iterable[tuple[Opening, float]]) -> list[Message]:
    """The requests to have openings for so many seconds from now on."""
    elements: dict[KeySet, list[Element]] = {}
    for opening, seconds in openings:
        for one, element in opening.elements(seconds):
            elements.setdefault(one, []).append(element)
    return [message for one, some in elements.items() for message in one.prolong(table, some)]


def closed(table: str, openings: Iterable[Opening]) -> list[Message]:
    """The requests to have openings no more, which may have ended by themselves."""
    found = [pair for opening in openings for pair in opening.elements(1)]
    return [message for one, element in found for message in one.forget(table, [element])]


def tables(
    name: str, group: int, lanes: Sequence[Lane], openings: Iterable[tuple[Opening, float]]
) -> list[Message]:
    """The requests that put the tables in place, whole, with all that is in them.

    That of family ip6 is among them where a lane has IPv6.

    Args:
        group: which refused packets are logged to.
    """
    versions = (4, 6) if any(map(has_ipv6, lanes)) else (4,)
    change = [pair for lane in lanes for part in (entry(lane), destinations(lane)) for pair in part]
    sets = {_BRIDGE: _BRIDGE_SETS, **{_FAMILIES[version]: _OF[version].sets for version in versions}}
    chains = {
        _BRIDGE: _port_chain(),
        **{_FAMILIES[version]: _judging_chain(version, group) for version in versions},
    }
    open_now = opened(name, openings)
    found = []
    for family, theirs in sets.items():
        contents = [_OF[6 if family == _IP6 else 4].meter.message(name, 1)] if family != _BRIDGE else []
        contents += [one.message(name, number) for number, one in enumerate(theirs, 2)]
        for one in theirs:
            contents += one.add(name, [element for of, element in change if of is one])
        contents += [message for message in open_now if message.body[0] == family]
        found += nftables.table_messages(name, (chains[family],), tuple(contents), family)
    return found


def without(name: str) -> list[Message]:
    """The requests that take the tables of families bridge and ip away, whether they are there or not."""
    found = []
    for family in (_BRIDGE, _IP):
        found += nftables.table_messages(name, (), (), family)[:2]
    return found


def drop_ip6(name: str) -> None:
    """Take the table of family ip6 away; one that is not there is fine, and a kernel without IPv6."""
    with suppress(OSError), Netlink(NETLINK_NETFILTER) as netlink:
        netlink.transact(nftables.batch([nftables.delete_message(name, _IP6)]))


def _port_chain() -> nftables.Chain:
    """What an endpoint may send at all."""
    accept, six = nftables.accept(), nftables.ether_type(_ETHER_IP6)
    rules = (
        _GUARDED.rule(within=False) + accept,
        nftables.ether_type(_ETHER_IP) + _OWN.rule() + accept,
        nftables.ether_type(_ETHER_ARP) + _OWN.rule(IIFNAME, ETHER_SADDR, ARP_SADDR_IP) + accept,
        # Neighbours are asked for, and told of oneself alone; nobody is told of routers.
        six + nftables.icmpv6_type(_SOLICITATION) + _OWN_NEIGHBOUR6.rule() + accept,
        six
        + nftables.ip6_nexthdr(socket.IPPROTO_ICMPV6)  # nothing between that would hide the target
        + nftables.icmpv6_type(_ADVERTISEMENT)
        + _OWN_NEIGHBOUR6.rule()
        + _OWN_TARGETS6.rule()
        + accept,
        *(six + nftables.icmpv6_type(kind) + nftables.drop() for kind in _DISCOVERY),
        six + _OWN6.rule() + accept,
        nftables.drop(),
    )
    return nftables.Chain(
        "ports", "filter", nftables.HOOK_PREROUTING, nftables.PRIORITY_RAW, tuple(map(nftables.Rule, rules))
    )


def _judging_chain(version: int, group: int) -> nftables.Chain:
    """Where it may send it.

    The gateway's address is in the endpoint's network, and yet is the host, which only a policy that names
    the address itself lets be reached: all that is not a single other machine's is looked for there alone.
    Neighbour discovery needs the host and what is for all; where else such a packet is for, it is judged.
    """
    of = _OF[version]
    accept, elsewhere = nftables.accept(), nftables.fib_daddr_unicast()
    answers = nftables.ct_state(nftables.CT_ESTABLISHED)
    nearby = nftables.fib_daddr_local(), nftables.fib_daddr_multicast()
    discovery = [
        nftables.icmpv6_type(kind) + where + accept
        for kind in (_SOLICITATION, _ADVERTISEMENT)
        for where in nearby
        if version == 6
    ]
    rules = (
        of.policed.rule(within=False) + accept,
        answers + accept,
        *discovery,
        elsewhere + of.neighbours.rule() + accept,
        elsewhere + of.destinations.rule() + accept,
        elsewhere + of.named.rule() + accept,
        elsewhere + of.named_ports.rule() + accept,
        elsewhere + of.named_ranges.rule() + accept,
        of.hosts.rule() + accept,
        of.meter.rule() + nftables.log_to(group, SNAP_BYTES),
        nftables.l4proto(_TCP) + nftables.reject_tcp_reset(),
        nftables.reject_prohibited(_FAMILIES[version]),
    )
    return nftables.Chain(
        "egress",
        "filter",
        nftables.HOOK_PREROUTING,
        nftables.PRIORITY_MANGLE,
        tuple(map(nftables.Rule, rules)),
    )
