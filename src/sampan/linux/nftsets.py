"""Sets and verdict maps of nf_tables: one rule that looks up speaks for many interfaces and subnets.

However many there are, each packet costs one lookup. Numbers are those of Linux
`include/uapi/linux/netfilter/nf_tables.h`; the types' numbers are what `nft` knows them by, for its display.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator

from sampan.dataclasses import dataclass
from sampan.linux.netlink import NLM_F_ACK, NLM_F_CREATE, Message, attribute, be32, nested, text
from sampan.linux.nftables import SUBSYSTEM, Expression, IPNetwork, expression, head
from sampan.linux.nftkeys import SHOWN_AS_NAME

_NEWSET = SUBSYSTEM | 9
_NEWSETELEM = SUBSYSTEM | 12
_DELSETELEM = SUBSYSTEM | 14
_SET_INTERVAL, _SET_MAP = 0x4, 0x8
_DATA_VERDICT = 0xFFFFFF00
_ELEMENT_INTERVAL_END = 1
_NAT_SOURCE = 0
_TYPE_ADDRESS: dict[int, int] = {socket.AF_INET: 7, socket.AF_INET6: 8}  # nft's ipv4_addr and ipv6_addr
_TYPE_INTERFACE = 41  # its ifname
_LIST_ELEM = 1
_LOOKUP_INVERTED = 1
_FIRST_REGISTER, _SECOND_REGISTER = 8, 12  # of four bytes each; an interface's name takes four
_REGISTER_VERDICT = 0
_META_IIFNAME, _META_OIFNAME = 6, 7
_SOURCE_OFFSET: dict[int, int] = {socket.AF_INET: 12, socket.AF_INET6: 8}
_ADDRESS_BYTES: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}
_ACCEPT, _DROP = 1, 0
_ELEMENTS_IN_MESSAGE = 400  # an attribute holds 64 KiB
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class _Set:
    """What sets have in common: elements that are added and deleted as messages of a transaction."""

    name: str
    family: int = socket.AF_INET

    def _made(self, table: str, number: int, flags: int, types: tuple[int, ...], *more: bytes) -> Message:
        key_type = 0
        for kind in types:
            key_type = key_type << 6 | kind
        length = sum(16 if kind == _TYPE_INTERFACE else _ADDRESS_BYTES[self.family] for kind in types)
        body = head(self.family) + text(1, table) + text(2, self.name) + be32(3, flags)
        body += be32(4, key_type) + be32(5, length) + b"".join(more) + be32(10, number)
        return Message(_NEWSET, NLM_F_ACK | NLM_F_CREATE, body, f"create nftables set {table} {self.name}")

    def _changed(self, table: str, elements: list[bytes], add: bool) -> Iterator[Message]:
        kind, flags = (_NEWSETELEM, NLM_F_ACK | NLM_F_CREATE) if add else (_DELSETELEM, NLM_F_ACK)
        what = "add to" if add else "delete from"
        for start in range(0, len(elements), _ELEMENTS_IN_MESSAGE):
            some = elements[start : start + _ELEMENTS_IN_MESSAGE]
            body = head(self.family) + text(1, table) + text(2, self.name)
            body += nested(3, *(nested(_LIST_ELEM, one) for one in some))
            yield Message(kind, flags, body, f"{what} nftables set {table} {self.name}")

    def _lookup(self, *more: bytes) -> Expression:
        return expression("lookup", text(1, self.name), be32(2, _FIRST_REGISTER), *more)


class InterfaceSet(_Set):
    """Names of interfaces."""

    __slots__ = ()

    def message(self, table: str, number: int) -> Message:
        """The request to make it, `number` being its id within the transaction."""
        return self._made(table, number, 0, (_TYPE_INTERFACE,), SHOWN_AS_NAME)

    def change(self, table: str, names: Iterable[str], *, add: bool) -> Iterator[Message]:
        """The requests to add or delete names."""
        return self._changed(table, [_key(_interface(name)) for name in names], add)

    def iifname(self, *, within: bool = True) -> tuple[Expression, ...]:
        """`iifname @name`, or `iifname != @name`."""
        return self._matches(_META_IIFNAME, within)

    def oifname(self, *, within: bool = True) -> tuple[Expression, ...]:
        """`oifname @name`, or `oifname != @name`."""
        return self._matches(_META_OIFNAME, within)

    def _matches(self, key: int, within: bool) -> tuple[Expression, ...]:
        return (_meta(key, _FIRST_REGISTER), self._lookup(*(() if within else (be32(5, _LOOKUP_INVERTED),))))


class InnerVerdicts(_Set):
    """What becomes of packets that leave by the interface they came by, by that interface's name."""

    __slots__ = ()

    def message(self, table: str, number: int) -> Message:
        """The request to make it, `number` being its id within the transaction."""
        types = (_TYPE_INTERFACE, _TYPE_INTERFACE)
        return self._made(table, number, _SET_MAP, types, be32(6, _DATA_VERDICT))

    def change(self, table: str, verdicts: Iterable[tuple[str, bool]], *, add: bool) -> Iterator[Message]:
        """The requests to add or delete interfaces, each with whether such packets are accepted."""
        elements = []
        for name, accept in verdicts:
            verdict = nested(2, nested(2, be32(1, _ACCEPT if accept else _DROP)))
            elements.append(_key(_interface(name) * 2) + (verdict if add else b""))
        return self._changed(table, elements, add)

    def rule(self) -> tuple[Expression, ...]:
        """`iifname . oifname vmap @name`."""
        loads = _meta(_META_IIFNAME, _FIRST_REGISTER), _meta(_META_OIFNAME, _SECOND_REGISTER)
        return (*loads, self._lookup(be32(3, _REGISTER_VERDICT)))


class SubnetSet(_Set):
    """Networks of the set's family that do not overlap."""

    __slots__ = ()

    def message(self, table: str, number: int) -> Message:
        """The request to make it, `number` being its id within the transaction."""
        return self._made(table, number, _SET_INTERVAL, (_TYPE_ADDRESS[self.family],))

    def change(self, table: str, subnets: Iterable[IPNetwork], *, add: bool) -> Iterator[Message]:
        """The requests to add or delete networks."""
        return self._changed(table, [part for one in subnets for part in _interval(one)], add)

    def ip_saddr(self) -> tuple[Expression, ...]:
        """`ip saddr @name`, or `ip6 saddr @name`."""
        return (_source(self.family), self._lookup())


class SourceMap(_Set):
    """Networks of the map's family that do not overlap, each with the address that its packets get."""

    __slots__ = ()

    def message(self, table: str, number: int) -> Message:
        """The request to make it, `number` being its id within the transaction."""
        kind = _TYPE_ADDRESS[self.family]
        data = be32(6, kind) + be32(7, _ADDRESS_BYTES[self.family])
        return self._made(table, number, _SET_INTERVAL | _SET_MAP, (kind,), data)

    def change(
        self, table: str, sources: Iterable[tuple[IPNetwork, IPAddress]], *, add: bool
    ) -> Iterator[Message]:
        """The requests to add or delete networks, each with its address."""
        elements = []
        for subnet, address in sources:
            first, *end = _interval(subnet)
            elements += [first + (nested(2, attribute(1, address.packed)) if add else b""), *end]
        return self._changed(table, elements, add)

    def snat(self) -> tuple[Expression, ...]:
        """`snat to ip saddr map @name`, or `ip6 saddr`; nothing for packets of no such network."""
        nat = be32(1, _NAT_SOURCE), be32(2, self.family), be32(3, _FIRST_REGISTER)
        lookup = self._lookup(be32(3, _FIRST_REGISTER))
        return (_source(self.family), lookup, expression("nat", *nat))


def _interval(subnet: IPNetwork) -> list[bytes]:
    """A network as elements: its beginning, and the end if it is not that of all addresses."""
    end = int(subnet.broadcast_address) + 1
    found = [_key(subnet.network_address.packed)]
    if end < 1 << subnet.max_prefixlen:
        key = _key(end.to_bytes(subnet.max_prefixlen // 8, "big"))
        found.append(key + be32(3, _ELEMENT_INTERVAL_END))
    return found


def _source(family: int) -> Expression:
    at, length = _SOURCE_OFFSET[family], _ADDRESS_BYTES[family]
    return expression("payload", be32(1, _FIRST_REGISTER), be32(2, 1), be32(3, at), be32(4, length))


def _meta(key: int, register: int) -> Expression:
    return expression("meta", be32(2, key), be32(1, register))


def _interface(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


def _key(key: bytes) -> bytes:
    return nested(1, attribute(1, key))
