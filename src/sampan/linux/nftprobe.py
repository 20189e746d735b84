"""Which parts of nf_tables a kernel lacks, found out part by part when a whole table was refused.

Each part is a transaction that makes a table with what is in question and deletes it again at its end: nobody
ever sees it, and the kernel refuses as it would refuse the real one.
"""

from __future__ import annotations

import secrets
import socket

from sampan.linux import nftables
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


def missing() -> dict[str, OSError]:
    """The parts that are refused here, by their feature's name, with the kernel's word."""
    found: dict[str, OSError] = {}
    for feature, chain in _PARTS.items():
        name = f"sampan-probe-{secrets.token_hex(4)}"
        messages = nftables.table_messages(name, (chain,))
        try:
            with Netlink(NETLINK_NETFILTER) as netlink:
                netlink.transact(nftables.batch([*messages, nftables.delete_message(name)]))
        except OSError as error:
            found[feature] = error
            if feature == "nf_tables":
                break  # then nothing else can be there
    return found
