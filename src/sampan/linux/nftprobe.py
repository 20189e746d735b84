"""Which parts of nf_tables a kernel lacks, found out part by part when a whole table was refused.

Each part is a transaction that makes a table with what is in question and deletes it again at its end: nobody
ever sees it, and the kernel refuses as it would refuse the real one.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping

from sampan.linux import conntrack, nftables
from sampan.linux.netlink import NETLINK_NETFILTER, Netlink, be32
from sampan.linux.nftables import Chain, Expression, Rule

_NAT_DESTINATION = 1
_NETWORK_HEADER, _IP_DESTINATION_OFFSET, _REGISTER = 1, 16, 1


def _rewrite() -> tuple[Expression, ...]:
    """A rewritten destination, which takes no map: to the address that it has already."""
    load = nftables.expression(
        "payload", be32(1, _REGISTER), be32(2, _NETWORK_HEADER), be32(3, _IP_DESTINATION_OFFSET), be32(4, 4)
    )
    nat = nftables.expression("nat", be32(1, _NAT_DESTINATION), be32(2, socket.AF_INET), be32(3, _REGISTER))
    return (load, nat)


def _chain(kind: str, hook: int, priority: int, *expressions: Expression) -> Chain:
    return Chain("probe", kind, hook, priority, (Rule(expressions),) if expressions else ())


def _mangle(*expressions: Expression) -> Chain:
    """Where egress policies look at what containers send."""
    return _chain("filter", nftables.HOOK_PREROUTING, nftables.PRIORITY_MANGLE, *expressions)


_PARTS = {
    # feature of `features.FEATURES`: the chain that takes it
    "nf_tables": _chain("filter", nftables.HOOK_FORWARD, nftables.PRIORITY_FILTER),
    "nft_ct": _chain(
        "filter", nftables.HOOK_FORWARD, nftables.PRIORITY_FILTER,
        *nftables.ct_state(nftables.CT_ESTABLISHED), *nftables.accept(),
    ),
    "nft_fib": _chain(
        "filter", nftables.HOOK_PREROUTING, nftables.PRIORITY_RAW,
        *nftables.fib_daddr_local(), *nftables.accept(),
    ),
    "nft_nat": _chain("nat", nftables.HOOK_PREROUTING, nftables.PRIORITY_DSTNAT, *_rewrite()),
    "nft_masq": _chain(
        "nat", nftables.HOOK_POSTROUTING, nftables.PRIORITY_SRCNAT, *nftables.masquerade()
    ),
}  # fmt: skip


_EGRESS_PARTS = {
    "nf_tables_bridge": (
        socket.AF_BRIDGE,
        _chain("filter", nftables.HOOK_PREROUTING, nftables.PRIORITY_RAW, *nftables.accept()),
    ),
    "nft_log": (socket.AF_INET, _mangle(*nftables.log_to(0, 0))),
    "nft_reject": (socket.AF_INET, _mangle(*nftables.reject_prohibited())),
}

_EGRESS6_PARTS = {
    "nft_fib_ipv6": (socket.AF_INET6, _mangle(*nftables.fib_daddr_unicast())),
    "nft_reject_ipv6": (socket.AF_INET6, _mangle(*nftables.reject_prohibited(socket.AF_INET6))),
}


def missing() -> dict[str, OSError]:
    """The parts that are refused here, by their feature's name, with the kernel's word."""
    return _refused({feature: (socket.AF_INET, chain) for feature, chain in _PARTS.items()})


def missing_for_egress() -> dict[str, OSError]:
    """As `missing`, of what egress policies take beside."""
    found = _refused(_EGRESS_PARTS)
    try:
        conntrack.flows((), lambda flow: False)
    except OSError as error:
        found["ctnetlink"] = error
    return found


def missing_for_egress6() -> dict[str, OSError]:
    """As `missing`, of what egress policies of containers with IPv6 take beside all that."""
    return _refused(_EGRESS6_PARTS)


def _refused(parts: Mapping[str, tuple[int, Chain]]) -> dict[str, OSError]:
    found: dict[str, OSError] = {}
    for feature, (family, chain) in parts.items():
        name = f"sampan-probe-{secrets.token_hex(4)}"
        messages = nftables.table_messages(name, (chain,), (), family)
        try:
            with Netlink(NETLINK_NETFILTER) as netlink:
                netlink.transact(nftables.batch([*messages, nftables.delete_message(name, family)]))
        except OSError as error:
            found[feature] = error
            if feature == "nf_tables":
                break  # then nothing else can be there
    return found
