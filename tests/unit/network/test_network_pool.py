"""Subnets and addresses: what is chosen, and that nothing is handed out twice."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from sampan.errors import Conflict, InvalidParameter, Unavailable
from sampan.network import AddressPool, NetworkSpec
from sampan.network.pool import AddressPool as Addresses
from sampan.network.pool import parse_bip
from sampan.network.subnets import DEFAULT_POOLS, check, choose, gateway_of


def test_the_first_free_private_subnet_is_chosen() -> None:
    assert choose(DEFAULT_POOLS, []) == IPv4Network("172.18.0.0/16")
    assert choose(DEFAULT_POOLS, [IPv4Network("172.18.5.0/24")]) == IPv4Network("172.19.0.0/16")
    assert choose(DEFAULT_POOLS, [IPv4Network("172.16.0.0/12")]) == IPv4Network("192.168.0.0/20")
    everything_but_ten = [IPv4Network("172.16.0.0/12"), IPv4Network("192.168.0.0/16")]
    assert choose(DEFAULT_POOLS, everything_but_ten) == IPv4Network("10.64.0.0/24")


def test_a_vpn_that_routes_everything_does_not_block_the_choice() -> None:
    halves = [IPv4Network("0.0.0.0/1"), IPv4Network("128.0.0.0/1"), IPv4Network("0.0.0.0/0")]
    assert choose(DEFAULT_POOLS, halves) == IPv4Network("172.18.0.0/16")


def test_without_any_free_subnet_docker_s_words_are_said() -> None:
    private = [IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
    with pytest.raises(InvalidParameter, match="all predefined address pools have been fully subnetted"):
        choose(DEFAULT_POOLS, private)


def test_thousands_of_subnets_are_found_and_used_again() -> None:
    pools = [AddressPool("10.96.0.0/12", 28)]
    used = [choose(pools, [])]
    for _ in range(300):
        used.append(choose(pools, used))
    assert len(set(used)) == 301 and all(one.prefixlen == 28 for one in used)
    gone = used.pop(17)
    assert choose(pools, used) == gone
    everything = list(IPv4Network("10.96.0.0/14").subnets(new_prefix=28))
    assert choose(pools, everything) == IPv4Network("10.100.0.0/28")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"subnet": "10.0.0.0"}, "invalid subnet 10.0.0.0: invalid CIDR block notation"),
        ({"subnet": "10.0.0.1/24"}, "invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24"),
        ({"ip_range": "10.0.0.0/24"}, "invalid subnet : invalid CIDR block notation"),
        ({"subnet": "10.0.0.0/24", "ip_range": "10.0.0.0/16"}, "CIDR block is bigger than its parent subnet"),
        ({"subnet": "10.0.0.0/24", "ip_range": "10.0.1.0/25"}, "doesn't contain ip-range"),
        ({"subnet": "10.0.0.0/24", "gateway": "10.0.1.1"}, "doesn't contain this address"),
        ({"subnet": "10.0.0.0/24", "gateway": "::1"}, "parent subnet is an IPv4 block"),
        ({"subnet": "10.0.0.0/24", "gateway": "x"}, "invalid gateway x: invalid address"),
        ({"subnet": "10.0.0.0/24", "aux_addresses": {"a": "x"}}, "invalid auxiliary address a: invalid"),
        ({"subnet": "10.0.0.0/31"}, "no room for containers"),
    ],
)
def test_addresses_that_cannot_be_are_refused(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        check(NetworkSpec("ahoy", **spec))
    assert said in refused.value.message


def test_the_gateway_is_the_first_that_is_no_other_s() -> None:
    spec = NetworkSpec("ahoy", subnet="10.0.0.0/24", aux_addresses={"a": "10.0.0.1", "b": "10.0.0.2"})
    assert gateway_of(spec, IPv4Network("10.0.0.0/24")) == IPv4Address("10.0.0.3")


def test_a_range_is_chosen_from_and_all_of_the_subnet_can_be_claimed() -> None:
    pool = Addresses(
        IPv4Network("10.0.0.0/24"), IPv4Address("10.0.0.1"), IPv4Network("10.0.0.128/30"),
        [IPv4Address("10.0.0.129")],
    )  # fmt: skip
    pool.claim(IPv4Address("10.0.0.7"), move_on=False)
    assert [str(pool.allocate()) for _ in range(3)] == ["10.0.0.128", "10.0.0.130", "10.0.0.131"]
    with pytest.raises(Unavailable):
        pool.allocate()
    pool.release(IPv4Address("10.0.0.130"))
    pool.release(IPv4Address("10.0.0.129"))
    assert str(pool.allocate()) == "10.0.0.130" and len(pool) == 4


@pytest.mark.parametrize(
    "bip", ["", "10.1.2.1", "10.1.2.1/31", "10.1.2.0/24", "10.1.2.255/24", "x", "::1/64"]
)
def test_a_wrong_bip_is_refused_by_name(bip: str) -> None:
    with pytest.raises(InvalidParameter, match="bip"):
        parse_bip(bip)


def test_a_pool_hands_out_every_host_address_but_the_gateway_once() -> None:
    pool = Addresses(IPv4Network("10.0.0.0/29"), IPv4Address("10.0.0.1"))
    given = [pool.allocate() for _ in range(5)]
    assert given == [IPv4Address(f"10.0.0.{last}") for last in range(2, 7)]
    with pytest.raises(Unavailable, match=r"10\.0\.0\.0/29"):
        pool.allocate()
    assert len(pool) == 5


def test_a_returned_address_is_not_used_again_at_once() -> None:
    pool = Addresses(IPv4Network("10.0.0.0/29"), IPv4Address("10.0.0.1"))
    first = pool.allocate()
    pool.release(first)
    pool.release(first)
    assert [str(pool.allocate()) for _ in range(5)][-1] == str(first)


def test_a_claimed_address_is_taken() -> None:
    pool = Addresses(IPv4Network("10.0.0.0/29"), IPv4Address("10.0.0.1"))
    pool.claim(IPv4Address("10.0.0.3"))
    for taken in ("10.0.0.3", "10.0.0.1", "10.0.0.0", "10.0.0.7", "10.0.1.2"):
        with pytest.raises(Conflict):
            pool.claim(IPv4Address(taken))
    assert str(pool.allocate()) == "10.0.0.4"


def test_the_gateway_cannot_be_given_back() -> None:
    pool = Addresses(IPv4Network("10.0.0.0/30"), IPv4Address("10.0.0.1"))
    pool.release(IPv4Address("10.0.0.1"))
    assert str(pool.allocate()) == "10.0.0.2"
    with pytest.raises(Unavailable):
        pool.allocate()
