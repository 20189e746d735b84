"""Sets of nf_tables whose elements are several fields in a row, with ranges or with an end in time.

A rule that looks up loads the fields into registers side by side and asks for them at once (a concatenation,
nft(8)). Sets with ranges take Linux 5.6, and no two of their elements may overlap. Numbers are those of Linux
`include/uapi/linux/netfilter/nf_tables.h`; the types' numbers are what `nft` knows them by, for its display.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Sequence

from sampan.dataclasses import dataclass
from sampan.linux.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    Message,
    Netlink,
    attribute,
    attributes,
    be32,
    nested,
    text,
)
from sampan.linux.nftables import SUBSYSTEM, Expression, expression, head

_NEWSET = SUBSYSTEM | 9
_NEWSETELEM = SUBSYSTEM | 12
_GETSETELEM = SUBSYSTEM | 13
_DELSETELEM = SUBSYSTEM | 14
_INTERVAL, _TIMEOUT, _EVAL, _CONCAT = 0x4, 0x10, 0x20, 0x80
_LIST_ELEM = 1
# Of a set of names alone: libnftnl's KEYBYTEORDER, the host's. Without it nft shows each of them as "".
SHOWN_AS_NAME = attribute(13, struct.pack("=BBI", 0, 4, 1))
_LOOKUP_INVERTED = 1
_INTEGER = 4  # a type that says no size
_KEY, _ELEMENT_TIMEOUT, _EXPIRATION, _KEY_END = 1, 4, 5, 10
_FIRST_REGISTER = 8  # of four bytes each
_ELEMENTS_IN_MESSAGE = 400  # an attribute holds 64 KiB
_LINK, _NETWORK, _TRANSPORT = 0, 1, 2
_META_IIFNAME, _META_L4PROTO = 6, 16
_DYNSET_UPDATE = 1


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a key: its type's number, its size in bytes, and the expression that loads it."""

    kind: int
    size: int
    load: tuple[str, tuple[int, ...]]

    @property
    def registers(self) -> int:
        """How many registers it takes."""
        return -(-self.size // 4)

    def loaded(self, register: int) -> Expression:
        """The expression that loads it from a packet."""
        what, numbers = self.load
        if what == "meta":
            return expression("meta", be32(2, numbers[0]), be32(1, register))
        base, offset = numbers
        at = be32(2, base), be32(3, offset), be32(4, self.size)
        return expression("payload", be32(1, register), *at)


IIFNAME = Field(41, 16, ("meta", (_META_IIFNAME,)))
ETHER_DADDR = Field(9, 6, ("payload", (_LINK, 0)))
ETHER_SADDR = Field(9, 6, ("payload", (_LINK, 6)))
ARP_SADDR_IP = Field(7, 4, ("payload", (_NETWORK, 14)))
IP_SADDR = Field(7, 4, ("payload", (_NETWORK, 12)))
IP_DADDR = Field(7, 4, ("payload", (_NETWORK, 16)))
IP6_SADDR = Field(8, 16, ("payload", (_NETWORK, 8)))
IP6_DADDR = Field(8, 16, ("payload", (_NETWORK, 24)))
# The target of a neighbour's solicitation or advertisement that comes right behind the fixed header of IPv6.
# It is looked for from there, and is a plain number: not all releases of nft have a name for it.
ND_TARGET = Field(4, 16, ("payload", (_NETWORK, 48)))
L4PROTO = Field(12, 1, ("meta", (_META_L4PROTO,)))
TH_SPORT = Field(13, 2, ("payload", (_TRANSPORT, 0)))
TH_DPORT = Field(13, 2, ("payload", (_TRANSPORT, 2)))


@dataclass(frozen=True, slots=True)
class Element:
    """One element.

    Attributes:
        first: the key, as `key` makes it; of a range, its lowest.
        last: its highest, in a set with ranges.
        seconds: until the kernel takes it out, in a set with timeouts.
    """

    first: bytes
    last: bytes = b""
    seconds: float = 0


@dataclass(frozen=True, slots=True)
class KeySet:
    """A set.

    Attributes:
        fields: what its keys consist of, in order.
        family: of its table.
        ranged: its elements are ranges.
        timed: each element has an end.
    """

    name: str
    fields: tuple[Field, ...]
    family: int = socket.AF_INET
    ranged: bool = False
    timed: bool = False

    def message(self, table: str, number: int) -> Message:
        """The request to make it, `number` being its id within the transaction."""
        flags = (_INTERVAL | _CONCAT if self.ranged else 0) | (_TIMEOUT if self.timed else 0)
        kind = 0
        for one in self.fields:
            kind = kind << 6 | one.kind
        body = self._head(table) + be32(3, flags) + be32(4, kind)
        body += be32(5, 4 * sum(one.registers for one in self.fields))
        if self.ranged:
            sizes = [nested(_LIST_ELEM, be32(1, one.size)) for one in self.fields]
            body += nested(9, nested(2, *sizes))
        if self.fields == (IIFNAME,):
            body += SHOWN_AS_NAME
        elif any(one.kind == _INTEGER for one in self.fields):
            body += attribute(13, _typeof(self.fields))
        return Message(
            _NEWSET, NLM_F_ACK | NLM_F_CREATE, body + be32(10, number), self._what("create", table)
        )

    def add(self, table: str, elements: Iterable[Element]) -> Iterator[Message]:
        """The requests to add elements; those that are there are fine, and keep their end."""
        return self._change(table, elements, _NEWSETELEM, NLM_F_ACK | NLM_F_CREATE, "add to")

    def delete(self, table: str, elements: Iterable[Element]) -> Iterator[Message]:
        """The requests to delete elements; one that is not there lets the transaction fail with ENOENT."""
        return self._change(table, elements, _DELSETELEM, NLM_F_ACK, "delete from")

    def prolong(self, table: str, elements: Sequence[Element]) -> Iterator[Message]:
        """The requests to have elements, there or not before, each with its end counted from now."""
        yield from self.add(table, elements)
        yield from self.delete(table, elements)
        yield from self.add(table, elements)

    def forget(self, table: str, elements: Sequence[Element]) -> Iterator[Message]:
        """The requests to have elements no more, whether they are there or not."""
        yield from self.add(table, elements)
        yield from self.delete(table, elements)

    def rule(self, *fields: Field, within: bool = True) -> tuple[Expression, ...]:
        """`fields @name`, or `fields != @name`.

        Args:
            fields: what to load instead of the set's own, for others of the same sizes.
        """
        found, register = [], _FIRST_REGISTER
        for one in fields or self.fields:
            found.append(one.loaded(register))
            register += one.registers
        inverted = () if within else (be32(5, _LOOKUP_INVERTED),)
        return (*found, expression("lookup", text(1, self.name), be32(2, _FIRST_REGISTER), *inverted))

    def elements(self, netlink: Netlink, table: str) -> list[Element]:
        """What is in it; of timed elements with what is left of their time.

        Raises:
            OSError: ENOENT where it is not there.
        """
        request = Message(_GETSETELEM, NLM_F_DUMP | NLM_F_ACK, self._head(table), self._what("list", table))
        found = []
        for _, body in netlink.dump(request):
            for _, one in attributes(dict(attributes(body[4:])).get(3, b"")):
                members = dict(attributes(one))
                first, last = (
                    dict(attributes(members.get(kind, b""))).get(1, b"") for kind in (_KEY, _KEY_END)
                )
                left = int.from_bytes(members.get(_EXPIRATION, b""), "big") / 1000
                found.append(Element(first, last, left))
        return found

    def _head(self, table: str) -> bytes:
        return head(self.family) + text(1, table) + text(2, self.name)

    def _what(self, verb: str, table: str) -> str:
        return f"{verb} nftables set {table} {self.name}"

    def _change(
        self, table: str, elements: Iterable[Element], kind: int, flags: int, verb: str
    ) -> Iterator[Message]:
        encoded = [self._encoded(one) for one in elements]
        for start in range(0, len(encoded), _ELEMENTS_IN_MESSAGE):
            some = nested(3, *encoded[start : start + _ELEMENTS_IN_MESSAGE])
            yield Message(kind, flags, self._head(table) + some, self._what(verb, table))

    def _encoded(self, one: Element) -> bytes:
        members = [nested(_KEY, attribute(1, one.first))]
        if self.ranged:
            members.append(nested(_KEY_END, attribute(1, one.last or one.first)))
        if one.seconds:
            members.append(attribute(_ELEMENT_TIMEOUT, struct.pack(">Q", max(1, round(one.seconds * 1000)))))
        return nested(_LIST_ELEM, *members)


def _typeof(fields: Iterable[Field]) -> bytes:
    """What nft writes beside a set that was made with `typeof`, to know what its keys are (nft's udata)."""
    described = [_described(one) for one in fields]
    return _note(0, bytes(4)) + _note(
        3, _number(0, 13) + _note(1, b"".join(_note(at, one) for at, one in enumerate(described)))
    )


def _described(field: Field) -> bytes:
    """A field as nft's `expr_build_udata` has it: a key of meta, a member of a header, or bytes of any."""
    what, numbers = field.load
    if what == "meta":
        return _number(0, 9) + _note(1, _number(0, numbers[0]))
    if field == ETHER_SADDR:
        return _number(0, 7) + _note(1, _number(0, 17) + _number(1, 2))
    base, offset = numbers
    place = (0, 0, base + 1, 8 * offset, 8 * field.size)
    return _number(0, 7) + _note(1, b"".join(_number(at, one) for at, one in enumerate(place)))


def _note(kind: int, content: bytes) -> bytes:
    return bytes([kind, len(content)]) + content


def _number(kind: int, value: int) -> bytes:
    return _note(kind, struct.pack("=I", value))


def interface(name: str) -> bytes:
    """An interface's name as a field."""
    return name.encode().ljust(16, b"\0")


def mac(address: str) -> bytes:
    """A MAC address as a field."""
    return bytes.fromhex(address.replace(":", "")) + b"\0\0"


def protocol(number: int) -> bytes:
    """A protocol as a field."""
    return struct.pack("B3x", number)


def port(number: int) -> bytes:
    """A port as a field."""
    return struct.pack(">H2x", number)


@dataclass(frozen=True, slots=True)
class Meter:
    """A set that counts for itself how often its keys came by lately: source addresses."""

    name: str
    per_second: int
    burst: int
    most: int = 4096
    family: int = socket.AF_INET

    @property
    def _key(self) -> Field:
        return IP_SADDR if self.family == socket.AF_INET else IP6_SADDR

    def message(self, table: str, number: int) -> Message:
        """The request to make it, `number` being its id within the transaction."""
        body = head(self.family) + text(1, table) + text(2, self.name) + be32(3, _EVAL | _TIMEOUT)
        body += be32(4, self._key.kind) + be32(5, self._key.size) + nested(9, be32(1, self.most))
        body += be32(10, number) + _be64(11, 60_000)
        what = f"create nftables set {table} {self.name}"
        return Message(_NEWSET, NLM_F_ACK | NLM_F_CREATE, body, what)

    def rule(self) -> tuple[Expression, ...]:
        """`update @name { ip saddr limit rate …/second burst … packets }`: matches what stays below."""
        limit = nested(2, _be64(1, self.per_second), _be64(2, 1), be32(3, self.burst), be32(4, 0), be32(5, 0))
        update = expression(
            "dynset", text(1, self.name), be32(3, _DYNSET_UPDATE), be32(4, _FIRST_REGISTER),
            nested(7, text(1, "limit"), limit),
        )  # fmt: skip
        return (self._key.loaded(_FIRST_REGISTER), update)


def _be64(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">Q", value))
