"""What an egress policy says: `deny`, or `allow:` and the names, addresses and networks that may be reached.

    deny
    allow:pypi.org,*.debian.org:443,10.0.0.0/8,192.0.2.7:8000-8100,2001:db8::/32,[2001:db8::1]:443

A name means itself; `*.` and a name everything below it, at any depth, but not the name; `*` every name.
Behind a colon stands a port or a range of ports; then TCP and UDP alone are meant, else every protocol. IPv6
addresses and networks with a port stand in brackets.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Iterable, Iterator

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter

MOST_ITEMS = 256
DENY = "deny"
_ALLOW = "allow:"
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_LONGEST_NAME = 253
_FORMS = "deny, or allow: with names, *.names, addresses and networks, each with :PORT if wanted"
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

Ports = tuple[int, int]
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Destination:
    """A network that may be reached: at some ports by TCP and UDP, or by any protocol."""

    network: IPNetwork
    ports: Ports | None = None


@dataclass(frozen=True, slots=True)
class Name:
    """A name whose addresses may be reached, at some ports by TCP and UDP, or by any protocol.

    Attributes:
        pattern: in lower case, without a dot at its end.
    """

    pattern: str
    ports: Ports | None = None

    def matches(self, name: str) -> bool:
        """Whether a name, in lower case and without a dot at its end, is meant."""
        if self.pattern.startswith("*"):
            return self.pattern == "*" or name.endswith(self.pattern[1:])
        return name == self.pattern


@dataclass(frozen=True, slots=True)
class Policy:
    """Where a container may connect to; nowhere, when both are empty.

    Attributes:
        text: as a user writes it.
    """

    text: str
    names: tuple[Name, ...] = ()
    destinations: tuple[Destination, ...] = ()

    def matching(self, name: str) -> list[Name]:
        """What is said of a name."""
        return [one for one in self.names if one.matches(name)]

    def ports_of(self, name: str) -> set[Ports | None]:
        """At which ports a name's addresses may be reached; None for wholly.

        Ranges are cut at the ends of all others in the policy, so that no two share a part: an address may
        belong to several names.
        """
        found: set[Ports | None] = set()
        for one in self.matching(name):
            found.update(_cut(one.ports, self.names) if one.ports is not None else (None,))
        return found

    def covers(self, address: IPAddress) -> bool:
        """Whether an address may be reached whatever it is called, at some port at least."""
        return any(address in one.network for one in self.destinations)


def parse(text: str) -> Policy:
    """Read a policy.

    Raises:
        InvalidParameter: it is none; with the word that is wrong.
    """
    plain = text.strip()
    if plain == DENY:
        return Policy(DENY)
    if not plain.startswith(_ALLOW):
        raise InvalidParameter(f"egress policy {text!r}: must be {_FORMS}")
    items = [item.strip().lower() for item in plain.removeprefix(_ALLOW).split(",")]
    if items == [""]:
        raise InvalidParameter(f"egress policy {text!r}: nothing stands behind allow:; write deny for that")
    if len(items) > MOST_ITEMS:
        raise InvalidParameter(f"egress policy: {len(items)} destinations; {MOST_ITEMS} are the most")
    names: list[Name] = []
    destinations: list[Destination] = []
    for item in items:
        found = _item(item)
        if isinstance(found, Name):
            names.append(found)
        else:
            destinations.append(found)
    return Policy(_ALLOW + ",".join(items), tuple(names), tuple(destinations))


def _item(item: str) -> Name | Destination:
    if item.startswith("["):
        host, bracket, rest = item[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise InvalidParameter(
                f"egress policy: {item}: behind the bracket stands : and a port, or nothing"
            )
        colon, ports, is_address = rest[:1], rest[1:], True
    elif item.count(":") > 1:
        host, colon, ports, is_address = item, "", "", True
    else:
        host, colon, ports = item.partition(":")
        is_address = re.fullmatch(r"[0-9./]+", host) is not None
    wanted = _ports(item, ports) if colon else None
    if is_address:
        return Destination(_network(item, host), wanted)
    return Name(_pattern(item, host), wanted)


def _network(item: str, host: str) -> IPNetwork:
    try:
        network = ipaddress.ip_network(host)
    except ValueError as error:
        raise InvalidParameter(f"egress policy: {item}: {error}") from None
    if network.version == 6 and network.network_address.is_link_local:
        raise InvalidParameter(f"egress policy: {item}: nothing is sent to link-local IPv6 addresses")
    return network


def _ports(item: str, text: str) -> Ports:
    first, dash, last = text.partition("-")
    ends = (first, last if dash else first)
    if not all(re.fullmatch(r"[0-9]{1,5}", end) for end in ends):
        raise InvalidParameter(f"egress policy: {item}: {text!r} is neither a port nor a range of ports")
    low, high = map(int, ends)
    if not 1 <= low <= high <= 65535:
        raise InvalidParameter(f"egress policy: {item}: ports go from 1 to 65535, the lower one first")
    return low, high


def _cut(ports: Ports, names: Iterable[Name]) -> Iterator[Ports]:
    low, high = ports
    if low == high:
        yield ports
        return
    ranges = [one.ports for one in names if one.ports is not None and one.ports[0] != one.ports[1]]
    edges = {edge for first, last in ranges for edge in (first, last + 1) if low < edge <= high}
    for first, after in itertools.pairwise([low, *sorted(edges), high + 1]):
        yield first, after - 1


def _pattern(item: str, host: str) -> str:
    if host == "*":
        return host
    name = host.removesuffix(".")
    try:
        name = name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        name = ""
    labels = name.removeprefix("*.").split(".")
    if len(name) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidParameter(
            f"egress policy: {item}: must be a name, *. and a name, an address, or a network like 10.0.0.0/8"
        )
    return name


def reachable_by_name(address: IPAddress) -> bool:
    """Whether a name may lead to an address that the policy does not name: not into any private place.

    Of an IPv6 address that stands for an IPv4 one, that one counts (RFC 3056, RFC 6052).
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None or address.teredo is not None or address.is_site_local:
            return False
        inner = address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None and not reachable_by_name(inner):
            return False
    return address.is_global and not address.is_multicast


def apart(destinations: Iterable[Destination]) -> Iterator[Destination]:
    """The same destinations so that no two have a packet in common, which sets with ranges ask for."""
    given = list(destinations)
    for version in (4, 6):
        yield from _apart([one for one in given if one.network.version == version])


def _apart(given: list[Destination]) -> Iterator[Destination]:
    wholly = _collapsed(one.network for one in given if one.ports is None)
    for network in wholly:
        yield Destination(network)
    partly = [(one.network, one.ports) for one in given if one.ports is not None]
    edges = sorted({edge for _, (low, high) in partly for edge in (low, high + 1)})
    for low, after in itertools.pairwise(edges):
        here = [network for network, ports in partly if ports[0] <= low < ports[1] + 1]
        for network in _collapsed(here):
            for piece in _without(network, wholly):
                yield Destination(piece, (low, after - 1))


def _collapsed(networks: Iterable[IPNetwork]) -> list[IPNetwork]:
    return list(ipaddress.collapse_addresses(networks))  # type: ignore[type-var]


def _without(network: IPNetwork, others: Iterable[IPNetwork]) -> list[IPNetwork]:
    pieces = [network]
    for other in others:
        if any(_inside(piece, other) for piece in pieces):
            pieces = [piece for piece in pieces if not _inside(piece, other)]
        pieces = [
            rest
            for piece in pieces
            for rest in (piece.address_exclude(other) if _inside(other, piece) else (piece,))  # type: ignore[arg-type]
        ]
    return pieces


def _inside(one: IPNetwork, other: IPNetwork) -> bool:
    return one.subnet_of(other)  # type: ignore[arg-type]
