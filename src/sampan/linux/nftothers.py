"""What others' nftables rules do with forwarded packets that none of them speaks for; read, never changed.

A chain is closed when its policy is to drop, or when its last rule drops or rejects all that comes to it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from sampan.dataclasses import dataclass
from sampan.linux.netlink import NETLINK_NETFILTER, NLM_F_DUMP, Message, Netlink, attributes
from sampan.linux.nftables import HOOK_FORWARD, SUBSYSTEM, head

_GETCHAIN = SUBSYSTEM | 4
_GETRULE = SUBSYSTEM | 7
_FAMILIES: dict[int, str] = {1: "inet", socket.AF_INET: "ip", socket.AF_INET6: "ip6"}
_DROP = struct.pack(">I", 0)
_PLAIN = frozenset({"counter", "log", "limit"})  # decide nothing
_NAME_BYTES = 16

Key = tuple[int, str]


@dataclass(frozen=True, slots=True)
class ClosedChain:
    """A base chain at the forward hook that lets nothing through which no rule of it accepts.

    Attributes:
        family: "ip", "ip6" or "inet".
        neighbours: the names of all chains in its table.
        interfaces: what rules of its table compare with interfaces' names; a beginning ends in "*".
    """

    family: str
    table: str
    name: str
    neighbours: frozenset[str]
    interfaces: frozenset[str]


def closed_forward_chains() -> list[ClosedChain]:
    """The closed chains at the forward hook, of families ip, ip6 and inet.

    Raises:
        OSError: what the kernel says; EPROTONOSUPPORT when it has no nf_tables.
    """
    with Netlink(NETLINK_NETFILTER) as netlink:
        chains = list(_members(netlink, _GETCHAIN, "list nftables chains"))
        bases = [
            (family, members)
            for family, members in chains
            if dict(attributes(members.get(4, b""))).get(1) == struct.pack(">I", HOOK_FORWARD)
        ]
        if not bases:
            return []
        rules = list(_members(netlink, _GETRULE, "list nftables rules"))
    neighbours: dict[Key, set[str]] = {}
    for family, members in chains:
        neighbours.setdefault((family, _text(members, 1)), set()).add(_text(members, 3))
    last: dict[tuple[int, str, str], bytes] = {}
    interfaces: dict[Key, set[str]] = {}
    for family, members in rules:
        key = family, _text(members, 1)
        last[*key, _text(members, 2)] = members.get(4, b"")
        interfaces.setdefault(key, set()).update(_interfaces(members.get(4, b"")))
    found = []
    for family, members in bases:
        key, name = (family, _text(members, 1)), _text(members, 3)
        if members.get(5) == _DROP or _stops_all(last.get((*key, name), b"")):
            names = frozenset(neighbours[key]), frozenset(interfaces.get(key, ()))
            found.append(ClosedChain(_FAMILIES[family], key[1], name, *names))
    return found


def _members(netlink: Netlink, kind: int, what: str) -> Iterator[tuple[int, dict[int, bytes]]]:
    for _, body in netlink.dump(Message(kind, NLM_F_DUMP, head(socket.AF_UNSPEC), what)):
        if body[0] in _FAMILIES:
            yield body[0], dict(attributes(body[4:]))


def _text(members: dict[int, bytes], kind: int) -> str:
    return members.get(kind, b"").rstrip(b"\0").decode(errors="replace")


def _expressions(data: bytes) -> Iterator[tuple[str, dict[int, bytes]]]:
    for _, one in attributes(data):
        members = dict(attributes(one))
        yield _text(members, 1), dict(attributes(members.get(2, b"")))


def _stops_all(data: bytes) -> bool:
    """Whether a rule drops or rejects whatever comes to it."""
    for name, members in _expressions(data):
        if name == "reject":
            return True
        if name == "immediate":  # data, verdict, code
            verdict = dict(attributes(dict(attributes(members.get(2, b""))).get(2, b"")))
            return verdict.get(1) == _DROP
        if name not in _PLAIN:
            return False
    return False


def _interfaces(data: bytes) -> Iterator[str]:
    """Names that a rule compares something with: of interfaces, as only those are texts."""
    for name, members in _expressions(data):
        value = dict(attributes(members.get(3, b""))).get(1, b"") if name == "cmp" else b""
        plain = value.rstrip(b"\0")
        if plain and plain.isascii() and plain.decode().isprintable() and len(plain) > 1:
            whole = len(value) > len(plain) or len(value) == _NAME_BYTES
            yield plain.decode() + ("" if whole else "*")
