"""Ways out of an egress policy, tried with all the rights that a container can have in its own namespace."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import pytest

from support.engine import Engine
from support.machine import eventually
from support.names import ask, inside, reply, texts, upstream
from support.nets import shown
from support.outside import Outside, Servers, ip, netns_of, reach, refusals, tcp, udp
from support.packets import ETH_P_IP, datagram, frame, frames

pytestmark = pytest.mark.root
REFUSED = "Connection refused"

Names = Callable[[], str]
Start = Callable[..., str]


def test_no_other_name_server_and_no_other_protocol(engine: Engine, world: Outside, start: Start) -> None:
    one = start("allow:pypi.org")
    world.zone["pypi.org"] = [f"A {world.addresses[1]}"]
    with upstream(world.netns, world.addresses[0], lambda query, tcp: reply(query, "9.9.9.9")) as other:
        for over_tcp in (False, True):
            send = dns.query.tcp if over_tcp else dns.query.udp
            query = dns.message.make_query("pypi.org", "A")
            with pytest.raises((OSError, dns.exception.Timeout)):
                inside(
                    netns_of(engine, one),
                    lambda send=send, query=query: send(query, world.addresses[0], timeout=0.5),
                )
        assert other.questions == []
    done = subprocess.run(
        ["nsenter", f"--net={netns_of(engine, one)}", "busybox", "ping", "-c1", "-W1", world.addresses[0]],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0


def test_a_port_by_proxy_is_no_way_around_a_policy(engine: Engine, world: Outside, start: Start) -> None:
    proxied = ("--label", "sampan.publish-mode=proxy")
    open_, closed = start("", *proxied, "-p", "8127:80"), start("deny", *proxied, "-p", "8128:80")
    named = start(f"allow:{world.router}:8127")
    with contextlib.ExitStack() as undo:
        for container in (open_, closed):
            own = shown(engine, container, "bridge")["IPAddress"]
            undo.callback(Servers(netns_of(engine, container), [own], (80,), world.seen).close)
        for port in (8127, 8128):  # who is policed answers those who come by its port
            assert reach(world.netns, world.router, port) == ""
        gateway = shown(engine, closed, "bridge")["Gateway"]
        for there in (world.router, gateway):
            assert tcp(engine, closed, there, 8127) == REFUSED
            assert not udp(engine, closed, there, 8127)
        assert tcp(engine, named, world.router, 8127) == ""
        assert tcp(engine, named, world.router, 8128) == REFUSED


def test_the_host_is_outside(engine: Engine, world: Outside, start: Start, net: str) -> None:
    gateway = engine.api.get(f"/networks/{net}")["IPAM"]["Config"][0]["Gateway"]
    subnet = engine.api.get(f"/networks/{net}")["IPAM"]["Config"][0]["Subnet"]
    closed = start(f"allow:{subnet},{world.router}/32".replace(".1/32", ".0/24"), "--network", net)
    named = start(f"allow:{gateway}:8123,{world.router}:8123", "--network", net)
    other = start("", "-p", "8124:80")
    with contextlib.ExitStack() as undo:
        undo.callback(Servers(None, [gateway, world.router], (8123, 8125), world.seen).close)
        address = shown(engine, other, "bridge")["IPAddress"]
        undo.callback(Servers(netns_of(engine, other), [address], (80,), []).close)
        assert reach(world.netns, world.router, 8124) == ""
        for there in (gateway, world.router):
            assert tcp(engine, closed, there, 8123) == REFUSED
            assert not udp(engine, closed, there, 8123)
            assert tcp(engine, named, there, 8123) == "" and udp(engine, named, there, 8123)
            for port in (8124, 8125):
                assert tcp(engine, named, there, port) == REFUSED
                assert tcp(engine, closed, there, port) == REFUSED
        before = len(world.seen)
        frames(
            engine,
            closed,
            *(
                frame("ff:ff:ff:ff:ff:ff", shown(engine, closed, net)["MacAddress"], ETH_P_IP, packet)
                for packet in (
                    datagram(shown(engine, closed, net)["IPAddress"], there, b"to all", 8123)
                    for there in ("255.255.255.255", gateway, "224.0.0.1")
                )
            ),
        )
        assert tcp(engine, named, gateway, 8123) == "" and len(world.seen) == before


def test_a_neighbour_that_routes_is_no_way_out(
    engine: Engine, world: Outside, start: Start, net: str
) -> None:
    one, other = start("deny", "--network", net), start("", "--network", net)
    inside(netns_of(engine, other), lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
    ip(engine, one, "route", "replace", "default", "via", shown(engine, other, net)["IPAddress"])
    assert tcp(engine, one, world.addresses[0]) == REFUSED
    assert not udp(engine, one, world.addresses[0])
    assert tcp(engine, other, world.addresses[0]) == ""


def test_names_do_not_lead_into_private_places(engine: Engine, world: Outside, start: Start) -> None:
    public, gateway = world.addresses[0], shown(engine, start(""), "bridge")["Gateway"]
    one = start("allow:*.rebind.org,*:443,10.99.0.0/24:80")
    for number, records in enumerate(
        (["A 127.0.0.1"], [f"A {gateway}"], ["A 169.254.169.254"], ["A 10.98.0.2"], ["A 0.0.0.0"],
         [f"A {public}", "A 192.168.1.1"], ["CNAME inner.org"], ["A 224.0.0.251"])
    ):  # fmt: skip
        name = f"n{number}.rebind.org"
        world.zone |= {name: records, "inner.org": ["A 10.0.0.1"]}
        answer = ask(netns_of(engine, one), name)
        assert answer.rcode() == dns.rcode.REFUSED and not answer.answer, records
        eventually(
            lambda name=name: refusals(engine, one, lambda it: (it["Kind"], it["Name"]) == ("answer", name))
        )
    assert tcp(engine, one, public) == REFUSED  # also where the answer had it beside a private one
    world.zone["inside.rebind.org"] = [f"A {world.PRIVATE}"]  # which the policy has
    assert texts(ask(netns_of(engine, one), "inside.rebind.org")) == [world.PRIVATE]
    assert tcp(engine, one, world.PRIVATE) == "" and tcp(engine, one, world.PRIVATE, 443) == REFUSED


def test_a_name_does_not_open_the_host(engine: Engine, world: Outside, start: Start) -> None:
    one = start("allow:self.org")
    world.zone["self.org"] = [f"A {world.router}"]  # the host's own address, a public one
    ask(netns_of(engine, one), "self.org")
    servers = Servers(None, [world.router], (8126,), [])
    try:
        assert tcp(engine, one, world.router, 8126) == REFUSED
    finally:
        servers.close()


def test_what_one_is_answered_opens_nothing_for_others(engine: Engine, world: Outside, start: Start) -> None:
    first, second = start("allow:shared.org"), start("allow:shared.org")
    world.zone["shared.org"] = [f"A {world.addresses[2]}"]
    ask(netns_of(engine, first), "shared.org")
    assert tcp(engine, first, world.addresses[2]) == ""
    assert tcp(engine, second, world.addresses[2]) == REFUSED


def table(engine: Engine, container: str) -> str:
    """The name of the tables that hold a container's policy."""
    listed = json.loads(subprocess.check_output(["nft", "-j", "list", "tables"]))["nftables"]
    names = {one["table"]["name"] for one in listed if one.get("table", {}).get("family") == "bridge"}
    (found,) = (
        one
        for one in names
        if shown(engine, container, "bridge")["IPAddress"]
        in subprocess.check_output(["nft", "list", "table", "ip", one], text=True)
    )
    return str(found)


@pytest.mark.parametrize(("ttl", "lowest", "highest"), [(0, 60, 90), (2**31 - 1, 3600, 3630)])
def test_how_long_an_answer_is_good_has_bounds(
    engine: Engine, world: Outside, start: Start, ttl: int, lowest: int, highest: int
) -> None:
    one = start(f"allow:ttl{ttl}.org")
    world.zone[f"ttl{ttl}.org"] = [f"A {world.addresses[3]}"]
    world.ttl = ttl
    try:
        answer = ask(netns_of(engine, one), f"ttl{ttl}.org")
    finally:
        world.ttl = 300
    assert answer.answer[0].ttl == min(ttl, 3600)
    listed = json.loads(
        subprocess.check_output(["nft", "-j", "list", "set", "ip", table(engine, one), "named"])
    )
    own = shown(engine, one, "bridge")["IPAddress"]
    (found,) = (
        one["elem"]["timeout"]
        for one in listed["nftables"][1]["set"]["elem"]
        if one["elem"]["val"]["concat"] == [own, world.addresses[3]]
    )
    assert lowest <= found <= highest


def test_nothing_gets_out_in_a_question(engine: Engine, world: Outside, start: Start) -> None:
    one = start("allow:good.org,*.below.org")
    before = list(world.questions)
    for name in ("secret.evil.org", "below.org", "xgood.org", "good.org.evil", "secret.good.org"):
        for kind in ("A", "AAAA", "TXT", "MX", "ANY", "NS"):
            assert ask(netns_of(engine, one), name, kind).rcode() == dns.rcode.NXDOMAIN
        assert ask(netns_of(engine, one), name, tcp=True).rcode() == dns.rcode.NXDOMAIN
    odd = dns.message.make_query("secret.evil.org", "TXT", "CH")
    answer = inside(netns_of(engine, one), lambda: dns.query.udp(odd, "127.0.0.11", timeout=10))
    assert answer.rcode() == dns.rcode.NXDOMAIN
    reverse = ask(netns_of(engine, one), "4.4.8.8.in-addr.arpa", "PTR")
    assert reverse.rcode() == dns.rcode.NXDOMAIN
    assert world.questions == before


@pytest.mark.parametrize(
    "attack",
    [
        "flush ruleset",
        "delete table bridge {0}",
        "flush chain ip {0} egress",
        "insert rule ip {0} egress accept",
        "flush set ip {0} policed",
        "add chain ip {0} more {{ type filter hook forward priority 0; }}",
        "add element ip {0} named {{ {1} . {2} timeout 1h }}",
    ],
)
def test_who_changes_the_tables_finds_them_put_back(
    engine: Engine, world: Outside, start: Start, attack: str
) -> None:
    kept = world.addresses[1]
    world.zone["kept.org"] = [f"A {kept}"]
    one = start("allow:kept.org")
    ask(netns_of(engine, one), "kept.org")
    name, own = table(engine, one), shown(engine, one, "bridge")["IPAddress"]
    eventually(lambda: f"elements = {{ {own} }}" in described(name), what="those of earlier tests have left")
    before = described(name)
    subprocess.run(["nft", attack.format(name, own, world.addresses[0])], check=True)
    eventually(lambda: described(name) == before, what="the tables are as they were")
    assert tcp(engine, one, world.addresses[0]) == REFUSED
    assert "changed by somebody: put back" in engine.log_text()
    if "ruleset" not in attack:  # with which NAT has gone too, until the next start
        assert tcp(engine, one, kept) == ""


def described(name: str) -> list[str]:
    """Both tables, without the numbers that differ from time to time."""
    found = []
    for family in ("ip", "bridge"):
        done = subprocess.run(
            ["nft", "list", "table", family, name], capture_output=True, text=True, check=False
        )
        plain = re.sub(r"timeout \w+ expires \w+", "", done.stdout)
        plain = re.sub(r"set lately-refused \{.*?\n\t\}\n", "", plain, flags=re.DOTALL)
        found += sorted(line.strip() for line in plain.splitlines())
    return found


def test_nothing_is_open_at_the_first_moment(
    engine: Engine, world: Outside, name: Names, busybox: str
) -> None:
    script = f"for n in 1 2; do ping -c1 -W1 {world.addresses[0]} && echo got; done"
    words = ("run", "-d", "--name", one := name(), "--label", "sampan.egress=deny")
    engine.docker(*words, busybox, "sh", "-c", script)
    for _ in range(3):
        engine.docker("wait", one)
        engine.docker("start", one)
    engine.docker("wait", one)
    assert "got" not in engine.docker("logs", one).out
    eventually(lambda: len(refusals(engine, one, lambda it: it["Protocol"] == "icmp")) == 8)


def test_names_do_not_lead_into_private_places_by_ipv6(
    engine: Engine, world: Outside, start: Start, net: str, name: Names
) -> None:
    six = name()
    engine.docker("network", "create", "--ipv6", six)
    one, without = (
        start("allow:*.rebind.org", "--network", six),
        start("allow:*.rebind.org", "--network", net),
    )
    for number, address in enumerate(("::1", "fd00::1", "fe80::1", "::ffff:10.0.0.1", "64:ff9b::a00:1")):
        world.zone[f"s{number}.rebind.org"] = [f"AAAA {address}"]
        answer = ask(netns_of(engine, one), f"s{number}.rebind.org", "AAAA")
        assert answer.rcode() == dns.rcode.REFUSED and not answer.answer, address
    world.zone["t.rebind.org"] = [f"AAAA {world.addresses6[0]}"]
    assert texts(ask(netns_of(engine, one), "t.rebind.org", "AAAA")) == [world.addresses6[0]]
    assert ask(netns_of(engine, without), "t.rebind.org", "AAAA").answer == [], "it has no IPv6"
    engine.docker("rm", "-f", one)
    engine.docker("network", "rm", six)


def test_a_network_without_a_bridge_takes_no_policy(engine: Engine, name: Names, busybox: str) -> None:
    net, one = name(), name()
    engine.docker("network", "create", "-d", "macvlan", "--internal", net)
    words = "an egress policy is kept at the ports of a bridge"
    policy = ("--label", "sampan.egress=deny")
    try:
        done = engine.docker("create", *policy, "--network", net, busybox, "true", code=1)
        assert words in done.err
        engine.docker("create", "--name", one, *policy, busybox, "sleep", "600")
        done = engine.docker("network", "connect", net, one, code=None)
        started = engine.docker("start", one, code=None)
        assert words in done.err + started.err and not engine.api.inspect(one)["State"]["Running"]
        engine.docker("rm", one)
        engine.docker(
            "run", "-d", "--name", one, "--stop-timeout", "0", "--network", net, busybox, "sleep", "600"
        )
        assert words in engine.api("PUT", f"/containers/{one}/egress", {"Policy": "deny"}).message
        assert words in engine.api("PUT", f"/networks/{net}/egress", {"Policy": "deny"}).message
        assert engine.docker("network", "create", "-d", "macvlan", "-o", policy[1], name(), code=1).err
    finally:
        engine.docker("rm", "-f", one)
        engine.docker("network", "rm", net)
