"""Our own nftables tables: one of each family for all bridge networks of a daemon, however many there are.

The tables `sampan-<default bridge>` (families ip and ip6, the latter while a network has IPv6, and bridge,
see `impersonation`) are ours alone, and no other table is ever touched. That has a limit which nf_tables
sets: a packet must pass every table's base chain, so a DROP policy that somebody else's forward chain has
(ufw, firewalld, Docker) still drops, whatever ours accepts; `others` tells of one.

Their rules never change: networks are elements of sets, published ports elements of maps. So a packet costs
the same among a thousand networks, and a network comes and goes as one small transaction.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

from sampan.dataclasses import dataclass
from sampan.linux import features, nftables, nftmaps, nftprobe
from sampan.linux.netlink import NETLINK_NETFILTER, Message, Netlink
from sampan.linux.nftables import absence_allowed
from sampan.linux.nftsets import InnerVerdicts, InterfaceSet, SourceMap, SubnetSet
from sampan.network import impersonation
from sampan.network import passages as passing
from sampan.network.impersonation import Linked
from sampan.network.passages import Passage

_ICMP: dict[int, int] = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
_LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")


@dataclass(frozen=True, slots=True)
class Zone:
    """A bridge network, as the firewall sees it.

    Attributes:
        bridge: its interface.
        subnet, subnet6: its addresses; None for none of that family.
        icc: its containers may reach each other.
        masquerade: what leaves it gets the host's address.
        internal: nothing leaves or enters it.
        routed: the IP versions by which containers are reached at their own addresses, at published ports.
        unprotected: those by which they are reached there at all ports, but not from other networks.
        sources: the address that what leaves it gets instead of the one of the interface that it leaves by.
    """

    bridge: str
    subnet: ipaddress.IPv4Network | None
    icc: bool
    masquerade: bool
    internal: bool
    subnet6: ipaddress.IPv6Network | None = None
    routed: frozenset[int] = frozenset()
    unprotected: frozenset[int] = frozenset()
    sources: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...] = ()


class Firewall:
    """The tables of one daemon.

    Args:
        name: of the tables.

    Attributes:
        in_place: whether the kernel has taken the table of family ip.
        in_place6: whether the one of family ip6 is there; it is not while no network has IPv6.
        bridge_in_place: whether the one of family bridge is there; it is not while there are no links.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.in_place = False
        self.in_place6 = False
        self.bridge_in_place = False
        self._lock = threading.Lock()
        self._left6 = self._left_bridge = True  # perhaps, by an earlier daemon
        self._table, self._table6 = _Table(name, socket.AF_INET), _Table(name, socket.AF_INET6)

    @property
    def families(self) -> list[int]:
        """Of the tables that are in place."""
        return [
            family
            for family, there in (
                (socket.AF_INET, self.in_place),
                (socket.AF_INET6, self.in_place6),
                (socket.AF_BRIDGE, self.bridge_in_place),
            )
            if there
        ]

    def put(
        self,
        zones: Sequence[Zone],
        published: Callable[[], Sequence[nftmaps.Entry]] = tuple,
        passages: Sequence[Passage] = (),
        linked: Linked | None = None,
    ) -> list[str]:
        """Put the tables in place, whole; returns warnings when they cannot be.

        Args:
            published: tells what is published, so that what is just being published is in it or comes after.
            linked: who the passages are for.
        """
        with self._lock:
            warnings = self._put_bridge(linked) if linked is not None else []
            warnings += self._put(zones, published(), passages)
            if linked is None and self._left_bridge:
                impersonation.drop(self.name)
                self.bridge_in_place = self._left_bridge = False
            return warnings

    def _put_bridge(self, linked: Linked) -> list[str]:
        try:
            impersonation.put(self.name, linked)
        except OSError as error:
            self.bridge_in_place = False
            why = features.lacking("nf_tables_bridge")
            return [
                f"no nftables table of family bridge could be made ({error.strerror}; {why}): who fakes the "
                "address of a linked container reaches what its links open"
            ]
        self.bridge_in_place = self._left_bridge = True
        return []

    def _put(
        self, zones: Sequence[Zone], published: Sequence[nftmaps.Entry], passages: Sequence[Passage]
    ) -> list[str]:
        try:
            self._table.put(zones, published, passages)
        except OSError as error:
            self.in_place = self.in_place6 = False
            why = "; ".join(features.lacking(part) for part in nftprobe.missing())
            return [
                f"no nftables table could be made ({error.strerror}{'; ' + why if why else ''}): containers "
                "have no outbound NAT, are not kept apart from those of other networks and publish no ports"
            ]
        self.in_place = True
        return self._put6(zones, published)

    def _put6(self, zones: Sequence[Zone], published: Sequence[nftmaps.Entry]) -> list[str]:
        if not any(zone.subnet6 for zone in zones):
            if self._left6:
                self._table6.drop()
            self.in_place6 = self._left6 = False
            return []
        try:
            self._table6.put(zones, published)
        except OSError as error:
            self.in_place6 = False
            return [
                f"no nftables table of family ip6 could be made ({error.strerror}): networks have no "
                "IPv6 NAT, are not kept apart by IPv6 and publish no ports there"
            ]
        self.in_place6 = self._left6 = True
        return []

    def add(self, zone: Zone) -> None:
        """Take a network in.

        Raises:
            OSError: what the kernel says; ENOENT when somebody has removed a table, or the network is the
                first one with IPv6: then all is to be `put`.
        """
        if not self.in_place:
            return
        if zone.subnet6 is not None and not self.in_place6:
            raise OSError(errno.ENOENT, "no table of family ip6 yet")
        for table in self._tables():
            table.add(zone)

    def remove(self, zone: Zone) -> None:
        """Let a network go; one that is not there is fine, and a table that is not."""
        for table in self._tables():
            table.remove(zone)

    def publish(self, entries: Sequence[nftmaps.Entry]) -> None:
        """Publish ports, all or none.

        Raises:
            OSError: what the kernel says; ENOENT when somebody has removed the table.
        """
        with self._lock:
            nftmaps.add(self.name, entries)

    def withdraw(self, entries: Sequence[nftmaps.Entry]) -> None:
        """Publish ports no more; those that are not there are fine, and a table that is not."""
        if self.in_place:
            with contextlib.suppress(OSError):  # no table, no elements in it
                nftmaps.delete(self.name, entries)

    def drop(self) -> None:
        """Delete the tables; those that are not there are fine."""
        for table in (self._table, self._table6):
            table.drop()
        impersonation.drop(self.name)
        self.in_place = self.in_place6 = self._left6 = False
        self.bridge_in_place = self._left_bridge = False

    def _tables(self) -> Iterator[_Table]:
        if self.in_place:
            yield self._table
        if self.in_place6:
            yield self._table6


class _Table:
    """The table of one family: `AF_INET` or `AF_INET6`."""

    def __init__(self, name: str, family: int) -> None:
        self.name = name
        self.family = family
        self._bridges = InterfaceSet("bridges", family)
        self._internal = InterfaceSet("internal", family)
        self._routed = InterfaceSet("routed", family)
        self._unprotected = InterfaceSet("unprotected", family)
        self._inner = InnerVerdicts("inner", family)
        self._subnets = SubnetSet("subnets", family)
        self._masqueraded = SubnetSet("masqueraded", family)
        self._sources = SourceMap("sources", family)

    def put(
        self,
        zones: Sequence[Zone],
        published: Sequence[nftmaps.Entry],
        passages: Sequence[Passage] = (),
    ) -> None:
        """Put it in place, whole.

        Raises:
            OSError: what the kernel says.
        """
        maps = nftmaps.published(self.family)
        sets: tuple[InterfaceSet | InnerVerdicts | SubnetSet | SourceMap, ...] = (
            self._bridges,
            self._internal,
            self._routed,
            self._unprotected,
            self._inner,
            self._subnets,
            self._masqueraded,
            self._sources,
        )
        contents = [one.message(self.name, number) for number, one in enumerate((*maps, *sets), 1)]
        contents += self._change(zones, add=True)
        contents += [message for one in maps for message in one.add(self.name, published)]
        contents += passing.contents(self.name, len(contents) + 1, passages)
        nftables.replace_table(self.name, self._chains(passages), tuple(contents), self.family)

    def add(self, zone: Zone) -> None:
        """Take a network in.

        Raises:
            OSError: what the kernel says.
        """
        with Netlink(NETLINK_NETFILTER) as netlink:
            netlink.transact(nftables.batch(list(self._change([zone], add=True))))

    def remove(self, zone: Zone) -> None:
        """Let a network go; one that is not there is fine, and a table that is not."""
        with Netlink(NETLINK_NETFILTER) as netlink:
            for message in self._change([zone], add=False):
                with absence_allowed():
                    netlink.transact(nftables.batch([message]))

    def drop(self) -> None:
        """Delete it; one that is not there is fine."""
        with contextlib.suppress(OSError):  # a kernel without nf_tables has no table of ours either
            nftables.delete_table(self.name, self.family)

    def _change(self, zones: Sequence[Zone], *, add: bool) -> Iterator[Message]:
        """All bridges are in either table: without a subnet of its family, nothing leaves or enters them."""
        bridges = [zone.bridge for zone in zones]
        yield from self._bridges.change(self.name, bridges, add=add)
        internal = [zone.bridge for zone in zones if zone.internal or self._subnet(zone) is None]
        yield from self._internal.change(self.name, internal, add=add)
        version = self._version
        routed = [zone.bridge for zone in zones if version in zone.routed]
        yield from self._routed.change(self.name, routed, add=add)
        unprotected = [zone.bridge for zone in zones if version in zone.unprotected]
        yield from self._unprotected.change(self.name, unprotected, add=add)
        yield from self._inner.change(self.name, [(zone.bridge, zone.icc) for zone in zones], add=add)
        subnets = [subnet for zone in zones if (subnet := self._subnet(zone)) is not None]
        yield from self._subnets.change(self.name, subnets, add=add)
        hidden = [
            (subnet, next((one for one in zone.sources if one.version == version), None))
            for zone in zones
            if (subnet := self._subnet(zone)) is not None
            and zone.masquerade
            and not zone.internal
            and version not in zone.routed
        ]
        masqueraded = [subnet for subnet, source in hidden if source is None]
        yield from self._masqueraded.change(self.name, masqueraded, add=add)
        sources = [(subnet, source) for subnet, source in hidden if source is not None]
        yield from self._sources.change(self.name, sources, add=add)

    @property
    def _version(self) -> int:
        return 4 if self.family == socket.AF_INET else 6

    def _subnet(self, zone: Zone) -> nftables.IPNetwork | None:
        return zone.subnet if self.family == socket.AF_INET else zone.subnet6

    def _chains(self, passages: Sequence[Passage]) -> tuple[nftables.Chain, ...]:
        """The chains, each rule with its reason; with rules for passages only if there are some.

        The destination of what is for a published port is rewritten, both when it arrives (`prerouting`) and
        when the host itself sends it (`output`).
        """
        accept, drop, masquerade = nftables.accept(), nftables.drop(), nftables.masquerade()
        into, out_of = self._bridges.oifname(), self._bridges.iifname()
        dnat = nftables.ct_status_dnat()
        answers = nftables.ct_state(nftables.CT_ESTABLISHED | nftables.CT_RELATED)
        forward = _rules(
            self._internal.iifname(within=False) + into + dnat + accept,  # published ports, also another's
            *passing.rules(passages),
            self._inner.rule(),  # within one network
            self._internal.iifname() + drop,
            self._internal.oifname() + drop,
            into + answers + accept,
            into + nftmaps.AdmissionSet(self.family).rule() + accept,  # published where there is no NAT
            into + nftmaps.AdmissionSet(self.family, trusted=True).rule() + accept,
            self._routed.oifname() + nftables.l4proto(_ICMP[self.family]) + accept,
            self._unprotected.oifname() + self._bridges.iifname(within=False) + accept,
            into + drop,  # neither other networks nor other machines reach what is not published
            out_of + accept,
        )
        # What goes to a published port of ours gets the bridge's address as source where its answers would
        # not come this way: from a container, and from the host's loopback.
        postrouting = [
            self._bridges.oifname(within=False) + self._sources.snat(),
            self._masqueraded.ip_saddr() + self._bridges.oifname(within=False) + masquerade,
            self._subnets.ip_saddr() + into + dnat + masquerade,
        ]
        at, anywhere = nftmaps.maps(self.family)
        redirect = _rules(at.rule(), nftables.fib_daddr_local() + anywhere.rule())
        chains = [
            nftables.Chain("prerouting", "nat", nftables.HOOK_PREROUTING, nftables.PRIORITY_DSTNAT, redirect),
            nftables.Chain("output", "nat", nftables.HOOK_OUTPUT, nftables.PRIORITY_DSTNAT, redirect),
            nftables.Chain("forward", "filter", nftables.HOOK_FORWARD, nftables.PRIORITY_FILTER, forward),
        ]
        if self.family == socket.AF_INET:
            postrouting.append(nftables.ip_saddr(_LOOPBACK) + into + dnat + masquerade)
            # Bridges may route 127.0.0.0/8, for ports published there: containers may not. IPv6 has no such
            # switch: the kernel never lets ::1 through to another interface.
            guard = _rules(out_of + nftables.ip_daddr(_LOOPBACK) + drop)
            chains.insert(
                0,
                nftables.Chain("guard", "filter", nftables.HOOK_PREROUTING, nftables.PRIORITY_RAW, guard),
            )
        last = nftables.HOOK_POSTROUTING, nftables.PRIORITY_SRCNAT
        return (*chains, nftables.Chain("postrouting", "nat", *last, _rules(*postrouting)))


def _rules(*rules: tuple[nftables.Expression, ...]) -> tuple[nftables.Rule, ...]:
    return tuple(nftables.Rule(rule) for rule in rules)
