"""Names on user-defined networks: containers ask the resolver at 127.0.0.11, upstreams are the test's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import dns.rcode
import pytest

from support.engine import Engine
from support.machine import eventually
from support.names import ask, texts, upstream

Names = Callable[[], str]
Up = Callable[..., str]


def netns(engine: Engine, container: str) -> Path:
    return Path(f"/proc/{engine.api.inspect(container)['State']['Pid']}/ns/net")


def address(engine: Engine, container: str, network: str) -> str:
    found: str = engine.api.inspect(container)["NetworkSettings"]["Networks"][network]["IPAddress"]
    return found


def looked_up(engine: Engine, container: str, name: str) -> str:
    """What busybox's nslookup says."""
    return engine.docker("exec", container, "nslookup", name, code=None).out


def test_names_aliases_ids_and_addresses(engine: Engine, network: Callable[..., str], up: Up) -> None:
    net = network()
    web = up("--network", net)
    db = up("--network", net, "--network-alias", "store", "--hostname", "box")
    there = address(engine, db, net)
    identifier = engine.api.inspect(db)["Id"][:12]
    for name in (db, db.upper(), "store", "box", identifier, f"{db}.{net}", f"store.{net}"):
        assert texts(ask(netns(engine, web), name)) == [there], name
        assert f"Address: {there}" in looked_up(engine, web, name)
    assert f"{db}.{net}" in looked_up(engine, web, there)
    engine.docker("exec", web, "ping", "-c", "1", "-W", "2", "store")
    assert texts(ask(netns(engine, db), web)) == [address(engine, web, net)]
    lines = engine.docker("exec", web, "cat", "/etc/resolv.conf").lines
    assert [line for line in lines if line.startswith("nameserver")] == ["nameserver 127.0.0.11"]
    assert any(line.startswith("options") and "ndots:0" in line for line in lines)


def test_the_default_bridge_has_no_names(engine: Engine, network: Callable[..., str], up: Up) -> None:
    one = up()
    assert "127.0.0.11" not in engine.docker("exec", one, "cat", "/etc/resolv.conf").out
    net = network()
    other = up("--network", net)
    engine.docker("network", "connect", net, one)  # led to the resolver while it runs
    assert "nameserver 127.0.0.11" in engine.docker("exec", one, "cat", "/etc/resolv.conf").out
    assert texts(ask(netns(engine, one), other)) == [address(engine, other, net)]
    assert texts(ask(netns(engine, other), one)) == [address(engine, one, net)]
    engine.docker("network", "disconnect", net, one)
    assert ask(netns(engine, other), one).rcode() != dns.rcode.NOERROR
    engine.docker("rm", "-f", one)


def test_a_file_that_somebody_changed_is_left_alone(
    engine: Engine, network: Callable[..., str], up: Up
) -> None:
    one = up()
    engine.docker("exec", one, "sh", "-c", "echo nameserver 192.0.2.1 > /etc/resolv.conf")
    engine.docker("network", "connect", network(), one)
    assert engine.docker("exec", one, "cat", "/etc/resolv.conf").out == "nameserver 192.0.2.1\n"
    engine.docker("rm", "-f", one)


def test_other_networks_are_unknown(engine: Engine, network: Callable[..., str], up: Up) -> None:
    front, back = network(), network("--internal")
    web, db = up("--network", front, "--dns", "127.0.0.1"), up("--network", back)
    with upstream(netns(engine, web), "127.0.0.1", lambda query, tcp: None) as asked:
        asked.behaviour = lambda query, tcp: None
        engine.docker("network", "connect", back, web)
        assert texts(ask(netns(engine, web), db)) == [address(engine, db, back)]
        assert not asked.questions
        engine.docker("network", "disconnect", back, web)
        with pytest.raises(dns.exception.Timeout):
            ask(netns(engine, web), f"{db}.{back}", timeout_s=0.5)
        assert asked.questions  # nobody here knows it


def test_upstreams_of_ones_own_and_none_on_internal_networks(
    engine: Engine, network: Callable[..., str], up: Up
) -> None:
    net, shut = network(), network("--internal")
    options = ("--dns", "127.0.0.1", "--dns-search", "corp.example", "--dns-option", "timeout:3")
    web, db = up("--network", net, *options), up("--network", shut, *options)
    file = engine.docker("exec", web, "cat", "/etc/resolv.conf").out
    assert "search corp.example\noptions timeout:3 ndots:0\n" in file and "ExtServers: [127.0.0.1]" in file
    with (
        upstream(netns(engine, web), "127.0.0.1") as theirs,
        upstream(netns(engine, db), "127.0.0.1") as none,
    ):
        assert texts(ask(netns(engine, web), "www.example.org")) == ["192.0.2.7"]
        for kind in ("A", "TXT", "MX", "AAAA"):
            assert ask(netns(engine, web), web, kind).rcode() == dns.rcode.NOERROR
        assert theirs.questions == ["www.example.org. A"]
        assert ask(netns(engine, db), "www.example.org").rcode() == dns.rcode.SERVFAIL
        assert ask(netns(engine, db), "www.example.org", tcp=True).rcode() == dns.rcode.SERVFAIL
        assert texts(ask(netns(engine, db), db)) == [address(engine, db, shut)]
        assert none.questions == []


def test_links_and_new_names(engine: Engine, network: Callable[..., str], up: Up, name: Names) -> None:
    net = network()
    db = up("--network", net)
    web = up("--network", net, "--link", f"{db}:store")
    assert texts(ask(netns(engine, web), "store")) == [address(engine, db, net)]
    found = engine.api.inspect(web)
    assert found["HostConfig"]["Links"] is None  # as with Docker: those of its networks are shown there
    assert found["NetworkSettings"]["Networks"][net]["Links"] == [f"{db}:store"]
    renamed = name()
    engine.docker("rename", db, renamed)
    assert texts(ask(netns(engine, web), renamed)) == [address(engine, renamed, net)]
    engine.docker("rm", "-f", renamed)
    assert not texts(ask(netns(engine, web), renamed))


def test_who_shares_a_network_asks_the_same_resolver(
    engine: Engine, network: Callable[..., str], up: Up
) -> None:
    net = network()
    web = up("--network", net)
    guest = up("--network", f"container:{web}")
    assert address(engine, web, net) in looked_up(engine, guest, web)
    engine.docker("rm", "-f", guest)


def test_a_container_may_have_port_53(engine: Engine, network: Callable[..., str], up: Up) -> None:
    net = network()
    web = up("--network", net)
    engine.docker("exec", "-d", web, "nc", "-ll", "-p", "53", "-e", "echo", "mine")
    eventually(lambda: engine.docker("exec", web, "nc", "127.0.0.1", "53", code=None).out == "mine\n")
    assert texts(ask(netns(engine, web), web, tcp=True)) == [address(engine, web, net)]


def test_inspect_tells_the_names(engine: Engine, network: Callable[..., str], up: Up) -> None:
    net = network()
    db = up("--network", net, "--network-alias", "store")
    shown = json.loads(engine.docker("inspect", db).out)[0]["NetworkSettings"]["Networks"][net]
    assert shown["DNSNames"][:2] == [db, "store"]
