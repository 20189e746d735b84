"""IPv6 in bridge networks: addresses, routes, the firewall, published ports and names, seen from outside."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.engine import Daemon, Engine
from support.machine import eventually
from support.needs import program
from support.nets import answer, bridge_of, inside, links, pings, shown

Names = Callable[[], str]
Network = Callable[..., str]
pytestmark = [
    program("ip", "iproute2"),
    pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="takes a kernel with IPv6"),
]
SERVE = "while :; do echo $(cat /proc/sys/kernel/hostname) | nc -l -p 80; done"
PEER = (
    "import socket, sys\ns = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)\nprint(s.recv(99))"
)


def addresses6(link: str) -> list[dict[str, Any]]:
    out = subprocess.check_output(["ip", "-j", "-6", "addr", "show", "dev", link], text=True)
    found: list[dict[str, Any]] = json.loads(out)[0]["addr_info"]
    return found


def default6(engine: Engine, container: str) -> list[str]:
    out = json.loads(inside(engine, container, "ip", "-j", "-6", "route", "show", "default").stdout or "[]")
    return [route["gateway"] for route in out]


@pytest.fixture(scope="module")
def lan6() -> Iterator[tuple[str, Callable[..., str]]]:
    """Another machine: our address towards it, and a way to run a command there."""
    link, peer = f"six{os.getpid() % 9999}", f"pee{os.getpid() % 9999}"
    holder = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    try:
        eventually(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != os.readlink("/proc/self/ns/net"))
        far = ["nsenter", "--target", str(holder.pid), "--net"]
        for words in (
            ["ip", "link", "add", link, "type", "veth", "peer", "name", peer, "netns", str(holder.pid)],
            ["ip", "addr", "add", "2001:db8:5::1/64", "dev", link, "nodad"],
            ["ip", "link", "set", link, "up"],
            [*far, "ip", "addr", "add", "2001:db8:5::9/64", "dev", peer, "nodad"],
            [*far, "ip", "link", "set", peer, "up"],
        ):
            subprocess.run(words, check=True)

        def run(*words: str) -> str:
            done = subprocess.run([*far, *words], capture_output=True, text=True, timeout=20, check=False)
            return done.stdout

        yield "2001:db8:5::1", run
    finally:
        holder.kill()
        holder.wait()


def test_what_was_asked_for_is_what_is(engine: Engine, network: Network, up: Callable[..., str]) -> None:
    one = network(
        *("--ipv6", "--subnet", "fd3a:1::/64", "--subnet", "10.232.9.0/24", "--gateway", "fd3a:1::9"),
        *("--ip-range", "fd3a:1::a0/124", "--aux-address", "router=fd3a:1::a0"),
    )
    found = engine.api.get(f"/networks/{one}")
    assert found["EnableIPv6"] and found["EnableIPv4"]
    assert [pool["Subnet"] for pool in found["IPAM"]["Config"]] == ["10.232.9.0/24", "fd3a:1::/64"]
    assert found["IPAM"]["Config"][1]["AuxiliaryAddresses"] == {"router": "fd3a:1::a0"}
    bridge = bridge_of(engine, one)
    held = {entry["local"]: entry for entry in addresses6(bridge)}
    assert set(held) == {"fd3a:1::9", "fe80::1"} and not any(one.get("tentative") for one in held.values())
    container = up("--network", one)
    place = shown(engine, container, one)
    assert place["GlobalIPv6Address"] == "fd3a:1::a1" and place["GlobalIPv6PrefixLen"] == 64
    assert place["IPv6Gateway"] == "fd3a:1::9" and default6(engine, container) == ["fd3a:1::9"]
    (member,) = engine.api.get(f"/networks/{one}")["Containers"].values()
    assert member["IPv6Address"] == "fd3a:1::a1/64"
    hosts = engine.docker("exec", container, "cat", "/etc/hosts").out
    own = engine.api.inspect(container)["Config"]["Hostname"]
    assert f"fd3a:1::a1\t{own}" in hosts
    chosen = up("--network", one, "--ip6", "fd3a:1::77")
    assert shown(engine, chosen, one)["GlobalIPv6Address"] == "fd3a:1::77"
    for address, said in (("fd3a:1::77", "in use"), ("fd3b::1", "no configured subnet"), ("10.1.1.1", "inv")):
        done = engine.docker("run", "--rm", "--network", one, "--ip6", address, engine.busybox, code=None)
        assert done.code == 125 and said in done.err, done.err


def test_without_a_subnet_there_is_one_of_the_daemon_s_own_prefix(engine: Engine, network: Network) -> None:
    subnets = [
        ipaddress.IPv6Network(engine.api.get(f"/networks/{network('--ipv6')}")["IPAM"]["Config"][1]["Subnet"])
        for _ in range(2)
    ]
    assert all(one.prefixlen == 64 and one.subnet_of(ipaddress.IPv6Network("fd00::/8")) for one in subnets)
    assert subnets[0] != subnets[1]
    assert subnets[0].supernet(new_prefix=48) == subnets[1].supernet(new_prefix=48)
    taken = engine.docker("network", "create", "--ipv6", "--subnet", str(subnets[0]), "more", code=None)
    assert taken.code != 0 and "overlaps" in taken.err


def test_peers_meet_and_others_do_not(engine: Engine, network: Network, up: Callable[..., str]) -> None:
    one, other, alone = network("--ipv6"), network("--ipv6"), network("--ipv6", "--internal")
    first, second, apart, within = (
        up("--network", one),
        up("--network", one),
        up("--network", other),
        up("--network", alone),
    )
    target = shown(engine, second, one)["GlobalIPv6Address"]
    assert pings(engine, first, target)
    assert pings(engine, first, shown(engine, first, one)["IPv6Gateway"])
    assert not pings(engine, apart, target, wait="1") and not pings(engine, within, target, wait="1")
    assert shown(engine, within, alone)["IPv6Gateway"] == "" and default6(engine, within) == []
    plain = up("--network", network())
    switch = inside(engine, plain, "cat", "/proc/sys/net/ipv6/conf/eth0/disable_ipv6").stdout
    assert switch.strip() == "1" and "fe80" not in inside(engine, plain, "ip", "-6", "addr").stdout


def test_without_icc_no_container_reaches_another(
    engine: Engine, network: Network, up: Callable[..., str]
) -> None:
    one = network("--ipv6", "-o", "com.docker.network.bridge.enable_icc=false")
    first, second = up("--network", one), up("--network", one)
    assert not pings(engine, first, shown(engine, second, one)["GlobalIPv6Address"], wait="1")
    assert pings(engine, first, shown(engine, first, one)["IPv6Gateway"])


def test_the_world_sees_the_host_and_reaches_what_is_published(
    engine: Engine, network: Network, busybox: str, name: Names, lan6: tuple[str, Callable[..., str]]
) -> None:
    here, far = lan6
    net, one = network("--ipv6"), name()
    engine.docker(
        *("run", "-d", "--name", one, "--hostname", "box", "--network", net, "--stop-timeout", "0"),
        *("-p", "80", busybox, "sh", "-c", SERVE),
    )
    ports = engine.api.inspect(one)["NetworkSettings"]["Ports"]["80/tcp"]
    assert [entry["HostIp"] for entry in ports] == ["0.0.0.0", "::"]
    assert len({entry["HostPort"] for entry in ports}) == 1
    port = int(ports[0]["HostPort"])
    for client in (engine.docker, engine.sampan):
        assert f"0.0.0.0:{port}->80/tcp, [::]:{port}->80/tcp" in client("ps", "--no-trunc").out
        assert client("port", one).out == f"80/tcp -> 0.0.0.0:{port}\n80/tcp -> [::]:{port}\n"
    eventually(lambda: answer(port, here) == b"box\n", what="the host's own address")
    eventually(lambda: answer(port, "127.0.0.1") == b"box\n", what="the loopback of IPv4")
    assert "box" in far("python3", "-c", PEER, here, str(port))
    place = shown(engine, one, net)
    # What is not published is reached by nobody: by a route of its own, past the host's rules.
    target = place["GlobalIPv6Address"]
    far("ip", "-6", "route", "add", target, "via", here)
    assert "bytes from" in far("busybox", "ping", "-c1", "-W5", here)
    assert "bytes from" not in far("busybox", "ping", "-c1", "-W1", target)
    # Another network's container reaches the published port, and a container its own.
    for network_name in (network("--ipv6"), net):
        done = engine.docker(
            "run", "--rm", "--network", network_name, busybox, "nc", here, str(port), code=None
        )
        assert done.out == "box\n", (network_name, done)
    assert inside(engine, one, "python3", "-c", PEER, here, str(port)).stdout == "b'box\\n'\n"
    # Outwards, the world sees the host's address.
    assert pings(engine, one, "2001:db8:5::9")
    engine.docker("rm", "-f", one)
    assert answer(port, here) == b""


def test_at_one_address_of_the_hosts(
    engine: Engine, network: Network, up: Callable[..., str], lan6: tuple[str, Callable[..., str]]
) -> None:
    here, _ = lan6
    one = up("--network", network("--ipv6"), "-p", f"[{here}]::80", "-p", "0.0.0.0::81", "-p", "[::]::82")
    ports = engine.api.inspect(one)["NetworkSettings"]["Ports"]
    assert {port: [place["HostIp"] for place in places] for port, places in ports.items()} == {
        "80/tcp": [here],
        "81/tcp": ["0.0.0.0"],
        "82/tcp": ["::"],
    }
    listing = subprocess.check_output(["nft", "list", "table", "ip6", _table(engine)], text=True)
    assert f"{here} . {ports['80/tcp'][0]['HostPort']}" in listing.replace("tcp . ", "")


def _table(engine: Engine) -> str:
    found = json.loads(subprocess.check_output(["nft", "-j", "list", "tables"], text=True))["nftables"]
    bridge = engine.api.get("/networks/bridge")["Options"]["com.docker.network.bridge.name"]
    (name,) = [
        entry["table"]["name"]
        for entry in found
        if entry.get("table", {}).get("family") == "ip6" and entry["table"]["name"] == f"sampan-{bridge}"
    ]
    return str(name)


def test_names_are_answered_with_both_addresses(
    engine: Engine, network: Network, up: Callable[..., str], busybox: str
) -> None:
    one = network("--ipv6")
    web = up("--network", one)
    place = shown(engine, web, one)
    found = engine.docker("run", "--rm", "--network", one, busybox, "nslookup", web).out
    assert place["GlobalIPv6Address"] in found and place["IPAddress"] in found
    back = engine.docker("run", "--rm", "--network", one, busybox, "nslookup", place["GlobalIPv6Address"]).out
    assert f"{web}.{one}" in back


def test_the_default_routes_follow_priority_and_connections(
    engine: Engine, network: Network, up: Callable[..., str]
) -> None:
    both, four = network("--ipv6"), network()
    one = up("--network", f"name={four},gw-priority=5", "--network", both)
    gateway = shown(engine, one, both)["IPv6Gateway"]
    assert default6(engine, one) == [gateway]  # the one with IPv6, whatever the other's priority
    more = network("--ipv6")
    engine.docker("network", "connect", "--gw-priority", "9", more, one)
    assert default6(engine, one) == [shown(engine, one, more)["IPv6Gateway"]]
    engine.docker("network", "disconnect", more, one)
    assert default6(engine, one) == [gateway]
    engine.docker("network", "disconnect", both, one)
    assert default6(engine, one) == []
    assert gateway not in inside(engine, one, "ip", "-6", "addr").stdout


def test_link_local_addresses_take_a_network_with_ipv6(
    engine: Engine, network: Network, up: Callable[..., str], busybox: str
) -> None:
    one = up("--network", network("--ipv6"), "--link-local-ip", "fe80::55")
    assert "fe80::55/64" in inside(engine, one, "ip", "-6", "addr").stdout
    for net, address in ((network(), "fe80::55"), (network("--ipv6"), "fd00::55")):
        place = ("--network", net, "--link-local-ip", address)
        done = engine.docker("run", "--rm", *place, busybox, "true", code=None)
        assert done.code == 125 and f"invalid link-local IP address: {address}" in done.err


def test_a_network_of_ipv6_alone(
    engine: Engine, network: Network, busybox: str, name: Names, lan6: tuple[str, Callable[..., str]]
) -> None:
    here, far = lan6
    net, one = network("--ipv6", "--ipv4=false"), name()
    found = engine.api.get(f"/networks/{net}")
    assert (found["EnableIPv4"], found["EnableIPv6"]) == (False, True)
    (pool,) = found["IPAM"]["Config"]
    bridge = bridge_of(engine, net)
    assert ":" in pool["Subnet"] and {entry["local"] for entry in addresses6(bridge)} == {
        pool["Gateway"],
        "fe80::1",
    }
    assert "inet " not in subprocess.check_output(["ip", "-4", "addr", "show", "dev", bridge], text=True)
    engine.docker(
        *("run", "-d", "--name", one, "--hostname", "box", "--network", net, "--stop-timeout", "0"),
        *("-p", "80", busybox, "sh", "-c", SERVE),
    )
    place = shown(engine, one, net)
    assert (place["IPAddress"], place["IPPrefixLen"], place["Gateway"]) == ("", 0, "")
    assert "inet 127" in inside(engine, one, "ip", "-4", "addr").stdout
    assert "eth0" not in inside(engine, one, "ip", "-4", "addr").stdout
    assert default6(engine, one) == [pool["Gateway"]]
    ((published),) = engine.api.inspect(one)["NetworkSettings"]["Ports"]["80/tcp"]
    assert published["HostIp"] == "::"
    port = int(published["HostPort"])
    eventually(lambda: answer(port, here) == b"box\n")
    assert "box" in far("python3", "-c", PEER, here, str(port))
    assert pings(engine, one, "2001:db8:5::9")
    peer = engine.docker("run", "--rm", "--network", net, busybox, "nc", one, "80").out
    assert peer == "box\n", "by its name, which has an IPv6 address alone"
    for words, said in (
        (("run", "--rm", "--network", net, "--ip", "10.1.1.1", busybox), "only when connecting to networks"),
        (("run", "--rm", "--network", net, "-p", "127.0.0.1::80", busybox), "network has no IPv4"),
        (("network", "create", "--ipv4=false", "xx"), "IPv4 or IPv6 must be enabled"),
        (
            ("run", "--rm", "--network", net, "--sysctl", "net.ipv6.conf.all.disable_ipv6=1", busybox),
            "has IPv6 alone, which the container switches off",
        ),
    ):
        done = engine.docker(*words, code=None)
        assert done.code != 0 and said in done.err, (words, done.err)


@pytest.mark.parametrize("family", ["--ipv6", "--ipv6=false"])
def test_published_at_the_loopback_of_ipv6(
    engine: Engine, network: Network, busybox: str, name: Names, family: str
) -> None:
    one = name()
    engine.docker(
        *("run", "-d", "--name", one, "--hostname", "box", "--network", network(family)),
        *("--stop-timeout", "0", "-p", "[::1]::80", "-p", "127.0.0.1::80", busybox, "sh", "-c", SERVE),
    )
    ports = engine.api.inspect(one)["NetworkSettings"]["Ports"]["80/tcp"]
    found = {entry["HostIp"]: int(entry["HostPort"]) for entry in ports}
    assert set(found) == {"127.0.0.1", "::1"}
    for address, port in found.items():
        eventually(lambda address=address, port=port: answer(port, address) == b"box\n", what=address)
    engine.docker("rm", "-f", one)
    assert answer(found["::1"], "::1") == b""


ROUTED = "com.docker.network.bridge.gateway_mode_ipv6"


def test_a_routed_network_is_reached_at_published_ports_alone(
    engine: Engine, network: Network, busybox: str, name: Names, lan6: tuple[str, Callable[..., str]]
) -> None:
    here, far = lan6
    one, net = name(), network("--ipv6", "-o", f"{ROUTED}=routed")
    engine.docker(
        *("run", "-d", "--name", one, "--hostname", "box", "--network", net, "--stop-timeout", "0"),
        *("-p", "80:80", busybox, "sh", "-c", f"({SERVE.replace('80', '81')}) & {SERVE}"),
    )
    ports = engine.api.inspect(one)["NetworkSettings"]["Ports"]["80/tcp"]
    assert ports == [{"HostIp": "0.0.0.0", "HostPort": "80"}, {"HostIp": "::", "HostPort": ""}]
    assert "80/tcp, 0.0.0.0:80->80/tcp" in engine.docker("ps", "--no-trunc").out
    target = shown(engine, one, net)["GlobalIPv6Address"]
    far("ip", "-6", "route", "add", target, "via", here)

    def reaches(port: str) -> bool:
        return "box" in far("timeout", "2", "python3", "-c", PEER, target, port)

    eventually(lambda: reaches("80"), what="the published port, at the container's own address")
    eventually(lambda: answer(81, target) == b"box\n", what="the other one is there for the host")
    assert not reaches("81")
    assert "bytes from" in far("busybox", "ping", "-c1", "-W5", target)
    assert answer(80, here) == b"" and answer(80, "127.0.0.1") == b"box\n", "NAT of IPv4 alone"
    other = network("--ipv6")
    for port, said in (("80", "box\n"), ("81", "")):
        words = ("--network", other, busybox, "nc", "-w", "1", target, port)
        assert engine.docker("run", "--rm", *words, code=None).out == said
    # It sends with its own address.
    subprocess.run(["ip", "-6", "route", "get", target], check=True)
    assert pings(engine, one, "2001:db8:5::9"), "the world has a way back"
    far("ip", "-6", "route", "del", target)
    assert not pings(engine, one, "2001:db8:5::9", wait="1"), "it has none without a route"
    engine.docker("rm", "-f", one)
    eventually(  # what counts how often somebody was noted forgets it within seconds
        lambda: target not in subprocess.check_output(["nft", "list", "ruleset"], text=True), 20
    )


def test_the_other_gateway_modes(
    engine: Engine, network: Network, up: Callable[..., str], lan6: tuple[str, Callable[..., str]]
) -> None:
    here, far = lan6
    net = network("--ipv6", "-o", f"{ROUTED}=nat-unprotected")
    one = up("--network", net)
    target = shown(engine, one, net)["GlobalIPv6Address"]
    far("ip", "-6", "route", "add", target, "via", here)
    assert "bytes from" in far("busybox", "ping", "-c1", "-W5", target)
    assert pings(engine, one, "2001:db8:5::9")
    other = up("--network", network("--ipv6"))
    assert not pings(engine, other, target, wait="1")
    four = ROUTED.replace("ipv6", "ipv4")
    alone = network("--ipv6", "--internal", "-o", f"{ROUTED}=isolated", "-o", f"{four}=isolated")
    bridge = bridge_of(engine, alone)
    assert (
        json.loads(subprocess.check_output(["ip", "-j", "addr", "show", "dev", bridge]))[0]["addr_info"] == []
    )
    assert all("Gateway" not in pool for pool in engine.api.get(f"/networks/{alone}")["IPAM"]["Config"])
    first, second = up("--network", alone), up("--network", alone)
    place = shown(engine, second, alone)
    assert pings(engine, first, place["IPAddress"]) and pings(engine, first, place["GlobalIPv6Address"])
    assert (place["Gateway"], place["IPv6Gateway"]) == ("", "")
    for words, said in (
        (("-o", f"{ROUTED}=isolated"), "gateway mode 'isolated' can only be used for an internal network"),
        (("-o", f"{four}=open"), "must be one of nat, nat-unprotected, routed, isolated"),
    ):
        done = engine.docker("network", "create", "--ipv6", *words, "xx", code=None)
        assert done.code != 0 and said in done.err, done.err


def test_a_gateway_that_is_not_the_bridge(engine: Engine, network: Network, up: Callable[..., str]) -> None:
    one = network("-o", "com.docker.network.bridge.inhibit_ipv4=true")
    found = engine.api.get(f"/networks/{one}")
    bridge, gateway = bridge_of(engine, one), found["IPAM"]["Config"][0]["Gateway"]
    box = up("--network", one)
    assert not pings(engine, box, gateway, wait="1")
    assert shown(engine, box, one)["Gateway"] == gateway
    assert f"default via {gateway}" in inside(engine, box, "ip", "route").stdout
    subprocess.run(["ip", "addr", "add", f"{gateway}/16", "dev", bridge], check=True)
    assert pings(engine, box, gateway), "somebody else has put it there"


def test_an_egress_policy_is_not_passed_by_ipv6(
    engine: Engine, network: Network, up: Callable[..., str], lan6: tuple[str, Callable[..., str]]
) -> None:
    here, _ = lan6
    net = network("--ipv6")
    free, held = up("--network", net), up("--network", net, "--label", "sampan.egress=deny")
    gateway = shown(engine, held, net)["IPv6Gateway"]
    for address in (gateway, here, "2001:db8:5::9"):
        assert pings(engine, free, address)
        assert not pings(engine, held, address, wait="1")


def test_sysctls_of_an_interface(engine: Engine, network: Network, up: Callable[..., str]) -> None:
    option = "com.docker.network.endpoint.sysctls"
    words = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2"
    one = up("--network", f'name={network("--ipv6")},"driver-opt={option}={words}"')
    read = [
        inside(engine, one, "cat", f"/proc/sys/net/{path}").stdout.strip()
        for path in ("ipv4/conf/eth0/log_martians", "ipv6/conf/eth0/accept_ra")
    ]
    assert read == ["1", "2"]
    for wrong in ("net.ipv4.ip_forward=1", "kernel.hostname=x", "net.ipv4.conf.IFNAME.../x=1"):
        place = f"name=bridge,driver-opt={option}={wrong}"
        done = engine.docker("run", "--rm", "--network", place, engine.busybox, "true", code=None)
        assert done.code == 125 and "IFNAME" in done.err


def test_a_container_that_switches_ipv6_off_has_no_address(
    engine: Engine, network: Network, up: Callable[..., str], busybox: str
) -> None:
    """As in Docker: else its peers would be told of one that nobody answers at."""
    net = network("--ipv6")
    one = up("--network", net, "--sysctl", "net.ipv6.conf.all.disable_ipv6=1", "--add-host", "six:fd00::6")
    place = shown(engine, one, net)
    assert place["IPAddress"] and (place["GlobalIPv6Address"], place["IPv6Gateway"]) == ("", "")
    assert ":" not in engine.docker("exec", one, "cat", "/etc/hosts").out
    assert inside(engine, one, "ip", "-6", "addr").stdout == ""
    answer = engine.docker("run", "--rm", "--network", net, busybox, "nslookup", f"{one}.", code=None).out
    assert f"Address: {place['IPAddress']}" in answer and "Address: fd" not in answer


def test_all_comes_back(make_daemon: Callable[..., Daemon], lan6: tuple[str, Callable[..., str]]) -> None:
    """A daemon that was killed, a table and an address that somebody has taken away."""
    here, _ = lan6
    daemon = make_daemon().start()
    try:
        daemon.docker("network", "create", "--ipv6", "net6")
        run = ("run", "-d", "--network", "net6", "--stop-timeout", "0")
        daemon.docker(
            *run, "--name", "one", "--hostname", "box", "-p", "80", daemon.busybox, "sh", "-c", SERVE
        )
        port = int(daemon.api.inspect("one")["NetworkSettings"]["Ports"]["80/tcp"][1]["HostPort"])
        daemon.docker("network", "create", "--ipv6", "--ipv4=false", "only6")
        serve = ("--hostname", "box", "-p", f"[::1]:{port + 1}:80", daemon.busybox, "sh", "-c", SERVE)
        daemon.docker(*run[:2], "--network", "only6", "--stop-timeout", "0", "--name", "six", *serve)
        eventually(lambda: answer(port + 1, "::1") == b"box\n")
        address = shown(daemon, "one", "net6")["GlobalIPv6Address"]
        gateway = shown(daemon, "one", "net6")["IPv6Gateway"]
        eventually(lambda: answer(port, here) == b"box\n")
        assert daemon.pid is not None
        daemon.kill9()
        eventually(lambda: answer(port, here) == b"box\n", what="no packet passes the daemon")
        daemon.start()
        assert shown(daemon, "one", "net6")["GlobalIPv6Address"] == address
        eventually(lambda: answer(port, here) == b"box\n")
        daemon.docker(*run, "--name", "two", daemon.busybox, "sleep", "600")
        assert shown(daemon, "two", "net6")["GlobalIPv6Address"] != address
        assert answer(port, "::1") == b"" and answer(port + 1, "::1") == b"box\n", "the proxy has lived on"
        assert pings(daemon, "six", shown(daemon, "six", "only6")["IPv6Gateway"])
        daemon.docker("rm", "-f", "six")
        daemon.docker("network", "rm", "only6")
        bridge = bridge_of(daemon, "net6")
        for words in (
            ["nft", "delete", "table", "ip6", _table(daemon)],
            ["ip", "-6", "addr", "flush", "dev", bridge],
        ):
            subprocess.run(words, check=True)
        daemon.docker(*run, "--name", "three", daemon.busybox, "sleep", "600")
        assert gateway in [entry["local"] for entry in addresses6(bridge)]
        eventually(lambda: answer(port, here) == b"box\n", what="table and address are put back")
        subprocess.run(["ip", "link", "delete", bridge], check=True)
        daemon.docker(*run, "--name", "four", daemon.busybox, "sleep", "600")
        eventually(lambda: answer(port, here) == b"box\n", what="the bridge is put back")
        daemon.docker("rm", "-f", "one", "two", "three", "four")
        daemon.docker("network", "rm", "net6")
        assert bridge not in links()
        table = subprocess.check_output(["nft", "list", "ruleset"], text=True)
        assert gateway not in table and address not in table
    finally:
        daemon.end()


def test_the_default_bridge_has_ipv6_where_it_is_said(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(config='{"ipv6": true, "bip6": "fd3c:7::5/64", "fixed-cidr-v6": "fd3c:7::80/122"}')
    daemon.start()
    try:
        daemon.docker("run", "-d", "--name", "one", "--stop-timeout", "0", daemon.busybox, "sleep", "600")
        place = shown(daemon, "one", "bridge")
        assert (place["IPv6Gateway"], place["GlobalIPv6Address"]) == ("fd3c:7::5", "fd3c:7::80")
        assert daemon.api.get("/networks/bridge")["EnableIPv6"]
        assert pings(daemon, "one", "fd3c:7::5")
        daemon.kill9()
        daemon.start()
        daemon.docker("run", "-d", "--name", "two", "--stop-timeout", "0", daemon.busybox, "sleep", "600")
        assert shown(daemon, "two", "bridge")["GlobalIPv6Address"] == "fd3c:7::81"
        assert pings(daemon, "two", "fd3c:7::80")
        daemon.docker("rm", "-f", "one", "two")
    finally:
        daemon.end()


def test_the_default_bridge_gets_a_subnet_of_its_own_and_loses_it_again(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon(config='{"ipv6": true}').start()
    try:
        subnet = daemon.api.get("/networks/bridge")["IPAM"]["Config"][1]["Subnet"]
        assert ipaddress.IPv6Network(subnet).subnet_of(ipaddress.IPv6Network("fd00::/8"))
        daemon.docker("network", "create", "--ipv6", "more")
        daemon.docker("run", "-d", "--name", "one", "--stop-timeout", "0", daemon.busybox, "sleep", "600")
        daemon.kill9()
        daemon.start()
        assert daemon.api.get("/networks/bridge")["IPAM"]["Config"][1]["Subnet"] == subnet
        daemon.kill9()
        (daemon.base / "daemon.json").write_text("{}")
        daemon.start()  # the container that lives has an address that leads nowhere any more
        switch = f"/proc/sys/net/ipv6/conf/{daemon.bridge}/disable_ipv6"
        with open(switch) as file:
            assert file.read().strip() == "1"
        assert not daemon.api.get("/networks/bridge")["EnableIPv6"]
        daemon.docker("rm", "-f", "one")
        daemon.docker("network", "rm", "more")
    finally:
        daemon.end()
