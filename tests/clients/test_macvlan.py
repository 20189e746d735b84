"""Networks of the drivers macvlan and ipvlan: containers on a wire of the test's, beside the host."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sampan.network.bridge import supports
from support.engine import Daemon, Engine
from support.machine import eventually
from support.needs import program
from support.nets import default_route, inside, links, pings, shown

Names = Callable[[], str]
Network = Callable[..., str]
pytestmark = [
    program("ip", "iproute2"),
    pytest.mark.skipif(os.geteuid() != 0 or not supports("macvlan"), reason="takes macvlan"),
]
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Wire:
    """A link of the host's, and what is at its other end: a machine that is the subnet's gateway."""

    parent: str
    octet: int
    far: tuple[str, ...]

    @property
    def subnet(self) -> str:
        return f"10.228.{self.octet}.0/24"

    @property
    def gateway(self) -> str:
        return f"10.228.{self.octet}.1"

    def options(self, *more: str) -> tuple[str, ...]:
        return ("-d", "macvlan", "--subnet", self.subnet, "-o", f"parent={self.parent}", *more)


@pytest.fixture
def wire() -> Iterator[Wire]:
    number = next(_NUMBERS)
    parent, peer = f"w{os.getpid() % 99999}{number}", f"x{os.getpid() % 99999}{number}"
    holder = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    try:
        eventually(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != os.readlink("/proc/self/ns/net"))
        far = ("nsenter", "--target", str(holder.pid), "--net")
        for words in (
            ("ip", "link", "add", parent, "type", "veth", "peer", "name", peer, "netns", str(holder.pid)),
            ("ip", "link", "set", parent, "up"),
            (*far, "ip", "addr", "add", f"10.228.{number}.1/24", "dev", peer),
            (*far, "ip", "addr", "add", "2001:db8:6::1/64", "dev", peer, "nodad"),
            (*far, "ip", "link", "set", peer, "up"),
        ):
            subprocess.run(words, check=True)
        yield Wire(parent, number, far)
    finally:
        holder.kill()
        holder.wait()
        subprocess.run(["ip", "link", "delete", parent], check=False, capture_output=True)


def detail(engine: Engine, container: str) -> dict[str, Any]:
    found = json.loads(inside(engine, container, "ip", "-j", "-d", "link", "show", "eth0").stdout)
    return dict(found[0])


def test_containers_are_on_the_wire_and_not_at_the_host(
    engine: Engine, network: Network, up: Callable[..., str], wire: Wire
) -> None:
    before = links()
    one = network(*wire.options("--gateway", wire.gateway, "--ipv6", "--subnet", "2001:db8:6::/64"))
    made = engine.api.get(f"/networks/{one}")
    assert made["Driver"] == "macvlan" and made["Options"] == {"parent": wire.parent}
    assert links() == before, "nothing is made for a network itself"
    first, second = up("--network", one), up("--network", one, "--mac-address", "02:42:0a:00:00:77")
    link = detail(engine, first)
    assert link["linkinfo"]["info_kind"] == "macvlan" and link["linkinfo"]["info_data"]["mode"] == "bridge"
    assert detail(engine, second)["address"] == "02:42:0a:00:00:77"
    place = shown(engine, first, one)
    assert place["Gateway"] == default_route(engine, first) == wire.gateway
    assert link["address"] == place["MacAddress"]
    assert pings(engine, first, wire.gateway) and pings(engine, first, "2001:db8:6::1")
    assert pings(engine, first, shown(engine, second, one)["IPAddress"])
    target = shown(engine, first, one)["GlobalIPv6Address"]
    assert pings(engine, second, target)
    seen = subprocess.run(
        [*wire.far, "busybox", "ping", "-c1", "-W5", place["IPAddress"]], capture_output=True, check=False
    )
    assert seen.returncode == 0, "the world reaches it without the host"
    assert links() == before, "no interface at the host's side"
    found = engine.docker("exec", first, "nslookup", second).out
    assert shown(engine, second, one)["IPAddress"] in found


def test_live_connections_restarts_and_removal(
    engine: Engine, network: Network, up: Callable[..., str], wire: Wire
) -> None:
    one = network(*wire.options())
    box = up()
    engine.docker("network", "connect", "--ip", f"10.228.{wire.octet}.50", one, box)
    assert "eth1" in inside(engine, box, "ip", "link").stdout
    assert pings(engine, box, wire.gateway)
    engine.docker("network", "disconnect", one, box)
    assert "eth1" not in inside(engine, box, "ip", "link").stdout
    fixed = up("--network", one, "--ip", f"10.228.{wire.octet}.50", "--mac-address", "02:42:0a:00:00:78")
    for _ in range(3):  # the same MAC address on the same parent, at once
        engine.docker("restart", "-t", "0", fixed)
        assert detail(engine, fixed)["address"] == "02:42:0a:00:00:78"
    assert pings(engine, fixed, wire.gateway)
    done = engine.docker("network", "rm", one, code=None)
    assert done.code != 0 and "has active endpoints" in done.err
    engine.docker("rm", "-f", fixed)
    engine.docker("network", "rm", one)
    engine.docker("network", "create", *wire.options(), one)
    assert wire.parent in links(), "the parent is the host's own"


def test_modes(engine: Engine, network: Network, up: Callable[..., str], wire: Wire) -> None:
    alone = network(*wire.options("-o", "macvlan_mode=private"))
    first, second = up("--network", alone), up("--network", alone)
    assert detail(engine, first)["linkinfo"]["info_data"]["mode"] == "private"
    assert pings(engine, first, wire.gateway)
    assert not pings(engine, first, shown(engine, second, alone)["IPAddress"], wait="1")
    subnet = ("--subnet", "10.228.200.0/24", "-o", f"parent={wire.parent}")
    refused = engine.docker(
        "network", "create", "-d", "macvlan", *subnet, "-o", "macvlan_mode=passthru", "xx", code=None
    )
    assert f"is already using parent interface {wire.parent}" in refused.err
    engine.docker("rm", "-f", first, second)
    engine.docker("network", "rm", alone)
    engine.docker("network", "create", *wire.options("-o", "macvlan_mode=passthru"), alone)
    only = up("--network", alone)
    assert detail(engine, only)["linkinfo"]["info_data"]["mode"] == "passthru"
    parent = json.loads(subprocess.check_output(["ip", "-j", "link", "show", wire.parent]))[0]["address"]
    assert detail(engine, only)["address"] == shown(engine, only, alone)["MacAddress"] == parent
    refused = engine.docker("network", "create", "-d", "macvlan", *subnet, "xx", code=None)
    assert "in mode passthru" in refused.err
    assert engine.docker("run", "--rm", "--network", alone, engine.busybox, "true", code=None).code == 125
    assert pings(engine, only, wire.gateway), "who came too late has taken nothing away"


def test_without_a_parent_it_is_a_wire_of_its_own(
    engine: Engine, network: Network, up: Callable[..., str]
) -> None:
    one = network("-d", "macvlan")
    found = engine.api.get(f"/networks/{one}")
    assert found["Internal"]
    own = {f"dm-{found['Id'][:12]}", f"dn-{found['Id'][:12]}"}
    assert own <= links()
    first, second = up("--network", one), up("--network", one)
    assert pings(engine, first, shown(engine, second, one)["IPAddress"])
    assert default_route(engine, first) == ""
    engine.docker("rm", "-f", first, second)
    engine.docker("network", "rm", one)
    assert not own & links()
    engine.docker("network", "create", one)


def test_several_subnets(engine: Engine, network: Network, up: Callable[..., str], wire: Wire) -> None:
    third = "10.229.77.0/24"
    subnets = ("--subnet", "10.229.76.0/30", "--subnet", third, "--gateway", "10.229.77.9", "--ipv6")
    more = ("--subnet", "2001:db8:7::/64", "--subnet", "2001:db8:8::/64")
    one = network("-d", "macvlan", "-o", f"parent={wire.parent}", *subnets, *more)
    body = engine.api.get(f"/networks/{one}")
    # docker's client sends them in an order of its own, which changes.
    pools = sorted(body["IPAM"]["Config"], key=lambda pool: (":" in pool["Subnet"], pool["Subnet"]))
    assert [pool["Subnet"] for pool in pools] == ["10.229.76.0/30", third, *more[1::2]]
    assert [pool["Gateway"] for pool in pools][:2] == ["10.229.76.1", "10.229.77.9"]
    engine.docker("network", "rm", one)
    body["IPAM"]["Config"] = pools
    again = {key: body[key] for key in ("Name", "Driver", "EnableIPv6", "Options", "IPAM")}
    assert engine.api("POST", "/networks/create", again).status == 201
    first = up("--network", one)
    place = shown(engine, first, one)
    assert (place["IPAddress"], place["IPPrefixLen"], place["Gateway"]) == ("10.229.76.2", 30, "10.229.76.1")
    second = up("--network", one)  # the first subnet is full
    place = shown(engine, second, one)
    assert (place["IPAddress"], place["IPPrefixLen"], place["Gateway"]) == ("10.229.77.1", 24, "10.229.77.9")
    assert default_route(engine, second) == "10.229.77.9"
    chosen = up("--network", one, "--ip", "10.229.77.50", "--ip6", "2001:db8:8::50")
    place = shown(engine, chosen, one)
    assert (place["IPAddress"], place["GlobalIPv6Address"]) == ("10.229.77.50", "2001:db8:8::50")
    assert pings(engine, second, "10.229.77.50")
    engine.docker("rm", "-f", first)
    again = up("--network", one, "--ip", "10.229.76.2")  # who asks for none need not wait until it is free
    assert shown(engine, again, one)["IPAddress"] == "10.229.76.2"
    for words, said in (
        (("-d", "macvlan", "-o", f"parent={wire.parent}", "--subnet", third), "Pool overlaps"),
        (("--subnet", "10.229.78.0/24", "--subnet", "10.229.79.0/24"), "doesn't support multiple subnets"),
    ):
        done = engine.docker("network", "create", *words, "xx", code=None)
        assert done.code != 0 and said in done.err, done.err


def test_what_cannot_be(engine: Engine, up: Callable[..., str], network: Network, wire: Wire) -> None:
    parent = f"parent={wire.parent}"
    for words, said in (
        (("-d", "macvlan", "-o", "parent=lo"), "loopback interface is not a valid macvlan parent link"),
        (("-d", "macvlan", "-o", parent, "-o", "macvlan_mode=loud"), "unknown macvlan mode 'loud'"),
        (("-d", "macvlan", "-o", "parent=nosuch9"), "no interface nosuch9"),
        (("-d", "macvlan", "-o", "parent=nosuch9.10"), "failed to find master interface nosuch9"),
        (("-d", "macvlan", "-o", parent, "-o", "ipvlan_mode=l2"), "none of the macvlan driver's"),
        (
            ("-d", "macvlan", "-o", parent, "-o", "com.docker.network.bridge.name=b"),
            "none of the macvlan driver's",
        ),
        (("-o", parent), "none of the bridge driver's"),
        (("-d", "ipvlan", "-o", parent, "-o", "ipvlan_mode=l4"), "unknown ipvlan mode 'l4'"),
        (("-d", "macvlan", "-o", parent, "-o", "sampan.egress=deny"), "none of the macvlan driver's"),
    ):
        done = engine.docker("network", "create", *words, "xx", code=None)
        assert done.code != 0 and said in done.err, (words, done.err)
    assert not [each for each in engine.api.get("/networks") if each["Name"] == "xx"]
    one = network(*wire.options())
    done = engine.docker(
        "run", "--rm", "--label", "sampan.egress=deny", "--network", one, engine.busybox, code=None
    )
    assert done.code == 125 and "holds in networks of driver bridge alone" in done.err
    # Docker has nothing between a container on the wire and the world, and publishes nothing.
    published = up("--network", one, "-p", "80")
    assert not engine.api.inspect(published)["NetworkSettings"]["Ports"].get("80/tcp")


@pytest.mark.parametrize(("kind", "module"), [("ipvlan", "ipvlan"), ("vlan", "8021q")])
def test_what_this_kernel_may_lack(
    engine: Engine, network: Network, up: Callable[..., str], wire: Wire, kind: str, module: str
) -> None:
    """Where the kernel has it, it works; where not, the error says what is missing."""
    if kind == "vlan":
        options = ("-d", "macvlan", "--subnet", wire.subnet, "-o", f"parent={wire.parent}.10")
    else:
        options = ("-d", "ipvlan", "--subnet", wire.subnet, "-o", f"parent={wire.parent}")
    if not supports(kind):
        done = engine.docker("network", "create", *options, "xx", code=None)
        assert done.code != 0 and "this kernel has no" in done.err and module.upper()[-4:] in done.err.upper()
        assert f"{wire.parent}.10" not in links()
        return
    one = network(*options)
    first, second = up("--network", one), up("--network", one)
    assert pings(engine, first, shown(engine, second, one)["IPAddress"])
    assert detail(engine, first)["linkinfo"]["info_kind"] == ("macvlan" if kind == "vlan" else kind)
    if kind == "ipvlan":
        assert pings(engine, first, wire.gateway)


def test_a_killed_daemon_finds_all_again(make_daemon: Callable[..., Daemon], wire: Wire) -> None:
    daemon = make_daemon().start()
    try:
        daemon.docker("network", "create", *wire.options(), "wire")
        daemon.docker("network", "create", "-d", "macvlan", "own")
        run = ("run", "-d", "--stop-timeout", "0", "--network", "wire")
        daemon.docker(*run, "--name", "one", daemon.busybox, "sleep", "600")
        address = shown(daemon, "one", "wire")["IPAddress"]
        daemon.kill9()
        daemon.start()
        assert shown(daemon, "one", "wire")["IPAddress"] == address and pings(daemon, "one", wire.gateway)
        daemon.docker(*run, "--name", "two", daemon.busybox, "sleep", "600")
        assert shown(daemon, "two", "wire")["IPAddress"] != address
        own = "dm-" + str(daemon.api.get("/networks/own")["Id"])[:12]
        subprocess.run(["ip", "link", "delete", own], check=True)
        daemon.docker("run", "--rm", "--network", "own", daemon.busybox, "true")
        assert own in links()
        daemon.docker("rm", "-f", "one", "two")
        subprocess.run(["ip", "link", "delete", wire.parent], check=True)
        done = daemon.docker("run", "--rm", "--network", "wire", daemon.busybox, "true", code=125)
        assert wire.parent in done.err
        daemon.docker("network", "rm", "wire", "own")
        assert own not in links()
    finally:
        daemon.end()
