"""What the firewall lets pass between containers whose bridge keeps them apart: the ports that links open."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from sampan.dataclasses import dataclass
from sampan.linux import nftables, nftmaps
from sampan.linux.netlink import Message
from sampan.linux.nftkeys import (
    IIFNAME,
    IP_DADDR,
    IP_SADDR,
    L4PROTO,
    TH_DPORT,
    TH_SPORT,
    Element,
    KeySet,
    interface,
    port,
    protocol,
)

_PASSAGES = KeySet("passages", (IIFNAME, IP_SADDR, IP_DADDR, L4PROTO, TH_DPORT))
_PAIRS = KeySet("linked", (IIFNAME, IP_SADDR, IP_DADDR))


@dataclass(frozen=True, slots=True)
class Passage:
    """A port that one container may reach of another, though their bridge keeps them apart."""

    bridge: str
    source: ipaddress.IPv4Address
    destination: ipaddress.IPv4Address
    port: int
    protocol: str

    @property
    def key(self) -> bytes:
        """What it is in the set of passages."""
        ends = self.source.packed + self.destination.packed
        return interface(self.bridge) + ends + protocol(nftmaps.NUMBERS[self.protocol]) + port(self.port)

    @property
    def pairs(self) -> tuple[bytes, bytes]:
        """What it is in the set of those who speak with each other."""
        ends = self.source.packed, self.destination.packed
        return interface(self.bridge) + b"".join(ends), interface(self.bridge) + b"".join(reversed(ends))


def contents(table: str, number: int, passages: Sequence[Passage]) -> list[Message]:
    """The requests that make the sets with these passages in them, and none without passages.

    Args:
        number: the first free id of a set within the transaction.
    """
    if not passages:
        return []
    found = [_PASSAGES.message(table, number), _PAIRS.message(table, number + 1)]
    found += _PASSAGES.add(table, [Element(one.key) for one in passages])
    found += _PAIRS.add(table, map(Element, {pair for one in passages for pair in one.pairs}))
    return found


def rules(passages: Sequence[Passage]) -> tuple[tuple[nftables.Expression, ...], ...]:
    """What may pass: to a passage, the answers, and errors about either; no rule without passages."""
    if not passages:
        return ()
    accept = nftables.accept()
    back = _PASSAGES.rule(IIFNAME, IP_DADDR, IP_SADDR, L4PROTO, TH_SPORT)
    return (
        _PASSAGES.rule() + accept,
        nftables.ct_state(nftables.CT_ESTABLISHED) + back + accept,
        nftables.ct_state(nftables.CT_RELATED) + _PAIRS.rule() + accept,
    )
