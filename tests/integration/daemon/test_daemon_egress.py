"""Egress policies through the ends of whoever keeps them: the daemon, the resolver, and their tables."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import dns.exception
import dns.rcode

from support.engine import Daemon
from support.machine import alive, eventually
from support.names import ask, texts
from support.outside import Outside, connected, echoes, netns_of, reach, refusals, tcp

REFUSED = "Connection refused"


def up(own: Daemon, world: Outside, name: str, policy: str, *options: str) -> str:
    label = ("--label", f"sampan.egress={policy}") if policy else ()
    words = ("run", "-d", "--name", name, "--stop-timeout", "0", "--dns", world.dns, *label, *options)
    own.docker(*words, own.busybox, "sleep", "600")
    return name


def resolver(own: Daemon) -> int:
    return int(json.loads((own.exec_root / "resolver.json").read_text())["pid"])


def test_a_daemon_that_dies_opens_nothing_and_closes_nothing(own: Daemon, world: Outside) -> None:
    first, second, third, *_ = world.addresses
    six = world.addresses6[:1]  # none on a kernel without IPv6
    world.zone |= {"one.org": [f"A {first}", *(f"AAAA {it}" for it in six)], "two.org": [f"A {second}"]}
    own.docker("network", "create", f"--ipv6={'true' if six else 'false'}", "seas")
    one = up(own, world, "one", "allow:one.org,two.org:80-90", "--network", "seas")
    netns = netns_of(own, one)
    assert texts(ask(netns, "one.org")) == [first]
    assert texts(ask(netns, "one.org", "AAAA")) == six
    kept = connected(own, one, first)
    with kept:
        pid = own.api.pid(one)
        own.kill9()
        reach_there = {address: tcp_of(pid, address) for address in (first, second, third, *six)}
        assert reach_there == {first: "", second: REFUSED, third: REFUSED, **dict.fromkeys(six, "")}
        assert ask(netns, "two.org").rcode() in (dns.rcode.REFUSED, dns.rcode.SERVFAIL)
        before = len(world.questions)
        assert ask(netns, "secret.evil.org").rcode() == dns.rcode.NXDOMAIN and len(world.questions) == before
        assert tcp_of(pid, second) == REFUSED
        own.start()
        assert echoes(kept)
    for address in (first, *six):
        assert tcp(own, one, address) == "", "the next daemon has taken on what was open"
    assert tcp(own, one, second) == REFUSED
    assert texts(ask(netns, "two.org")) == [second] and tcp(own, one, second) == ""
    shown = own.api.get(f"/containers/{one}/egress")
    assert shown["Policy"] == "allow:one.org,two.org:80-90"
    assert {(it["Address"], it["Port"], it["LastPort"]) for it in shown["Open"]} == {
        (first, 0, 0),
        (second, 80, 90),
        *((address, 0, 0) for address in six),
    }
    own.docker("restart", one)
    assert tcp(own, one, first) == REFUSED  # a new run knows no name yet
    assert texts(ask(netns_of(own, one), "one.org")) == [first] and tcp(own, one, first) == ""
    own.docker("rm", "-f", one)
    own.docker("network", "rm", "seas")


def tcp_of(pid: int, address: str) -> str:
    return reach(Path(f"/proc/{pid}/ns/net"), address)


def test_a_resolver_that_dies_is_replaced_by_one_that_keeps_the_policy(own: Daemon, world: Outside) -> None:
    first, second, *_ = world.addresses
    world.zone |= {"alpha.org": [f"A {first}"], "evil.org": [f"A {second}"]}
    one = up(own, world, "one", "allow:alpha.org")
    netns = netns_of(own, one)
    assert texts(ask(netns, "alpha.org")) == [first]
    pid = resolver(own)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not alive(pid))
    assert tcp(own, one, first) == "" and tcp(own, one, second) == REFUSED
    eventually(lambda: resolver(own) != pid and alive(resolver(own)))

    def answered() -> bool:
        try:
            return texts(ask(netns, "alpha.org", timeout_s=1)) == [first]
        except dns.exception.Timeout:
            return False  # it came before the new one's sockets

    eventually(answered)
    before = len(world.questions)
    assert ask(netns, "evil.org").rcode() == dns.rcode.NXDOMAIN and len(world.questions) == before


def test_tables_that_were_flushed_without_a_daemon_are_there_with_the_next(
    own: Daemon, world: Outside
) -> None:
    first, *_ = world.addresses
    one, other = up(own, world, "one", "deny"), up(own, world, "other", "")
    own.kill9()
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    own.start()
    assert tcp(own, one, first) == REFUSED and tcp(own, other, first) == ""
    eventually(lambda: refusals(own, one, lambda it: it["Address"] == first))


def test_policies_end_with_what_has_them(own: Daemon, world: Outside) -> None:
    one = up(own, world, "one", "deny")
    tables = subprocess.check_output(["nft", "list", "tables"], text=True)
    name = f"sampan-{own.bridge}-egress"
    assert f"table ip {name}" in tables and f"table bridge {name}" in tables
    own.docker("rm", "-f", one)

    def elements() -> str:
        return "".join(
            subprocess.check_output(["nft", "list", "table", family, name], text=True)
            for family in ("ip", "bridge")
        )

    eventually(lambda: "elements" not in elements().partition("lately-refused")[2].partition("}")[2])
    other = up(own, world, "other", "")  # with the address of before
    assert tcp(own, other, world.addresses[0]) == ""
    own.docker("rm", "-f", other)
    own.stop()
    assert name not in subprocess.check_output(["nft", "list", "tables"], text=True)
    own.start()


def test_a_container_joins_another_network_with_its_policy(own: Daemon, world: Outside) -> None:
    first, *_ = world.addresses
    own.docker("network", "create", "ahoy")
    own.docker("network", "create", "-o", "sampan.egress=deny", "closed")
    world.zone["beta.org"] = [f"A {first}"]
    own_policy, networks = (
        up(own, world, "one", "allow:beta.org"),
        up(own, world, "two", "", "--network", "closed"),
    )
    own.docker("network", "connect", "ahoy", own_policy)
    own.docker("network", "disconnect", "bridge", own_policy)
    assert tcp(own, own_policy, first) == REFUSED
    assert texts(ask(netns_of(own, own_policy), "beta.org")) == [first] and tcp(own, own_policy, first) == ""
    assert tcp(own, networks, first) == REFUSED
    own.docker("network", "connect", "ahoy", networks)  # which has none, and comes first by its name
    assert tcp(own, networks, first) == ""
    assert texts(ask(netns_of(own, networks), "beta.org")) == [first]
    own.docker("network", "disconnect", "ahoy", networks)
    assert tcp(own, networks, first) == REFUSED
    assert ask(netns_of(own, networks), "beta.org").rcode() == dns.rcode.NXDOMAIN
    own.docker("rm", "-f", own_policy, networks)
    own.docker("network", "rm", "ahoy", "closed")


def test_without_tables_there_is_no_policy(make_daemon: Callable[..., Daemon]) -> None:
    bare = make_daemon("--iptables=false").start()
    try:
        done = bare.docker("run", "--label", "sampan.egress=deny", bare.busybox, "true", code=125)
        assert "egress policies cannot be enforced" in done.err and "--iptables=false" in done.err
        assert all(one["State"] == "created" for one in bare.api.containers())
    finally:
        bare.end()
