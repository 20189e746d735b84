"""Our own nftables table: one for all bridge networks of a daemon, however many there are.

The table `sampan-<default bridge>` (family ip) is ours alone, and no other table is ever touched. That has a
limit which nf_tables sets: a packet must pass every table's base chain, so a DROP policy that somebody else's
forward chain has (ufw, firewalld, Docker) still drops, whatever ours accepts; `put` warns about one.

Its rules never change: networks are elements of its sets, published ports elements of its maps. So a packet
costs the same among a thousand networks, and a network comes and goes as one small transaction.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sampan.linux import features, nftables, nftmaps, nftprobe
from sampan.linux.netlink import NETLINK_NETFILTER, Message, Netlink
from sampan.linux.nftsets import InnerVerdicts, InterfaceSet, SubnetSet

_LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")
_BRIDGES = InterfaceSet("bridges")
_INTERNAL = InterfaceSet("internal")
_INNER = InnerVerdicts("inner")
_SUBNETS = SubnetSet("subnets")
_MASQUERADED = SubnetSet("masqueraded")
_SETS: tuple[InterfaceSet | InnerVerdicts | SubnetSet, ...] = (
    _BRIDGES, _INTERNAL, _INNER, _SUBNETS, _MASQUERADED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Zone:
    """A bridge network, as the firewall sees it.

    Attributes:
        bridge: its interface.
        icc: its containers may reach each other.
        masquerade: what leaves it gets the host's address.
        internal: nothing leaves or enters it.
    """

    bridge: str
    subnet: ipaddress.IPv4Network
    icc: bool
    masquerade: bool
    internal: bool


class Firewall:
    """The table of one daemon.

    Args:
        name: of the table.

    Attributes:
        in_place: whether the kernel has taken it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.in_place = False

    def put(self, zones: Sequence[Zone], published: Sequence[nftmaps.Redirection] = ()) -> list[str]:
        """Put the table in place, whole; returns warnings when it cannot be or cannot suffice."""
        contents = [one.message(self.name, number) for number, one in enumerate(nftmaps.MAPS, 1)]
        contents += [one.message(self.name, number) for number, one in enumerate(_SETS, len(contents) + 1)]
        contents += self._change(zones, add=True)
        contents += [message for one in nftmaps.MAPS for message in one.add(self.name, published)]
        try:
            nftables.replace_table(self.name, _chains(), tuple(contents))
            others = nftables.dropping_forward_chains()
        except OSError as error:
            self.in_place = False
            why = "; ".join(features.lacking(part) for part in nftprobe.missing())
            return [
                f"no nftables table could be made ({error.strerror}{'; ' + why if why else ''}): containers "
                "have no outbound NAT, are not kept apart from those of other networks and publish no ports"
            ]
        self.in_place = True
        return [
            f"nftables table {chain.table} drops forwarded packets by default (chain {chain.name}): allow "
            f"interfaces {', '.join(zone.bridge for zone in zones[:3])}{', …' if len(zones) > 3 else ''} "
            "there if containers cannot reach other machines"
            for chain in others
        ]

    def add(self, zone: Zone) -> None:
        """Take a network in.

        Raises:
            OSError: what the kernel says; ENOENT when somebody has removed the table.
        """
        if self.in_place:
            with Netlink(NETLINK_NETFILTER) as netlink:
                netlink.transact(nftables.batch(list(self._change([zone], add=True))))

    def remove(self, zone: Zone) -> None:
        """Let a network go; one that is not there is fine, and a table that is not."""
        if not self.in_place:
            return
        with Netlink(NETLINK_NETFILTER) as netlink:
            for message in self._change([zone], add=False):
                with _absence_allowed():
                    netlink.transact(nftables.batch([message]))

    def publish(self, redirections: Sequence[nftmaps.Redirection]) -> None:
        """Publish ports, all or none.

        Raises:
            OSError: what the kernel says; ENOENT when somebody has removed the table.
        """
        nftmaps.add(self.name, redirections)

    def withdraw(self, redirections: Sequence[nftmaps.Redirection]) -> None:
        """Publish ports no more; those that are not there are fine, and a table that is not."""
        if self.in_place:
            with contextlib.suppress(OSError):  # no table, no elements in it
                nftmaps.delete(self.name, redirections)

    def drop(self) -> None:
        """Delete the table; one that is not there is fine."""
        with contextlib.suppress(OSError):  # a kernel without nf_tables has no table of ours either
            nftables.delete_table(self.name)
        self.in_place = False

    def _change(self, zones: Sequence[Zone], *, add: bool) -> Iterator[Message]:
        bridges = [zone.bridge for zone in zones]
        yield from _BRIDGES.change(self.name, bridges, add=add)
        internal = [zone.bridge for zone in zones if zone.internal]
        yield from _INTERNAL.change(self.name, internal, add=add)
        yield from _INNER.change(self.name, [(zone.bridge, zone.icc) for zone in zones], add=add)
        yield from _SUBNETS.change(self.name, [zone.subnet for zone in zones], add=add)
        masqueraded = [zone.subnet for zone in zones if zone.masquerade and not zone.internal]
        yield from _MASQUERADED.change(self.name, masqueraded, add=add)


@contextlib.contextmanager
def _absence_allowed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def _rules(*rules: tuple[nftables.Expression, ...]) -> tuple[nftables.Rule, ...]:
    return tuple(nftables.Rule(rule) for rule in rules)


def _chains() -> tuple[nftables.Chain, ...]:
    """The chains, each rule with its reason.

    The destination of what is for a published port is rewritten, both when it arrives (`prerouting`) and when
    the host itself sends it (`output`).
    """
    accept, drop, masquerade = nftables.accept(), nftables.drop(), nftables.masquerade()
    into, out_of = _BRIDGES.oifname(), _BRIDGES.iifname()
    dnat = nftables.ct_status_dnat()
    answers = nftables.ct_state(nftables.CT_ESTABLISHED | nftables.CT_RELATED)
    forward = _rules(
        _INTERNAL.iifname(within=False) + into + dnat + accept,  # published ports, also another network's
        _INNER.rule(),  # within one network
        _INTERNAL.iifname() + drop,
        _INTERNAL.oifname() + drop,
        into + answers + accept,
        into + drop,  # neither other networks nor other machines reach what is not published
        out_of + accept,
    )
    # What goes to a published port of ours gets the bridge's address as source where its answers would not
    # come this way: from a container, and from the host's loopback.
    postrouting = _rules(
        _MASQUERADED.ip_saddr() + _BRIDGES.oifname(within=False) + masquerade,
        _SUBNETS.ip_saddr() + into + dnat + masquerade,
        nftables.ip_saddr(_LOOPBACK) + into + dnat + masquerade,
    )
    at, anywhere = nftmaps.MAPS
    redirect = _rules(at.rule(), nftables.fib_daddr_local() + anywhere.rule())
    # Bridges may route 127.0.0.0/8, for ports published there: containers may not.
    guard = _rules(out_of + nftables.ip_daddr(_LOOPBACK) + drop)
    return (
        nftables.Chain("guard", "filter", nftables.HOOK_PREROUTING, nftables.PRIORITY_RAW, guard),
        nftables.Chain("prerouting", "nat", nftables.HOOK_PREROUTING, nftables.PRIORITY_DSTNAT, redirect),
        nftables.Chain("output", "nat", nftables.HOOK_OUTPUT, nftables.PRIORITY_DSTNAT, redirect),
        nftables.Chain("forward", "filter", nftables.HOOK_FORWARD, nftables.PRIORITY_FILTER, forward),
        nftables.Chain(
            "postrouting", "nat", nftables.HOOK_POSTROUTING, nftables.PRIORITY_SRCNAT, postrouting
        ),
    )
