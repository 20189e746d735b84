"""Networks of the user's: made, joined, left and removed, seen from outside with ip, nft and nsenter."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from support.cli import Cli
from support.engine import Engine
from support.machine import eventually
from support.nets import default_route, inside, links, pings, routes, shown

Names = Callable[[], str]
Network = Callable[..., str]


def refused(engine: Engine, *words: str) -> str:
    done = engine.docker(*words, code=None)
    assert done.code != 0, words
    return done.err


def test_a_network_comes_and_goes(engine: Engine, name: Names) -> None:
    one = name()
    made = engine.docker("network", "create", "--label", "tier=front", "--attachable", one).out.strip()
    network = engine.api.get(f"/networks/{one}")
    bridge = f"br-{made[:12]}"
    assert network["Id"] == made and network["Driver"] == "bridge" and network["Attachable"]
    assert network["Labels"] == {"tier": "front"} and not network["Internal"]
    (pool,) = network["IPAM"]["Config"]
    (link,) = json.loads(subprocess.check_output(["ip", "-j", "-4", "addr", "show", bridge]))
    assert link["addr_info"][0]["local"] == pool["Gateway"] and "UP" in link["flags"]
    assert pool["Subnet"] in subprocess.check_output(["nft", "list", "ruleset"], text=True)
    assert engine.docker("network", "ls", "-q", "--filter", f"name={one}").out.strip() == made[:12]
    assert engine.docker("network", "rm", one).out.strip() == one
    assert bridge not in links()
    ruleset = subprocess.check_output(["nft", "list", "ruleset"], text=True)
    assert bridge not in ruleset and pool["Subnet"] not in ruleset


def test_what_was_asked_for_is_what_is(engine: Engine, network: Network) -> None:
    options = {
        "com.docker.network.bridge.name": f"own{os.getpid() % 10**6}",
        "com.docker.network.driver.mtu": "1400",
    }
    one = network(
        *("--subnet", "10.232.4.0/24", "--ip-range", "10.232.4.128/25", "--gateway", "10.232.4.9"),
        *("--aux-address", "router=10.232.4.128"),
        *(word for key, value in options.items() for word in ("-o", f"{key}={value}")),
    )  # fmt: skip
    found = engine.api.get(f"/networks/{one}")
    assert found["Options"] == options
    assert found["IPAM"]["Config"] == [
        {
            "Subnet": "10.232.4.0/24",
            "IPRange": "10.232.4.128/25",
            "Gateway": "10.232.4.9",
            "AuxiliaryAddresses": {"router": "10.232.4.128"},
        }
    ]
    name = options["com.docker.network.bridge.name"]
    (link,) = json.loads(subprocess.check_output(["ip", "-j", "addr", "show", name]))
    assert link["mtu"] == 1400
    done = engine.docker("run", "--rm", "--network", one, engine.busybox, "ip", "addr", "show", "eth0")
    assert "mtu 1400" in done.out and "inet 10.232.4.129/24" in done.out


def test_peers_meet_and_others_do_not(engine: Engine, network: Network, up: Callable[..., str]) -> None:
    one, other = network(), network()
    first, second, apart, default = up("--network", one), up("--network", one), up("--network", other), up()
    target = shown(engine, second, one)["IPAddress"]
    assert pings(engine, first, target)
    assert pings(engine, first, shown(engine, first, one)["Gateway"])
    for stranger in (apart, default):
        assert not pings(engine, stranger, target, wait="1")
    assert not pings(engine, first, shown(engine, default, "bridge")["IPAddress"], wait="1")


def test_without_icc_and_internal(engine: Engine, network: Network, up: Callable[..., str]) -> None:
    closed = network("-o", "com.docker.network.bridge.enable_icc=false")
    inner = network("--internal")
    first, second = up("--network", closed), up("--network", closed)
    assert pings(engine, first, shown(engine, first, closed)["Gateway"])
    assert not pings(engine, first, shown(engine, second, closed)["IPAddress"], wait="1")
    third, fourth = up("--network", inner), up("--network", inner)
    assert pings(engine, third, shown(engine, fourth, inner)["IPAddress"])
    assert default_route(engine, third) == "" and shown(engine, third, inner)["Gateway"] == ""
    outside = shown(engine, up(), "bridge")
    inside(
        engine,
        third,
        "ip",
        "route",
        "add",
        "default",
        "via",
        f"{engine.api.get(f'/networks/{inner}')['IPAM']['Config'][0]['Gateway']}",
    )
    assert not pings(engine, third, outside["IPAddress"], wait="1")


def test_several_networks_from_the_start(engine: Engine, network: Network, up: Callable[..., str]) -> None:
    front, back = network("--subnet", "10.232.8.0/24"), network("--subnet", "10.232.9.0/24")
    one = up(
        *("--network", f"name={front},ip=10.232.8.7,alias=ahoy,mac-address=02:42:00:00:00:77"),
        *("--network", f"name={back},gw-priority=5"),
    )
    there, here = shown(engine, one, front), shown(engine, one, back)
    assert there["IPAddress"] == "10.232.8.7" and there["MacAddress"] == "02:42:00:00:00:77"
    assert there["Aliases"] == ["ahoy"] and there["DNSNames"][:2] == [one, "ahoy"]
    assert there["IPAMConfig"] == {"IPv4Address": "10.232.8.7"}
    found = engine.docker(
        "run", "--rm", "--network", f"name={front},link-local-ip=169.254.8.8", engine.busybox, "ip", "addr"
    )
    assert "inet 169.254.8.8/16" in found.out
    assert here["GwPriority"] == 5 and default_route(engine, one) == here["Gateway"] == "10.232.9.1"
    found = {link["ifname"]: link for link in json.loads(inside(engine, one, "ip", "-j", "addr").stdout)}
    assert found["eth0"]["address"] == "02:42:00:00:00:77"
    assert {entry["local"] for link in found.values() for entry in link["addr_info"]} >= {
        "10.232.8.7",
        here["IPAddress"],
    }
    members = engine.api.get(f"/networks/{front}")["Containers"]
    assert [member["Name"] for member in members.values()] == [one]
    hosts = engine.docker("exec", one, "cat", "/etc/hosts").out
    assert f"10.232.8.7\t{engine.api.inspect(one)['Id'][:12]}" in hosts and here["IPAddress"] in hosts


def test_connect_and_disconnect_live(engine: Engine, network: Network, up: Callable[..., str]) -> None:
    first, second = network(), network("--subnet", "10.232.10.0/24")
    one, peer = up("--network", first), up("--network", second)
    gateway = default_route(engine, one)
    engine.docker("network", "connect", "--ip", "10.232.10.40", "--alias", "late", second, one)
    there = shown(engine, one, second)
    assert there["IPAddress"] == "10.232.10.40" and there["Aliases"] == ["late"]
    assert pings(engine, one, shown(engine, peer, second)["IPAddress"])
    assert pings(engine, peer, "10.232.10.40")
    expected = min((first, gateway), (second, "10.232.10.1"))[1]  # of equal priority: the first name
    assert default_route(engine, one) == expected
    assert "10.232.10.40" in engine.docker("exec", one, "cat", "/etc/hosts").out
    assert "already exists in network" in refused(engine, "network", "connect", second, one)
    engine.docker("network", "disconnect", first, one)
    assert default_route(engine, one) == "10.232.10.1"
    assert first not in engine.api.inspect(one)["NetworkSettings"]["Networks"]
    engine.docker("network", "disconnect", second, one)
    assert routes(engine, one) == []
    assert "10.232.10.40" not in engine.docker("exec", one, "cat", "/etc/hosts").out
    assert f"is not connected to the network {second}" in refused(
        engine, "network", "disconnect", second, one
    )
    engine.docker("network", "connect", "bridge", one)
    assert default_route(engine, one) == shown(engine, one, "bridge")["Gateway"]


def test_connected_before_the_start(engine: Engine, network: Network, name: Names, busybox: str) -> None:
    first, second, one = network(), network(), name()
    engine.docker("create", "--name", one, "--network", first, busybox, "sleep", "600")
    engine.docker("network", "connect", second, one)
    engine.docker("network", "disconnect", first, one)
    engine.docker("start", one)
    assert set(engine.api.inspect(one)["NetworkSettings"]["Networks"]) == {second}
    assert default_route(engine, one) == shown(engine, one, second)["Gateway"]
    address = shown(engine, one, second)["IPAddress"]
    engine.docker("stop", "-t", "0", one)
    left = shown(engine, one, second)
    assert left["IPAddress"] == "" and left["NetworkID"]
    engine.docker("start", one)
    assert shown(engine, one, second)["IPAddress"] not in ("", address), "not the same again at once"


def test_an_address_is_free_when_its_container_has_ended(
    engine: Engine, network: Network, up: Callable[..., str]
) -> None:
    one = network("--subnet", "10.232.15.0/30")  # with room for one container
    container = up("--network", one, "--ip", "10.232.15.2")
    for _ in range(3):
        engine.docker("restart", "-t", "0", container)
        assert shown(engine, container, one)["IPAddress"] == "10.232.15.2"
    engine.docker("rm", "-f", container)
    second = up("--network", one, "--ip", "10.232.15.2")
    engine.docker("stop", "-t", "0", second)
    assert shown(engine, up("--network", one), one)["IPAddress"] == "10.232.15.2"
    assert "Address already in use" in refused(engine, "start", second)


def test_published_ports_follow_the_default_route(
    engine: Engine, network: Network, name: Names, busybox: str
) -> None:
    first, second, one = network(), network(), name()
    serve = "while :; do echo ahoy | nc -l -p 80; done"
    engine.docker("run", "-d", "--name", one, "--network", first, "-p", "80", busybox, "sh", "-c", serve)

    def answers() -> bool:
        port = engine.api.inspect(one)["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
        done = subprocess.run(
            ["busybox", "nc", "-w", "2", "127.0.0.1", port], capture_output=True, text=True, check=False
        )
        return done.stdout == "ahoy\n"

    eventually(answers)
    engine.docker("network", "connect", "--gw-priority", "1", second, one)
    eventually(answers)
    engine.docker("network", "disconnect", first, one)
    eventually(answers)


def test_names_addresses_and_drivers_that_cannot_be(
    engine: Engine, network: Network, up: Callable[..., str]
) -> None:
    one = network("--subnet", "10.232.12.0/29")
    first = up("--network", one, "--ip", "10.232.12.3")
    run, true = "run --rm", f"{engine.busybox} true"
    for words, said in (
        (f"network create {one}", f"network with name {one} already exists"),
        ("network create default", "operation is not permitted on predefined default network"),
        ("network create bridge", "operation is not permitted on predefined bridge network"),
        ("network create -d nosuch xx", 'plugin "nosuch" not found'),
        ("network create --subnet 10.232.12.0/24 xx", "Pool overlaps with other one on this address space"),
        ("network create --subnet 10.232.13.1/24 xx", "it should be 10.232.13.0/24"),
        ("network create -o com.docker.network.bridge.colour=red xx", "is none of the bridge driver's"),
        ("network create -o com.docker.network.host_ipv4=::1 xx", "'::1' is no IPv4 address"),
        ("network create -o colour=red xx", "is none of the bridge driver's"),
        ("network create -o com.docker.network.enable_ipv6=perhaps xx", "is not a valid bool"),
        (
            "network create -o com.docker.network.bridge.trusted_host_interfaces=a:b/c xx",
            "'b/c' is not an interface name",
        ),
        ("network create --subnet fd00:1::/129 xx", "invalid"),
        ("network create --ipv6 --subnet fd00:1::1/64 xx", "it should be fd00:1::/64"),
        ("network create --ipv6 --subnet fe80::/64 xx", "link-local"),
        ("network create --ipv6 --subnet fd00:1::/127 xx", "no room"),
        (f"network rm {one}", f'network {one} has active endpoints (name:"{first}"'),
        ("network rm bridge", "bridge is a pre-defined network and cannot be removed"),
        ("network rm nosuch", "network nosuch not found"),
        (f"{run} --network {one} --ip 10.232.12.3 {true}", "Address already in use"),
        (f"{run} --network {one} --ip 10.9.9.9 {true}", "no configured subnet or ip-range contain the IP"),
        (
            f"{run} --ip 10.9.9.9 {true}",
            "user specified IP address is supported on user defined networks only",
        ),
        (f"network connect host {first}", "cannot connect container to host network"),
        (f"network connect none {first}", "private (none) mode"),
    ):
        assert said in refused(engine, *words.split()), words
    assert not [each for each in engine.api.get("/networks") if each["Name"] == "xx"]
    for _ in range(4):
        up("--network", one)
    done = refused(engine, "run", "--rm", "--network", one, engine.busybox, "true")
    assert "no free address is left in subnet 10.232.12.0/29" in done


def test_what_a_network_has_not_is_shown_and_not_used(
    cli: Cli, engine: Engine, name: Names, up: Callable[..., str]
) -> None:
    """IPv6 by an option, a subnet without IPv6, and options of other people's, as in Docker."""
    plain, six = name(), name()
    enable = ("-o", "com.docker.network.enable_ipv6=true", "-o", "com.example.team=x")
    done = cli("network", "create", "--subnet", "fd00:7::1/64", *enable, "--ipv6=false", plain)
    if cli.name == "sampan":
        assert "fd00:7::1/64 is not used: the network has no IPv6 (--ipv6)" in done.err
    cli("network", "create", *enable, six)
    try:
        shape = engine.api.get(f"/networks/{plain}")
        assert not shape["EnableIPv6"] and shape["Options"] == {"com.example.team": "x"}
        assert shape["IPAM"]["Config"][1] == {"Subnet": "fd00:7::1/64"}
        shape = engine.api.get(f"/networks/{six}")
        assert shape["EnableIPv6"] and shape["Options"] == dict(one.split("=") for one in enable[1::2])
        option = "driver-opt=com.example.colour=red"
        one = up("--network", f"name={plain},ip6=fd00:7::9,{option}")
        place = shown(engine, one, plain)
        assert place["DriverOpts"] == {"com.example.colour": "red"} and not place["GlobalIPv6Address"]
        assert place["IPAMConfig"]["IPv6Address"] == "fd00:7::9"
        assert inside(engine, one, "ip", "-6", "addr", "show", "eth0").stdout == ""
        engine.docker("rm", "-f", one)
    finally:
        for one in (plain, six):
            engine.api("DELETE", f"/networks/{one}")


def test_events_tell_of_networks(engine: Engine, name: Names, up: Callable[..., str]) -> None:
    one = name()
    since = str(engine.api.get("/info")["SystemTime"])
    made = engine.docker("network", "create", one).out.strip()
    container = up("--network", one)
    engine.docker("network", "disconnect", one, container)
    engine.docker("network", "connect", one, container)
    engine.docker("rm", "-f", container)
    engine.docker("network", "rm", one)
    until = str(engine.api.get("/info")["SystemTime"])
    which = ("--since", since, "--until", until, "--filter", "type=network", "--filter", f"network={one}")
    lines = engine.docker("events", *which, "--format", "{{json .}}").lines
    told = [json.loads(line) for line in lines]
    actions = [event["Action"] for event in told]
    assert actions == ["create", "connect", "disconnect", "connect", "disconnect", "destroy"]
    assert all(event["Actor"]["ID"] == made for event in told)
    assert told[1]["Actor"]["Attributes"]["name"] == one and told[1]["Actor"]["Attributes"]["container"]


def test_links_on_the_default_bridge(engine: Engine, up: Callable[..., str], busybox: str) -> None:
    target = up("--hostname", "anchor")
    address = shown(engine, target, "bridge")["IPAddress"]
    done = engine.docker("run", "--rm", "--link", f"{target}:db", busybox, "cat", "/etc/hosts")
    assert [address, "db", "anchor", target] in [line.split() for line in done.lines]
    assert "No such container: nosuch" in refused(engine, "create", "--link", "nosuch:x", busybox, "true")
    engine.docker("stop", "-t", "0", target)
    assert "Cannot link to a non running container" in refused(
        engine, "run", "--rm", "--link", f"{target}:db", busybox, "true"
    )


def test_prune_takes_what_nobody_uses(engine: Engine, network: Network, name: Names, busybox: str) -> None:
    used, unused = network("--label", "prune=yes"), network("--label", "prune=yes")
    engine.docker("create", "--name", name(), "--network", used, busybox, "true")
    done = engine.docker("network", "prune", "-f", "--filter", "label=prune=yes")
    assert unused in done.out and used not in done.out


def test_a_network_goes_with_its_last_container(engine: Engine, name: Names, up: Callable[..., str]) -> None:
    for _ in range(3):
        one = name()
        engine.docker("network", "create", one)
        first, second = up("--network", one), up("--network", one)
        engine.docker("rm", "-f", first, second)
        engine.docker("network", "rm", one)


def test_the_command_line(cli: Cli, engine: Engine, name: Names, up: Callable[..., str]) -> None:
    one, other, container = name(), name(), up()
    try:
        made = cli(
            *("network", "create", "--subnet", "10.232.40.0/24", "--gateway", "10.232.40.3", "--internal"),
            *("--ip-range", "10.232.40.64/26", "--aux-address", "buoy=10.232.40.70", "--label", "a=b"),
            *("-o", "com.docker.network.bridge.enable_icc=false", "--attachable", one),
        ).out.strip()
        shown = json.loads(cli("network", "inspect", one).out)[0]
        assert shown["Id"] == made and shown["Internal"] and shown["Attachable"]
        assert shown["Labels"] == {"a": "b"} and shown["IPAM"]["Config"][0]["IPRange"] == "10.232.40.64/26"
        cli("network", "create", other)
        table = cli("network", "ls", "--filter", f"name={one}").lines
        assert table[0].split() == ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]
        assert table[1].split() == [made[:12], one, "bridge", "local"]
        cli(
            "network",
            "connect",
            "--ip",
            "10.232.40.9",
            "--alias",
            "aa,bb",
            "--gw-priority",
            "3",
            one,
            container,
        )
        settings = engine.api.inspect(container)["NetworkSettings"]["Networks"][one]
        assert (settings["IPAddress"], settings["Aliases"]) == ("10.232.40.9", ["aa", "bb"])
        assert settings["GwPriority"] == 3
        bad = cli("network", "rm", one, other, "nosuch", code=1)
        assert bad.lines == [other] and "has active endpoints" in bad.err and "nosuch not found" in bad.err
        cli("network", "disconnect", one, container)
        assert cli("network", "rm", "-f", one, "nosuch").lines == [one]
        for words, said in (
            (("--gateway", "10.1.1.1"), "every ip-range or gateway must have a corresponding subnet"),
            (("--subnet", "10.1.0.0/24", "--gateway", "10.2.1.1"), "no matching subnet for gateway 10.2.1.1"),
            (("--subnet", "10.1.0.0/16", "--subnet", "10.1.1.0/24"), "multiple overlapping subnet"),
            (
                ("--subnet", "10.1.0.0/24", "--aux-address", "a=10.2.1.1"),
                "no matching subnet for aux-address",
            ),
        ):
            assert said in cli("network", "create", *words, one, code=None).err
    finally:
        for network in (one, other):
            engine.api("DELETE", f"/networks/{network}")


def test_many_come_and_go_at_once(engine: Engine, name: Names, busybox: str) -> None:
    eventually(lambda: not any(link.startswith("veth") for link in links()), what="the last test's have gone")
    before = links()
    shared = name()
    engine.docker("network", "create", shared)

    def life(number: int) -> None:
        for turn in range(2):
            network, container = f"{shared}-{number}-{turn}", f"{shared}-c{number}-{turn}"
            engine.docker("network", "create", network)
            options = ("--network", shared, "--stop-timeout", "0", "-p", "80")
            engine.docker("run", "-d", "--name", container, *options, busybox, "sleep", "600")
            engine.docker("network", "connect", network, container)
            engine.docker("network", "disconnect", shared, container)
            assert set(engine.api.inspect(container)["NetworkSettings"]["Networks"]) == {network}
            engine.docker("rm", "-f", container)
            engine.docker("network", "rm", network)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(life, range(4)))
    engine.docker("network", "rm", shared)
    eventually(lambda: links() <= before, what="all links have gone")
