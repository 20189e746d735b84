"""What keeps the addresses of linked containers theirs, on a bridge that keeps its containers apart.

A link lets packets pass by the addresses in them (`passages`), and who has raw sockets, as containers
have, writes into a packet what he likes. So while there are links, a table of family bridge lets these
addresses come from their own ports alone, in IPv4 and in ARP, by which they could be had as well.

An address behind VLAN tags is not seen there, and yet the host takes tags off that say 0 (IEEE 802.1p),
however many: what is tagged and for the bridge itself is dropped.
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress

from sampan.dataclasses import dataclass
from sampan.linux import nftables
from sampan.linux.nftkeys import (
    ARP_SADDR_IP,
    ETHER_DADDR,
    IIFNAME,
    IP_SADDR,
    Element,
    KeySet,
    interface,
    mac,
)

_FAMILY = socket.AF_BRIDGE
_ETHER_IP, _ETHER_ARP = 0x0800, 0x0806
_ETHER_VLANS = (0x8100, 0x88A8)  # IEEE 802.1Q, 802.1ad
_LINKED = KeySet("linked", (IP_SADDR,), _FAMILY)
_OWN = KeySet("own-addresses", (IIFNAME, IP_SADDR), _FAMILY)
_BRIDGE = KeySet("bridge", (ETHER_DADDR,), _FAMILY)


@dataclass(frozen=True, slots=True)
class Linked:
    """The containers of one bridge that have links between them.

    Attributes:
        bridge_mac: the bridge's own MAC address; "" when it is gone.
        addresses: of the containers.
        ports: the host's end of a container's pair, and the container's address.
    """

    bridge_mac: str
    addresses: frozenset[ipaddress.IPv4Address]
    ports: frozenset[tuple[str, ipaddress.IPv4Address]]


def put(table: str, linked: Linked) -> None:
    """Put the table in place, whole.

    Raises:
        OSError: what the kernel says; it lacks nf_tables for bridges.
    """
    contents = [one.message(table, number) for number, one in enumerate((_LINKED, _OWN, _BRIDGE), 1)]
    contents += _LINKED.add(table, [Element(one.packed) for one in sorted(linked.addresses)])
    contents += _OWN.add(table, [Element(interface(veth) + one.packed) for veth, one in sorted(linked.ports)])
    contents += _BRIDGE.add(table, [Element(mac(linked.bridge_mac))] if linked.bridge_mac else [])
    nftables.replace_table(table, (_chain(),), tuple(contents), _FAMILY)


def drop(table: str) -> None:
    """Take the table away; one that is not there is fine."""
    with suppress(OSError):  # a kernel without nf_tables for bridges has no table of ours either
        nftables.delete_table(table, _FAMILY)


def _chain() -> nftables.Chain:
    """What may come from the ports of bridges, before any bridge learns from it."""
    accept, drop = nftables.accept(), nftables.drop()
    ip, arp = nftables.ether_type(_ETHER_IP), nftables.ether_type(_ETHER_ARP)
    rules = (
        ip + _LINKED.rule(within=False) + accept,
        ip + _OWN.rule() + accept,
        ip + drop,
        arp + _LINKED.rule(ARP_SADDR_IP, within=False) + accept,
        arp + _OWN.rule(IIFNAME, ARP_SADDR_IP) + accept,
        arp + drop,
        *(nftables.ether_type(kind) + _BRIDGE.rule() + drop for kind in _ETHER_VLANS),
    )
    return nftables.Chain(
        "ports", "filter", nftables.HOOK_PREROUTING, nftables.PRIORITY_RAW, tuple(map(nftables.Rule, rules))
    )
