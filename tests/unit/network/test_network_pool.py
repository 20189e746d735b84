"""Subnets and addresses: what is chosen, and that nothing is handed out twice."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from sampan.errors import Conflict, InvalidParameter, Unavailable
from sampan.network.pool import AddressPool, candidates, choose_subnet, parse_bip


def test_the_first_free_private_subnet_is_chosen() -> None:
    assert choose_subnet([]) == IPv4Network("172.18.0.0/16")
    assert choose_subnet([IPv4Network("172.18.5.0/24")]) == IPv4Network("172.19.0.0/16")
    assert choose_subnet([IPv4Network("172.16.0.0/12")]) == IPv4Network("192.168.0.0/20")
    everything_but_ten = [IPv4Network("172.16.0.0/12"), IPv4Network("192.168.0.0/16")]
    assert choose_subnet(everything_but_ten) == IPv4Network("10.64.0.0/24")


def test_a_vpn_that_routes_everything_does_not_block_the_choice() -> None:
    halves = [IPv4Network("0.0.0.0/1"), IPv4Network("128.0.0.0/1"), IPv4Network("0.0.0.0/0")]
    assert choose_subnet(halves) == IPv4Network("172.18.0.0/16")


def test_without_any_free_subnet_the_user_is_told_to_choose() -> None:
    private = [IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
    with pytest.raises(Unavailable, match="--bip"):
        choose_subnet(private)


def test_every_candidate_is_private() -> None:
    assert all(candidate.is_private for candidate in candidates())


@pytest.mark.parametrize(
    "bip", ["", "10.1.2.1", "10.1.2.1/31", "10.1.2.0/24", "10.1.2.255/24", "x", "::1/64"]
)
def test_a_wrong_bip_is_refused_by_name(bip: str) -> None:
    with pytest.raises(InvalidParameter, match="bip"):
        parse_bip(bip)


def test_a_pool_hands_out_every_host_address_but_the_gateway_once() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/29"), IPv4Address("10.0.0.1"))
    given = [pool.allocate() for _ in range(5)]
    assert given == [IPv4Address(f"10.0.0.{last}") for last in range(2, 7)]
    with pytest.raises(Unavailable, match=r"10\.0\.0\.0/29"):
        pool.allocate()
    assert len(pool) == 5


def test_a_returned_address_is_not_used_again_at_once() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/29"), IPv4Address("10.0.0.1"))
    first = pool.allocate()
    pool.release(first)
    pool.release(first)
    assert [str(pool.allocate()) for _ in range(5)][-1] == str(first)


def test_a_claimed_address_is_taken() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/29"), IPv4Address("10.0.0.1"))
    pool.claim(IPv4Address("10.0.0.3"))
    for taken in ("10.0.0.3", "10.0.0.1", "10.0.0.0", "10.0.0.7", "10.0.1.2"):
        with pytest.raises(Conflict):
            pool.claim(IPv4Address(taken))
    assert str(pool.allocate()) == "10.0.0.4"


def test_the_gateway_cannot_be_given_back() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/30"), IPv4Address("10.0.0.1"))
    pool.release(IPv4Address("10.0.0.1"))
    assert str(pool.allocate()) == "10.0.0.2"
    with pytest.raises(Unavailable):
        pool.allocate()
