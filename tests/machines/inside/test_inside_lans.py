"""ipvlan networks, and VLANs as parents: a stock kernel has the modules, which many a smaller one lacks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from support.engine import Daemon
from support.machine import eventually
from support.nets import inside, links, pings, routes, shown

PARENT, PEER, FAR = "wire0", "wire1", "far-machine"


@pytest.fixture
def wire() -> Iterator[None]:
    """A link of the host's, and a machine at its other end, which knows a VLAN as well."""
    far = f"ip -n {FAR}"
    made = (
        f"ip netns add {FAR}; ip link add {PARENT} type veth peer name {PEER} netns {FAR};"
        f"ip link set {PARENT} up; {far} link set {PEER} up; {far} addr add 10.240.1.1/24 dev {PEER};"
        f"{far} link add link {PEER} name {PEER}.10 type vlan id 10; {far} link set {PEER}.10 up;"
        f"{far} addr add 10.240.2.1/24 dev {PEER}.10"
    )
    subprocess.run(["sh", "-ec", made], check=True)
    yield
    subprocess.run(["sh", "-c", f"ip link delete {PARENT}; ip netns delete {FAR}"], check=True)


def routed_by_ipvlan(daemon: Daemon) -> None:
    """Mode l3: the parent routes between subnets, nobody asks by ARP, and no route needs a gateway."""
    subnets = ("--subnet", "10.240.3.0/24", "--subnet", "10.240.4.0/24", "--ipv6", "--subnet", "fd53:20::/64")
    options = ("-o", "ipvlan_mode=l3", "-o", f"parent={PARENT}.20")
    daemon.docker("network", "create", "-d", "ipvlan", *subnets, *options, "routed")
    for name, address in (("four", "10.240.3.7"), ("five", "10.240.4.7")):
        run = ("run", "-d", "--stop-timeout", "0", "--name", name, "--network", "routed", "--ip", address)
        daemon.docker(*run, daemon.busybox, "sleep", "600")
    link = json.loads(inside(daemon, "four", "ip", "-j", "-d", "link", "show", "eth0").stdout)[0]
    assert link["linkinfo"]["info_data"]["mode"] == "l3" and "NOARP" in link["flags"]
    six = json.loads(inside(daemon, "four", "ip", "-j", "-6", "route", "show", "default").stdout)
    ways = [one for one in (*routes(daemon, "four"), *six) if one["dst"] == "default"]
    assert [(one["dev"], "gateway" in one) for one in ways] == [("eth0", False)] * 2
    assert shown(daemon, "four", "routed")["Gateway"] == ""
    eventually(lambda: pings(daemon, "four", "10.240.4.7"), 60)
    daemon.docker("rm", "-f", "four", "five")
    daemon.docker("network", "rm", "routed")
    assert f"{PARENT}.20" not in links()


def test_ipvlan_and_a_vlan(daemon: Daemon, wire: None) -> None:
    # A parent has children of one kind, but a VLAN on it is a parent of its own.
    subnets = {"shared": ("ipvlan", PARENT, 1), "tagged": ("macvlan", f"{PARENT}.10", 2)}
    for name, (driver, parent, number) in subnets.items():
        words = ("--subnet", f"10.240.{number}.0/24", "--gateway", f"10.240.{number}.1")
        daemon.docker("network", "create", "-d", driver, *words, "-o", f"parent={parent}", name)
    assert f"{PARENT}.10" in links(), "made, as it was missing"
    for name, network in (("one", "shared"), ("three", "tagged")):
        run = ("run", "-d", "--stop-timeout", "0", "--name", name, "--network", network)
        daemon.docker(*run, daemon.busybox, "sleep", "600")
    for name, network, gateway in (("one", "shared", "10.240.1.1"), ("three", "tagged", "10.240.2.1")):
        eventually(lambda name=name, gateway=gateway: pings(daemon, name, gateway), 60, network)
    tag = subprocess.check_output(["ip", "-d", "link", "show", f"{PARENT}.10"], text=True)
    assert "vlan protocol 802.1Q id 10" in tag
    link = json.loads(inside(daemon, "one", "ip", "-j", "-d", "link", "show", "eth0").stdout)[0]
    with open(f"/sys/class/net/{PARENT}/address") as file:
        own = file.read().strip()
    found = link["linkinfo"]
    assert (found["info_kind"], found["info_data"]["mode"]) == ("ipvlan", "l2")
    assert link["address"] == shown(daemon, "one", "shared")["MacAddress"] == own
    daemon.docker("rm", "-f", "one", "three")
    routed_by_ipvlan(daemon)
    daemon.docker("network", "rm", *subnets)
    assert PARENT in links() and f"{PARENT}.10" not in links()
