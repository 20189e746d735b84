"""The nf_tables messages of family ip6: what the kernel holds is what was asked for, as `nft` reads it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest

from sampan.linux.nftmaps import Admission, Redirection
from sampan.linux.syscalls import CLONE_NEWNET, unshare
from sampan.linux.threads import in_own_thread
from sampan.network.firewall import Firewall, Zone

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="takes root and nft")

BOTH = Zone("b0", IPv4Network("10.9.0.0/24"), True, True, False, IPv6Network("fd00:9::/64"))
SIX = Zone("b6", None, False, True, False, IPv6Network("fd00:a::/64"))
FOUR = Zone("b4", IPv4Network("10.8.0.0/24"), True, True, True)


@pytest.fixture(scope="module")
def listed() -> Iterator[dict[str, Any]]:
    """What `nft` lists of a firewall in a network namespace of its own, step by step."""
    found: dict[str, Any] = {}

    def listing() -> list[dict[str, Any]]:
        out = subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, timeout=30, check=True)
        everything: list[dict[str, Any]] = json.loads(out.stdout)["nftables"]
        return everything

    def work() -> None:
        unshare(CLONE_NEWNET)
        firewall = Firewall("sampan-test")
        found["four warnings"] = firewall.put([FOUR])
        found["four"] = listing()
        found["both warnings"] = firewall.put(
            [FOUR, BOTH],
            lambda: [
                Redirection("tcp", None, 80, IPv4Address("10.9.0.2"), 8000),
                Redirection("tcp", None, 80, IPv6Address("fd00:9::2"), 8000),
                Redirection("udp", IPv6Address("2001:db8::1"), 53, IPv6Address("fd00:9::2"), 5353),
                Admission("tcp", IPv6Address("fd00:9::2"), 8000, "lan0"),
                Admission("tcp", IPv4Address("10.9.0.2"), 8000),
            ],
        )
        firewall.add(SIX)
        found["both"] = listing()
        firewall.withdraw(
            [
                Redirection("tcp", None, 80, IPv6Address("fd00:9::2"), 8000),
                Admission("tcp", IPv6Address("fd00:9::2"), 8000, "lan0"),
            ]
        )
        firewall.remove(SIX)
        found["less"] = listing()
        firewall.put([FOUR])
        found["four again"] = listing()
        firewall.put([BOTH])
        Firewall("sampan-test").put([FOUR])  # a daemon that was killed has left its table of family ip6
        found["after a crash"] = listing()
        firewall.put([BOTH])
        firewall.drop()
        found["none"] = listing()

    in_own_thread(work)
    yield found


def _families(listing: list[dict[str, Any]]) -> list[str]:
    return sorted(entry["table"]["family"] for entry in listing if "table" in entry)


def _elements(listing: list[dict[str, Any]], family: str, name: str) -> str:
    for entry in listing:
        one = entry.get("set") or entry.get("map") or {}
        if (one.get("family"), one.get("name")) == (family, name):
            return json.dumps(one.get("elem", []))
    raise AssertionError(f"no {family} {name}")


def test_there_is_a_table_of_family_ip6_only_while_a_network_has_ipv6(listed: dict[str, Any]) -> None:
    assert listed["four warnings"] == listed["both warnings"] == []
    assert _families(listed["four"]) == _families(listed["four again"]) == ["ip"]
    assert _families(listed["both"]) == ["ip", "ip6"]
    assert _families(listed["after a crash"]) == ["ip"]
    assert _families(listed["none"]) == []


def test_networks_and_ports_are_elements_of_their_family(listed: dict[str, Any]) -> None:
    both, less = listed["both"], listed["less"]
    assert "fd00:9::" in _elements(both, "ip6", "subnets")
    assert "fd00:a::" in _elements(both, "ip6", "masqueraded")
    assert "10.9.0.0" in _elements(both, "ip", "masqueraded")
    assert "fd00:" not in _elements(both, "ip", "subnets")
    assert "fd00:a::" not in _elements(less, "ip6", "subnets")
    assert "fd00:9::2" in _elements(both, "ip6", "published")
    assert "2001:db8::1" in _elements(both, "ip6", "published-at")
    assert "10.9.0.2" in _elements(less, "ip", "published")
    assert "fd00:9::2" not in _elements(less, "ip6", "published")
    assert "fd00:9::2" in _elements(both, "ip6", "trusted") and _elements(less, "ip6", "trusted") == "[]"
    assert _elements(both, "ip6", "admitted") == _elements(both, "ip", "trusted") == "[]"
    assert "10.9.0.2" in _elements(less, "ip", "admitted")


def test_what_has_no_subnet_of_a_family_is_shut_there(listed: dict[str, Any]) -> None:
    """A container may put addresses and raw frames of its own on a bridge without that family."""
    both = listed["both"]
    less = listed["less"]  # `nft` 1.0.6 does not write interface names out, so that they are counted
    counts = [
        len(json.loads(_elements(some, family, "internal")))
        for some, family in ((both, "ip"), (both, "ip6"), (less, "ip"), (less, "ip6"))
    ]
    assert counts == [2, 1, 1, 1]  # FOUR is internal, and SIX has no IPv4; FOUR has no IPv6
    assert len(json.loads(_elements(both, "ip6", "bridges"))) == 3
