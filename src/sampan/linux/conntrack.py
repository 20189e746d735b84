"""The kernel's table of connections, as far as entries of it are found and deleted: ctnetlink.

The numbers are those of Linux `include/uapi/linux/netfilter/nfnetlink_conntrack.h`. Entries are listed whole
and chosen here, then deleted one by one, each by its tuple and id: kernels that do not know a filter that
comes with a deletion take it for a request to delete all there is.

To list takes the kernel some 10 ms even when there are few entries, as it walks the whole hash table.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Collection, Iterable, Iterator

from sampan.dataclasses import dataclass
from sampan.linux.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_DUMP,
    Message,
    Netlink,
    attribute,
    attributes,
    nested,
)
from sampan.linux.nftables import head

_SUBSYSTEM = 1 << 8
_GET, _DELETE = _SUBSYSTEM | 1, _SUBSYSTEM | 2
_ORIGINAL, _REPLY, _ID, _ZONE = 1, 2, 12, 18
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_SOURCES, _DESTINATIONS = (1, 3), (2, 4)  # of IPv4 and IPv6
_PROTO_NUMBER, _PROTO_DESTINATION_PORT = 1, 3
_GONE = frozenset({2})  # ENOENT: it has ended by itself meanwhile
_BATCH = 64

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Flow:
    """A connection, or what passes for one with protocols that know none.

    Attributes:
        protocol: its number, as 17 for UDP.
        source, destination: as its first packet had them, before any of them was rewritten.
        destination_port: likewise; 0 for protocols without ports.
        answered_from: who answers: another one than `destination` where that was rewritten.
        family: AF_INET or AF_INET6.
        identity: what the kernel knows it by.
    """

    protocol: int
    source: Address
    destination: Address
    destination_port: int
    answered_from: Address
    family: int
    identity: bytes


def flows(mentioning: Collection[bytes], chosen: Callable[[Flow], bool]) -> list[Flow]:
    """The entries of this network namespace that are `chosen`.

    Args:
        mentioning: only those are looked at that have one of these in them: packed addresses or ports.

    Raises:
        OSError: what the kernel says; EPROTONOSUPPORT or EINVAL when it has no such table.
    """
    request = Message(_GET, NLM_F_DUMP, head(socket.AF_UNSPEC), "list tracked connections")

    def mentioned(body: bytes) -> bool:
        return any(needle in body for needle in mentioning)

    with Netlink(NETLINK_NETFILTER) as netlink:
        found = netlink.dump(request, mentioned)
    return [flow for _, body in found if (flow := _parsed(body)) is not None and chosen(flow)]


def delete(those: Iterable[Flow]) -> None:
    """Delete entries; one that is not there any more is fine.

    Raises:
        OSError: what the kernel says.
    """
    messages = [
        Message(_DELETE, NLM_F_ACK, head(flow.family) + flow.identity, "delete a tracked connection")
        for flow in those
    ]
    if messages:
        with Netlink(NETLINK_NETFILTER) as netlink:
            for start in range(0, len(messages), _BATCH):
                netlink.transact(messages[start : start + _BATCH], tolerate=_GONE)


def _parsed(body: bytes) -> Flow | None:
    members = dict(attributes(body[4:]))
    original, reply = _ends(members.get(_ORIGINAL, b"")), _ends(members.get(_REPLY, b""))
    if original is None or reply is None:
        return None
    source, destination, protocol, port = original
    identity = nested(_ORIGINAL, members[_ORIGINAL])
    identity += b"".join(attribute(kind, members[kind]) for kind in (_ID, _ZONE) if kind in members)
    return Flow(protocol, source, destination, port, reply[0], body[0], identity)


def _ends(tuple_: bytes) -> tuple[Address, Address, int, int] | None:
    """Source, destination, protocol and destination port of one direction."""
    members = dict(attributes(tuple_))
    addresses = dict(attributes(members.get(_TUPLE_IP, b"")))
    protocol = dict(attributes(members.get(_TUPLE_PROTO, b"")))
    source, destination = (next(_address(addresses, kinds), None) for kinds in (_SOURCES, _DESTINATIONS))
    if source is None or destination is None:
        return None
    port = int.from_bytes(protocol.get(_PROTO_DESTINATION_PORT, b""), "big")
    return source, destination, int.from_bytes(protocol.get(_PROTO_NUMBER, b""), "big"), port


def _address(members: dict[int, bytes], kinds: tuple[int, int]) -> Iterator[Address]:
    for kind in kinds:
        if kind in members:
            yield ipaddress.ip_address(members[kind])
