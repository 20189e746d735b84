"""Firewalls of others that stop what is forwarded from and to containers, and how their owner mends that.

A packet has to pass every table, so what somebody else drops nothing of ours lets through; and a rule of
somebody else's is never touched. So it is told, with the line that mends it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from sampan.linux import nftothers, xtables

_OWN = "sampan-"


def obstacles(bridges: Sequence[str]) -> list[str]:
    """One line for each firewall that forwards nothing of these bridges, as far as its rules show.

    A rule that names a bridge is taken for one that lets it through.

    Raises:
        OSError: nf_tables cannot be asked.
    """
    lines = []
    for chain in nftothers.closed_forward_chains():
        if not chain.table.startswith(_OWN) and (left := _unnamed(chain.interfaces, bridges)):
            where = f"nftables table {chain.family} {chain.table}, chain {chain.name}"
            lines.append(_line(where, left, _remedy(chain, left[0])))
    with contextlib.suppress(OSError):  # without the rights to ask for it
        legacy = xtables.legacy_forward()
        if legacy is not None and legacy.drops:
            left = [bridge for bridge in bridges if not legacy.mentions(bridge)]
            chain_name = "DOCKER-USER" if legacy.mentions("DOCKER-USER") else "FORWARD"
            if left:
                remedy = _iptables("iptables-legacy", chain_name, left[0])
                lines.append(_line("iptables-legacy, chain FORWARD", left, remedy))
    return lines


def _unnamed(interfaces: frozenset[str], bridges: Sequence[str]) -> list[str]:
    beginnings = tuple(name[:-1] for name in interfaces if name.endswith("*"))
    return [
        one for one in bridges if one not in interfaces and not (beginnings and one.startswith(beginnings))
    ]


def _line(where: str, bridges: Sequence[str], remedy: str) -> str:
    others = (
        f" (and so for {', '.join(bridges[1:3])}{', …' if len(bridges) > 3 else ''})" if bridges[1:] else ""
    )
    return (
        f"{where} drops what is forwarded from and to containers: they reach no other machine, and none "
        f"reaches their published ports. Mend it with `{remedy}`{others}"
    )


def _remedy(chain: nftothers.ClosedChain, bridge: str) -> str:
    if chain.table == "firewalld":
        return f"firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload"
    if "ufw-before-forward" in chain.neighbours:
        return f"ufw route allow in on {bridge} && ufw route allow out on {bridge}"
    if (chain.family, chain.table, chain.name) == ("ip", "filter", "FORWARD"):
        return _iptables(
            "iptables", "DOCKER-USER" if "DOCKER-USER" in chain.neighbours else "FORWARD", bridge
        )
    rule = f"nft insert rule {chain.family} {chain.table} {chain.name}"
    return f"{rule} iifname {bridge} accept && {rule} oifname {bridge} accept"


def _iptables(program: str, chain: str, bridge: str) -> str:
    return f"{program} -I {chain} -i {bridge} -j ACCEPT && {program} -I {chain} -o {bridge} -j ACCEPT"
