"""Egress policies: what containers with one reach, and do not, in a world that the test makes."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator

import dns.rcode
import pytest

from support.engine import Engine
from support.machine import eventually
from support.names import ask, texts
from support.nets import shown
from support.outside import (
    Outside,
    Servers,
    connected,
    echoes,
    netns_of,
    outside,
    reach,
    refusals,
    tcp,
    udp,
)

REFUSED = "Connection refused"

Names = Callable[[], str]
Network = Callable[..., str]
Up = Callable[..., str]


@pytest.fixture(scope="module")
def world() -> Iterator[Outside]:
    with outside() as made:
        yield made


@pytest.fixture
def sandboxed(engine: Engine, name: Names, busybox: str, world: Outside) -> Up:
    """Starts a container with a policy and this world's DNS; its name."""

    def start(policy: str, *options: str) -> str:
        one = name()
        words = ("run", "-d", "--name", one, "--stop-timeout", "0", "--label", f"sampan.egress={policy}")
        engine.docker(*words, "--dns", world.dns, *options, busybox, "sleep", "600")
        return one

    return start


def test_without_a_policy_all_is_open(engine: Engine, world: Outside, up: Up) -> None:
    one = up()
    assert tcp(engine, one, world.addresses[0]) == "" and udp(engine, one, world.addresses[0])


@pytest.mark.parametrize("own_network", [False, True])
def test_deny_lets_nothing_out(
    engine: Engine, world: Outside, sandboxed: Up, network: Network, own_network: bool
) -> None:
    one = sandboxed("deny", *(("--network", network()) if own_network else ()))
    for address in (world.addresses[0], world.PRIVATE):
        assert tcp(engine, one, address) == REFUSED
        assert not udp(engine, one, address)
    before = len(world.questions)
    answer = ask(netns_of(engine, one), "example.com", edns=1232)
    assert answer.rcode() == dns.rcode.NXDOMAIN and "18" in str(answer.options[0].to_text())
    assert len(world.questions) == before


def test_names_open_what_they_are_answered_with(engine: Engine, world: Outside, sandboxed: Up) -> None:
    first, second, third, *_ = world.addresses
    world.zone |= {
        "pypi.org": [f"A {first}"],
        "deb.debian.org": ["CNAME cdn.example.net"],
        "cdn.example.net": [f"A {second}"],
        "evil.org": [f"A {third}"],
    }
    one = sandboxed("allow:pypi.org,*.debian.org:443")
    assert tcp(engine, one, first) == REFUSED  # not before it was asked for
    assert texts(ask(netns_of(engine, one), "PyPI.org")) == [first]
    assert tcp(engine, one, first) == tcp(engine, one, first, 443) == ""
    assert udp(engine, one, first)
    assert texts(ask(netns_of(engine, one), "deb.debian.org", tcp=True)) == ["cdn.example.net.", second]
    assert tcp(engine, one, second, 443) == "" and udp(engine, one, second, 443)
    assert tcp(engine, one, second, 80) == REFUSED
    for name in ("evil.org", "debian.org", "cdn.example.net", "xpypi.org", "pypi.org.evil.org"):
        before = len(world.questions)
        assert ask(netns_of(engine, one), name).rcode() == dns.rcode.NXDOMAIN, name
        assert len(world.questions) == before
    assert tcp(engine, one, third) == REFUSED
    assert ask(netns_of(engine, one), "pypi.org", "AAAA").answer == []
    engine.docker("exec", one, "nslookup", "pypi.org")


def test_addresses_and_networks(engine: Engine, world: Outside, sandboxed: Up) -> None:
    first, second, third, *_ = world.addresses
    one = sandboxed(f"allow:{first},{second}:443,10.0.0.0/8:80-100,10.99.0.0/16:80")
    assert tcp(engine, one, first) == "" and udp(engine, one, first)
    assert tcp(engine, one, second, 443) == "" and tcp(engine, one, second) == REFUSED
    assert tcp(engine, one, world.PRIVATE) == "" and tcp(engine, one, world.PRIVATE, 443) == REFUSED
    assert tcp(engine, one, third) == REFUSED
    assert subprocess.run(
        ["nsenter", f"--net={netns_of(engine, one)}", "busybox", "ping", "-c1", "-W5", first], check=False
    ).returncode == 0  # fmt: skip


def test_neighbours_and_published_ports(
    engine: Engine, world: Outside, sandboxed: Up, network: Network, up: Up
) -> None:
    net = network()
    one = sandboxed("deny", "--network", net, "-p", "8123:80")
    other = up("--network", net)
    own, theirs = (shown(engine, container, net)["IPAddress"] for container in (one, other))
    assert texts(ask(netns_of(engine, one), other)) == [theirs]
    with contextlib.ExitStack() as undo:
        for container, address in ((one, own), (other, theirs)):
            servers = Servers(netns_of(engine, container), [address], (80,), [])
            undo.callback(servers.close)
        assert tcp(engine, one, theirs) == "" and udp(engine, one, theirs)
        assert tcp(engine, other, own) == ""
        assert reach(world.netns, world.router, 8123) == ""  # the answers of a published port get out


def test_a_policy_is_changed_while_a_container_runs(engine: Engine, world: Outside, up: Up) -> None:
    first, second, *_ = world.addresses
    world.zone["later.org"] = [f"A {second}"]
    one = up("--dns", world.dns)
    open_one, kept = connected(engine, one, first), connected(engine, one, second)
    with open_one, kept:
        assert echoes(open_one) and echoes(kept)
        engine.sampan("network", "policy", "set", one, f"allow:{second}")
        assert not echoes(open_one) and echoes(kept)
        assert tcp(engine, one, first) == REFUSED and tcp(engine, one, second) == ""
        engine.sampan("network", "policy", "set", one, "allow:later.org")
        assert not echoes(kept) and tcp(engine, one, second) == REFUSED
    assert "127.0.0.11" in engine.docker("exec", one, "cat", "/etc/resolv.conf").out
    assert texts(ask(netns_of(engine, one), "later.org")) == [second]
    assert tcp(engine, one, second) == ""
    engine.sampan("network", "policy", "set", one, "deny")
    assert tcp(engine, one, second) == REFUSED
    engine.sampan("network", "policy", "set", one, "none")
    assert tcp(engine, one, first) == ""


def test_a_network_has_a_policy(
    engine: Engine, world: Outside, network: Network, up: Up, sandboxed: Up
) -> None:
    first, second, *_ = world.addresses
    world.zone["network.org"] = [f"A {first}"]
    net = network("-o", "sampan.egress=allow:network.org")
    one = up("--network", net, "--dns", world.dns)
    own = sandboxed(f"allow:{second}", "--network", net)
    assert texts(ask(netns_of(engine, one), "network.org")) == [first]
    assert tcp(engine, one, first) == "" and tcp(engine, one, second) == REFUSED
    assert tcp(engine, own, first) == REFUSED and tcp(engine, own, second) == ""
    engine.sampan("network", "policy", "set", net, f"allow:{second}:443")
    assert engine.api.get(f"/networks/{net}")["Options"] == {"sampan.egress": f"allow:{second}:443"}
    assert tcp(engine, one, first) == REFUSED and tcp(engine, one, second, 443) == ""
    assert tcp(engine, own, second) == ""
    assert ask(netns_of(engine, one), "network.org").rcode() == dns.rcode.NXDOMAIN
    engine.sampan("network", "policy", "set", own, "none")  # then the network's
    assert tcp(engine, own, second) == REFUSED and tcp(engine, own, second, 443) == ""
    engine.sampan("network", "policy", "set", net, "none")
    assert tcp(engine, one, first) == "" and engine.api.get(f"/networks/{net}")["Options"] == {}


def test_what_was_refused_is_told(engine: Engine, world: Outside, sandboxed: Up) -> None:
    first = world.addresses[0]
    one = sandboxed("deny")
    assert tcp(engine, one, first, 443) == REFUSED
    ask(netns_of(engine, one), "Secret.Evil.org")
    eventually(
        lambda: (
            refusals(engine, one, lambda it: it["Kind"] == "packet")
            and refusals(engine, one, lambda it: it["Kind"] == "name")
        )
    )
    packet = refusals(engine, one, lambda it: it["Kind"] == "packet")[0]
    assert (packet["Address"], packet["Protocol"], packet["Port"]) == (first, "tcp", 443)
    assert packet["Container"] == one and str(packet["Time"]).endswith("Z")
    assert refusals(engine, one, lambda it: it["Kind"] == "name")[0]["Name"] == "secret.evil.org"
