"""nf_tables messages: the bytes that `nft` itself sends for the same rule."""

from __future__ import annotations

from ipaddress import IPv4Network

from sampan.linux import nftables

# `nft --debug=mnl 'add rule ip x c ip saddr 10.1.0.0/20 oifname != "b" masquerade'`, nftables 1.0.6, x86-64
NFT_SENDS = (
    "020000000600010078000000060002006300000018010480340001800c0001007061796c6f6164002400028008000100"
    "000000010800020000000001080003000000000c0800040000000004440001800c000100626974776973650034000280"
    "0800010000000001080002000000000108000300000000040c00048008000100fffff0000c0005800800010000000000"
    "2c00018008000100636d700020000280080001000000000108000200000000000c000380080001000a01000024000180"
    "090001006d6574610000000014000280080002000000000708000100000000013800018008000100636d70002c000280"
    "080001000000000108000200000000011800038014000100620000000000000000000000000000001400018009000100"
    "6d6173710000000004000280"
)


def test_a_masquerade_rule_is_encoded_as_nft_does() -> None:
    subnet = IPv4Network("10.1.0.0/20")
    rule = nftables.Rule(
        nftables.ip_saddr(subnet) + nftables.oifname("b", equal=False) + nftables.masquerade()
    )
    chain = nftables.Chain("c", "nat", nftables.HOOK_POSTROUTING, nftables.PRIORITY_SRCNAT, (rule,))
    assert nftables.table_messages("x", (chain,))[-1].body.hex() == NFT_SENDS


def test_a_transaction_is_enclosed_and_replaces_the_table_whole() -> None:
    kinds = [message.kind & 0xFF for message in nftables.batch(nftables.table_messages("x", ()))]
    assert kinds == [0x10, 0, 2, 0, 0x11]
