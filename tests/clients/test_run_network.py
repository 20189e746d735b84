"""`run --network`: the bridge, its addresses and files; host, none, and another container's."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from collections.abc import Callable

from support.cli import Cli
from support.engine import Daemon, Engine
from support.machine import namespace

Names = Callable[[], str]


def addresses(cli: Cli, container: str, link: str = "eth0") -> list[str]:
    lines = cli("exec", container, "ip", "-4", "addr", "show", link).lines
    return [line.split()[1] for line in lines if "inet " in line]


def test_bridge_gives_an_address_and_a_way_out(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "-d", "--name", one, busybox, "sleep", "30")
    shown = engine.api.inspect(one)["NetworkSettings"]["Networks"]["bridge"]
    assert addresses(cli, one) == [f"{shown['IPAddress']}/{shown['IPPrefixLen']}"]
    routes = cli("exec", one, "ip", "route").out
    assert f"default via {shown['Gateway']} dev eth0" in routes
    link = cli("exec", one, "cat", "/sys/class/net/eth0/address").out.strip()
    assert link == shown["MacAddress"]
    cli("exec", one, "ping", "-c", "1", "-W", "2", shown["Gateway"])


def test_two_containers_reach_each_other(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one, other = name(), name()
    cli("run", "-d", "--name", one, busybox, "sleep", "30")
    cli("run", "-d", "--name", other, busybox, "sleep", "30")
    target = engine.api.inspect(other)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    cli("exec", one, "ping", "-c", "1", "-W", "2", target)


def test_addresses_differ_and_lie_in_the_subnet(cli: Cli, daemon: Daemon, name: Names) -> None:
    given = []
    for _ in range(3):
        one = name()
        cli("run", "-d", "--name", one, daemon.busybox, "sleep", "30")
        given.append(daemon.api.inspect(one)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"])
    subnet = ipaddress.ip_interface(daemon.bip).network
    assert len(set(given)) == 3
    assert all(ipaddress.ip_address(one) in subnet for one in given)


def test_bridge_and_masquerade_on_the_host(daemon: Daemon) -> None:
    daemon.docker("run", "--rm", daemon.busybox, "true")
    (link,) = json.loads(subprocess.check_output(["ip", "-j", "-4", "addr", "show", daemon.bridge]))
    (address,) = link["addr_info"]
    assert f"{address['local']}/{address['prefixlen']}" == daemon.bip
    rules = subprocess.check_output(["nft", "list", "ruleset"], text=True)
    assert "masquerade" in rules
    assert str(ipaddress.ip_interface(daemon.bip).network) in rules


def test_none_has_only_loopback(cli: Cli, busybox: str) -> None:
    assert cli("run", "--rm", "--network", "none", busybox, "ls", "/sys/class/net").out.split() == ["lo"]


def test_loopback_is_up(cli: Cli, busybox: str) -> None:
    for network in ("none", "bridge"):
        cli("run", "--rm", "--network", network, busybox, "ping", "-c", "1", "127.0.0.1")


def test_host_is_the_hosts_own(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "-d", "--name", one, "--network", "host", busybox, "sleep", "30")
    assert namespace(engine.api.pid(one), "net") == namespace("self", "net")


def test_another_containers_network(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one, other = name(), name()
    cli("run", "-d", "--name", one, "--hostname", "ship", busybox, "sleep", "30")
    cli("run", "-d", "--name", other, "--network", f"container:{one}", busybox, "sleep", "30")
    assert namespace(engine.api.pid(one), "net") == namespace(engine.api.pid(other), "net")
    assert cli("exec", other, "cat", "/etc/hosts").out == cli("exec", one, "cat", "/etc/hosts").out


def test_network_of_a_stopped_container_is_refused(cli: Cli, busybox: str, name: Names) -> None:
    one = name()
    cli("create", "--name", one, busybox, "true")
    done = cli("run", "--rm", "--network", f"container:{one}", busybox, "true", code=125)
    assert "cannot join network of a non running container" in done.err


def test_hosts_and_resolver_files(cli: Cli, busybox: str) -> None:
    done = cli(
        *("run", "--rm", "--add-host", "buoy:192.0.2.7", "--add-host", "gate:host-gateway"),
        *("--dns", "192.0.2.53", "--dns-search", "sea.test", "--dns-option", "ndots:3"),
        *(busybox, "sh", "-c", "cat /etc/hosts; echo ----; cat /etc/resolv.conf"),
    )
    hosts, _, resolver = done.out.partition("----\n")
    entries = [line.split() for line in hosts.splitlines()]
    assert ["192.0.2.7", "buoy"] in entries
    assert any(entry[1:] == ["gate"] for entry in entries)
    assert ["127.0.0.1", "localhost"] in entries
    lines = [line for line in resolver.splitlines() if line and not line.startswith("#")]
    assert {"nameserver 192.0.2.53", "search sea.test", "options ndots:3"} == set(lines)


def test_mac_address(cli: Cli, busybox: str) -> None:
    mac = "02:42:ac:11:65:43"
    done = cli("run", "--rm", "--mac-address", mac, busybox, "cat", "/sys/class/net/eth0/address")
    assert done.out.strip() == mac
