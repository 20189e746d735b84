"""The nftables tables behind egress policies: rules that never change, and the elements of each endpoint.

Two tables of one name, made with the first policy. That of family bridge lets an endpoint with a policy send
with its own MAC and IPv4 address alone, and nothing but IPv4 and ARP: whatever rights a container has, what
comes out of its port is known by its source address. That of family ip judges by that address, where a packet
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
from dataclasses import dataclass

from sampan.linux import nftables
from sampan.linux.netlink import Message
from sampan.linux.nftkeys import (
    ARP_SADDR_IP,
    ETHER_SADDR,
    IIFNAME,
    IP_DADDR,
    IP_SADDR,
    L4PROTO,
    TH_DPORT,
    Element,
    KeySet,
    Meter,
    interface,
    mac,
    port,
    protocol,
)
from sampan.network.egress.policy import Policy, Ports, apart

SNAP_BYTES = 80  # of a refused packet: the longest IPv4 header, and the ports
_BRIDGE, _IP = socket.AF_BRIDGE, socket.AF_INET
_ETHER_IP, _ETHER_ARP = 0x0800, 0x0806
_TCP, _UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
_PORTS_TOO = (IP_SADDR, IP_DADDR, L4PROTO, TH_DPORT)
_HIGHEST = protocol(255) + port(65535)
_LOWEST = protocol(0) + port(0)

_GUARDED = KeySet("guarded", (IIFNAME,), _BRIDGE)
_OWN = KeySet("own-addresses", (IIFNAME, ETHER_SADDR, IP_SADDR), _BRIDGE)
_POLICED = KeySet("policed", (IP_SADDR,))
_NEIGHBOURS = KeySet("neighbours", (IP_SADDR, IP_DADDR), ranged=True)
_DESTINATIONS = KeySet("destinations", _PORTS_TOO, ranged=True)
_HOSTS = KeySet("single-addresses", _PORTS_TOO, ranged=True)
NAMED = KeySet("named", (IP_SADDR, IP_DADDR), timed=True)
NAMED_PORTS = KeySet("named-ports", _PORTS_TOO, timed=True)
NAMED_RANGES = KeySet("named-ranges", _PORTS_TOO, ranged=True, timed=True)
_METER = Meter("lately-refused", per_second=10, burst=50)

_BRIDGE_SETS = (_GUARDED, _OWN)
_IP_SETS = (_POLICED, _NEIGHBOURS, _DESTINATIONS, _HOSTS, NAMED, NAMED_PORTS, NAMED_RANGES)


@dataclass(frozen=True, slots=True)
class Lane:
    """An endpoint with a policy: a way by which packets of a container come.

    Attributes:
        veth: the host's end of its pair.
        subnet: its network's.
        own: the policy is the container's own, and not its network's.
    """

    endpoint_id: str
    container_id: str
    network_id: str
    address: ipaddress.IPv4Address
    mac: str
    veth: str
    subnet: ipaddress.IPv4Network
    policy: Policy
    own: bool


@dataclass(frozen=True, slots=True)
class Opening:
    """An address that a lane may reach for a time, since a name was answered with it."""

    source: ipaddress.IPv4Address
    destination: ipaddress.IPv4Address
    ports: Ports | None

    def elements(self, seconds: float) -> list[tuple[KeySet, Element]]:
        """What it is in the sets."""
        ends = self.source.packed + self.destination.packed
        if self.ports is None:
            return [(NAMED, Element(ends, seconds=seconds))]
        first, last = map(port, self.ports)
        keys = [ends + protocol(number) for number in (_TCP, _UDP)]
        if first == last:
            return [(NAMED_PORTS, Element(key + first, seconds=seconds)) for key in keys]
        return [(NAMED_RANGES, Element(key + first, key + last, seconds)) for key in keys]

    @classmethod
    def of(cls, element: Element) -> Opening:
        """The opening that is this element of one of the sets."""
        key, last = element.first, element.last or element.first
        ends = ipaddress.IPv4Address(key[:4]), ipaddress.IPv4Address(key[4:8])
        if len(key) <= 8:
            return cls(*ends, None)
        return cls(*ends, (int.from_bytes(key[12:14], "big"), int.from_bytes(last[12:14], "big")))


Change = Iterable[tuple[KeySet, Element]]


def destinations(lane: Lane) -> Iterator[tuple[KeySet, Element]]:
    """What a lane's policy names by address, as elements."""
    for one in apart(lane.policy.destinations):
        first = lane.address.packed + one.network.network_address.packed
        last = lane.address.packed + one.network.broadcast_address.packed
        if one.ports is None:
            found = [Element(first + _LOWEST, last + _HIGHEST)]
        else:
            low, high = map(port, one.ports)
            numbers = map(protocol, (_TCP, _UDP))
            found = [Element(first + number + low, last + number + high) for number in numbers]
        for element in found:
            yield _DESTINATIONS, element
            if one.network.prefixlen == one.network.max_prefixlen:
                yield _HOSTS, element


def entry(lane: Lane) -> Iterator[tuple[KeySet, Element]]:
    """What a lane is in the sets beside its policy."""
    yield _OWN, Element(interface(lane.veth) + mac(lane.mac) + lane.address.packed)
    yield _GUARDED, Element(interface(lane.veth))
    yield _POLICED, Element(lane.address.packed)
    lowest, highest = lane.subnet.network_address, lane.subnet.broadcast_address
    source = lane.address.packed
    yield _NEIGHBOURS, Element(source + lowest.packed, source + highest.packed)


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
    """The requests that put both tables in place, whole, with all that is in them.

    Args:
        group: which refused packets are logged to.
    """
    change = [pair for lane in lanes for part in (entry(lane), destinations(lane)) for pair in part]
    here = {one: [element for of, element in change if of is one] for one in (*_BRIDGE_SETS, *_IP_SETS)}
    contents: dict[int, list[Message]] = {_BRIDGE: [], _IP: [_METER.message(name, 1)]}
    for number, one in enumerate(here, 2):
        contents[one.family].append(one.message(name, number))
    for one, elements in here.items():
        contents[one.family] += one.add(name, elements)
    contents[_IP] += opened(name, openings)
    chains = {_BRIDGE: _port_chain(), _IP: _judging_chain(group)}
    return [
        message
        for family, chain in chains.items()
        for message in nftables.table_messages(name, (chain,), tuple(contents[family]), family)
    ]


def without(name: str) -> list[Message]:
    """The requests that take both tables away, whether they are there or not."""
    found = []
    for family in (_BRIDGE, _IP):
        found += nftables.table_messages(name, (), (), family)[:2]
    return found


def _port_chain() -> nftables.Chain:
    """What an endpoint may send at all."""
    accept = nftables.accept()
    rules = (
        _GUARDED.rule(within=False) + accept,
        nftables.ether_type(_ETHER_IP) + _OWN.rule() + accept,
        nftables.ether_type(_ETHER_ARP) + _OWN.rule(IIFNAME, ETHER_SADDR, ARP_SADDR_IP) + accept,
        nftables.drop(),
    )
    return nftables.Chain(
        "ports", "filter", nftables.HOOK_PREROUTING, nftables.PRIORITY_RAW, tuple(map(nftables.Rule, rules))
    )


def _judging_chain(group: int) -> nftables.Chain:
    """Where it may send it.

    The gateway's address is in the endpoint's network, and yet is the host, which only a policy that names
    the address itself lets be reached: all that is not a single other machine's is looked for there alone.
    """
    accept, elsewhere = nftables.accept(), nftables.fib_daddr_unicast()
    answers = nftables.ct_state(nftables.CT_ESTABLISHED)
    rules = (
        _POLICED.rule(within=False) + accept,
        answers + accept,
        elsewhere + _NEIGHBOURS.rule() + accept,
        elsewhere + _DESTINATIONS.rule() + accept,
        elsewhere + NAMED.rule() + accept,
        elsewhere + NAMED_PORTS.rule() + accept,
        elsewhere + NAMED_RANGES.rule() + accept,
        _HOSTS.rule() + accept,
        _METER.rule() + nftables.log_to(group, SNAP_BYTES),
        nftables.l4proto(_TCP) + nftables.reject_tcp_reset(),
        nftables.reject_prohibited(),
    )
    return nftables.Chain(
        "egress",
        "filter",
        nftables.HOOK_PREROUTING,
        nftables.PRIORITY_MANGLE,
        tuple(map(nftables.Rule, rules)),
    )
