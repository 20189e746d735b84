"""Maps of nf_tables that rewrite destinations, and sets of those that may be reached as they are.

They are made with their table, then filled and emptied by element.

However many ports are published, each packet costs one lookup. Numbers are those of Linux
`include/uapi/linux/netfilter/nf_tables.h`; the types' numbers are what `nft` knows them by, for its display.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence

from sampan.dataclasses import dataclass
from sampan.linux import nftkeys
from sampan.linux.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_CREATE,
    Message,
    Netlink,
    attribute,
    be32,
    nested,
    text,
)
from sampan.linux.nftables import SUBSYSTEM, Expression, batch, expression, head

_NEWSET = SUBSYSTEM | 9
_NEWSETELEM = SUBSYSTEM | 12
_DELSETELEM = SUBSYSTEM | 14
_NFT_SET_MAP = 0x8
_LIST_ELEM = 1
_TYPE_ADDRESS: dict[int, int] = {socket.AF_INET: 7, socket.AF_INET6: 8}  # nft's ipv4_addr and ipv6_addr
_TYPE_PROTOCOL, _TYPE_SERVICE = 12, 13  # its inet_proto and inet_service
_REGISTER = 8  # the first of those that hold four bytes
_META_L4PROTO = 16
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_IP_DESTINATION_OFFSET: dict[int, int] = {socket.AF_INET: 16, socket.AF_INET6: 24}
_ADDRESS_BYTES: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}
_FAMILIES: dict[int, int] = {4: socket.AF_INET, 6: socket.AF_INET6}
_NAT_DESTINATION = 1
_ELEMENTS_IN_MESSAGE = 400  # an attribute holds 64 KiB
NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}


IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Redirection:
    """Packets to one port go to another.

    Attributes:
        protocol: tcp, udp or sctp.
        address: at which address; None for any of the machine's.
        port: the port there.
        to_address, to_port: where they go instead.
    """

    protocol: str
    address: IPAddress | None
    port: int
    to_address: IPAddress
    to_port: int

    @property
    def family(self) -> int:
        """Of the table that it belongs to."""
        return _FAMILIES[self.to_address.version]


@dataclass(frozen=True, slots=True)
class RedirectionMap:
    """A map from protocol, address if it is `addressed`, and port to a destination."""

    name: str
    addressed: bool
    family: int = socket.AF_INET

    def rule(self) -> tuple[Expression, ...]:
        """`dnat ip to meta l4proto [. ip daddr] . th dport map @name`."""
        register = _REGISTER
        length = _ADDRESS_BYTES[self.family]
        loads = [expression("meta", be32(2, _META_L4PROTO), be32(1, register))]
        if self.addressed:
            offset = _IP_DESTINATION_OFFSET[self.family]
            loads.append(_payload(register + 1, _NETWORK_HEADER, offset, length))
            register += length // 4
        register += 1
        loads.append(_payload(register, _TRANSPORT_HEADER, 2, 2))
        lookup = expression("lookup", text(1, self.name), be32(2, _REGISTER), be32(3, _REGISTER))
        nat = expression(
            "nat", be32(1, _NAT_DESTINATION), be32(2, self.family),
            be32(3, _REGISTER), be32(5, _REGISTER + length // 4),
        )  # fmt: skip
        return (*loads, lookup, nat)

    def message(self, table: str, number: int) -> Message:
        """The request to make it, `number` being its id within the transaction."""
        address, length = _TYPE_ADDRESS[self.family], _ADDRESS_BYTES[self.family]
        types = [_TYPE_PROTOCOL, *([address] if self.addressed else []), _TYPE_SERVICE]
        key_type = 0
        for kind in types:
            key_type = key_type << 6 | kind
        body = head(self.family) + text(1, table) + text(2, self.name) + be32(3, _NFT_SET_MAP)
        body += be32(4, key_type) + be32(5, 8 + (length if self.addressed else 0))
        body += be32(6, address << 6 | _TYPE_SERVICE) + be32(7, length + 4) + be32(10, number)
        return Message(_NEWSET, NLM_F_ACK | NLM_F_CREATE, body, f"create nftables map {table} {self.name}")

    def add(self, table: str, entries: Iterable[Entry]) -> Iterator[Message]:
        """The requests to add elements; those of another kind of map or family are passed over."""
        for some in _portions(self._held(entries)):
            yield self._elements(table, _NEWSETELEM, NLM_F_ACK | NLM_F_CREATE, some, "add to")

    def delete(self, table: str, entries: Iterable[Entry]) -> Iterator[Message]:
        """The requests to delete elements, as `add`."""
        for some in _portions(self._held(entries)):
            yield self._elements(table, _DELSETELEM, NLM_F_ACK, some, "delete from")

    def _held(self, entries: Iterable[Entry]) -> list[Redirection]:
        return [
            one
            for one in entries
            if isinstance(one, Redirection)
            and (one.address is not None) == self.addressed
            and one.family == self.family
        ]

    def _elements(
        self, table: str, kind: int, flags: int, redirections: Sequence[Redirection], what: str
    ) -> Message:
        elements = []
        for one in redirections:
            key = struct.pack("B3x", NUMBERS[one.protocol])
            if one.address is not None:
                key += one.address.packed
            members = [nested(1, attribute(1, key + struct.pack(">H2x", one.port)))]
            if kind == _NEWSETELEM:
                target = one.to_address.packed + struct.pack(">H2x", one.to_port)
                members.append(nested(2, attribute(1, target)))
            elements.append(nested(_LIST_ELEM, *members))
        body = head(self.family) + text(1, table) + text(2, self.name) + nested(3, *elements)
        return Message(kind, flags, body, f"{what} nftables map {table} {self.name}")


@dataclass(frozen=True, slots=True)
class Admission:
    """Packets to this port of this address may come from anywhere, or by one interface."""

    protocol: str
    address: IPAddress
    port: int
    interface: str = ""

    @property
    def family(self) -> int:
        """Of the table that it belongs to."""
        return _FAMILIES[self.address.version]


Entry = Redirection | Admission


@dataclass(frozen=True, slots=True)
class AdmissionSet:
    """A set of addresses with protocol and port, and, if it is `trusted`, with the interface before them."""

    family: int
    trusted: bool = False

    def rule(self) -> tuple[Expression, ...]:
        """`ip daddr . meta l4proto . th dport @admitted`, or `iifname . ip daddr … @trusted`."""
        return self._set.rule()

    def message(self, table: str, number: int) -> Message:
        """As `RedirectionMap.message`."""
        return self._set.message(table, number)

    def add(self, table: str, entries: Iterable[Entry]) -> Iterator[Message]:
        """As `RedirectionMap.add`."""
        return self._set.add(table, map(self._element, self._held(entries)))

    def delete(self, table: str, entries: Iterable[Entry]) -> Iterator[Message]:
        """As `RedirectionMap.delete`."""
        return self._set.delete(table, map(self._element, self._held(entries)))

    @property
    def _set(self) -> nftkeys.KeySet:
        address = nftkeys.IP_DADDR if self.family == socket.AF_INET else nftkeys.IP6_DADDR
        fields = (address, nftkeys.L4PROTO, nftkeys.TH_DPORT)
        if self.trusted:
            return nftkeys.KeySet("trusted", (nftkeys.IIFNAME, *fields), self.family)
        return nftkeys.KeySet("admitted", fields, self.family)

    def _held(self, entries: Iterable[Entry]) -> list[Admission]:
        return [
            one
            for one in entries
            if isinstance(one, Admission)
            and one.family == self.family
            and bool(one.interface) == self.trusted
        ]

    def _element(self, one: Admission) -> nftkeys.Element:
        by = nftkeys.interface(one.interface) if self.trusted else b""
        number = nftkeys.protocol(NUMBERS[one.protocol])
        return nftkeys.Element(by + one.address.packed + number + nftkeys.port(one.port))


def maps(family: int) -> tuple[RedirectionMap, RedirectionMap]:
    """The two maps of a table of family ip or ip6: of ports at one address, and at any."""
    return (
        RedirectionMap("published-at", addressed=True, family=family),
        RedirectionMap("published", addressed=False, family=family),
    )


def published(family: int) -> tuple[RedirectionMap | AdmissionSet, ...]:
    """All of a table that ports are published by."""
    return (*maps(family), AdmissionSet(family), AdmissionSet(family, trusted=True))


_PUBLISHED = (*published(socket.AF_INET), *published(socket.AF_INET6))


def _payload(register: int, base: int, offset: int, length: int) -> Expression:
    return expression("payload", be32(1, register), be32(2, base), be32(3, offset), be32(4, length))


def _portions(redirections: list[Redirection]) -> Iterator[list[Redirection]]:
    for start in range(0, len(redirections), _ELEMENTS_IN_MESSAGE):
        yield redirections[start : start + _ELEMENTS_IN_MESSAGE]


def add(table: str, entries: Sequence[Entry]) -> None:
    """Add elements to the maps and sets of the tables of this name, all or none.

    Raises:
        OSError: what the kernel says; ENOENT when somebody has removed the table.
    """
    messages = [message for one in _PUBLISHED for message in one.add(table, entries)]
    with Netlink(NETLINK_NETFILTER) as netlink:
        netlink.transact(batch(messages))


def delete(table: str, entries: Sequence[Entry]) -> None:
    """Delete elements from the maps and sets of the tables of this name; those that are not there are fine.

    Raises:
        OSError: what the kernel says.
    """
    with Netlink(NETLINK_NETFILTER) as netlink:
        try:
            netlink.transact(batch([message for one in _PUBLISHED for message in one.delete(table, entries)]))
            return
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
        for entry in entries:  # somebody has removed some of them, or all with the table
            try:
                netlink.transact(batch([m for one in _PUBLISHED for m in one.delete(table, [entry])]))
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
