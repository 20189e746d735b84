"""Firewalls of others that stop what is forwarded from and to containers, and how their owner mends that.

A packet has to pass every table, so what somebody else drops nothing of ours lets through; and a rule of
somebody else's is never touched. So it is told, with the line that mends it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence, Set

from sampan.dataclasses import dataclass
from sampan.linux import nftothers, xtables

_OWN = "sampan-"
_VERSIONS = {"ip": {4}, "ip6": {6}, "inet": {4, 6}}
_BY = {"ip": "", "inet": "", "ip6": " by IPv6"}


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A bridge, and by which IP versions something is forwarded from and to it."""

    bridge: str
    versions: frozenset[int]


def obstacles(bridges: Sequence[Forwarded]) -> list[str]:
    """One line for each firewall that forwards nothing of these bridges, as far as its rules show.

    A rule that names a bridge is taken for one that lets it through.

    Raises:
        OSError: nf_tables cannot be asked.
    """
    lines = []
    for chain in nftothers.closed_forward_chains():
        if not chain.table.startswith(_OWN) and (
            left := _unnamed(chain.interfaces, _of(bridges, _VERSIONS[chain.family]))
        ):
            where = f"nftables table {chain.family} {chain.table}, chain {chain.name}"
            lines.append(_line(where, left, _remedy(chain, left[0]), _BY[chain.family]))
    for version, program in ((4, "iptables-legacy"), (6, "ip6tables-legacy")):
        with contextlib.suppress(OSError):  # without the rights to ask for it
            legacy = xtables.legacy_forward(version)
            if legacy is not None and legacy.drops:
                left = [one for one in _of(bridges, {version}) if not legacy.mentions(one)]
                chain_name = "DOCKER-USER" if legacy.mentions("DOCKER-USER") else "FORWARD"
                if left:
                    remedy = _iptables(program, chain_name, left[0])
                    by = _BY["ip6" if version == 6 else "ip"]
                    lines.append(_line(f"{program}, chain FORWARD", left, remedy, by))
    return lines


def _of(bridges: Sequence[Forwarded], versions: Set[int]) -> list[str]:
    return [one.bridge for one in bridges if one.versions & versions]


def _unnamed(interfaces: frozenset[str], bridges: Sequence[str]) -> list[str]:
    beginnings = tuple(name[:-1] for name in interfaces if name.endswith("*"))
    return [
        one for one in bridges if one not in interfaces and not (beginnings and one.startswith(beginnings))
    ]


def _line(where: str, bridges: Sequence[str], remedy: str, by: str) -> str:
    others = (
        f" (and so for {', '.join(bridges[1:3])}{', …' if len(bridges) > 3 else ''})" if bridges[1:] else ""
    )
    return (
        f"{where} drops what is forwarded{by} from and to containers: they reach no other machine, and none "
        f"reaches their published ports. Mend it with `{remedy}`{others}"
    )


def _remedy(chain: nftothers.ClosedChain, bridge: str) -> str:
    if chain.table == "firewalld":
        return f"firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload"
    if {"ufw-before-forward", "ufw6-before-forward"} & chain.neighbours:
        return f"ufw route allow in on {bridge} && ufw route allow out on {bridge}"
    program = {"ip": "iptables", "ip6": "ip6tables"}.get(chain.family)
    if program and (chain.table, chain.name) == ("filter", "FORWARD"):
        return _iptables(program, "DOCKER-USER" if "DOCKER-USER" in chain.neighbours else "FORWARD", bridge)
    rule = f"nft insert rule {chain.family} {chain.table} {chain.name}"
    return f"{rule} iifname {bridge} accept && {rule} oifname {bridge} accept"


def _iptables(program: str, chain: str, bridge: str) -> str:
    return f"{program} -I {chain} -i {bridge} -j ACCEPT && {program} -I {chain} -o {bridge} -j ACCEPT"
