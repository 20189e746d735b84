"""What containers and ill-timed ends may not get out of the networks; each test in a namespace of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.errors import NotFound
from sampan.network import Binding, NetworkService, NetworkSpec, Request
from support.machine import eventually
from support.packets import ETH_P_ALL, ETH_P_IP, EVERYBODY, datagram, frame, put, question

pytestmark = pytest.mark.root

Make = Callable[..., NetworkService]


def switch(version: int, interface: str, name: str) -> str:
    return Path(f"/proc/sys/net/ipv{version}/conf/{interface}/{name}").read_text()[0]


def bridge_of(service: NetworkService, name: str) -> str:
    return f"br-{service.get(name).id[:12]}"


def links(path: str = "") -> set[str]:
    inside = ["nsenter", f"--net={path}"] if path else []
    done = subprocess.run([*inside, "ip", "-j", "link"], capture_output=True, text=True, check=True)
    return {link["ifname"] for link in json.loads(done.stdout)}


def test_no_bridge_routes_the_hosts_loopback_without_the_table_that_guards_it(make: Make) -> None:
    guarded = make()
    guarded.create(NetworkSpec("before"))
    assert switch(4, bridge_of(guarded, "before"), "route_localnet") == "1"
    bare = make(iptables=False)
    bare.create(NetworkSpec("behind"))
    for name in (bridge_of(bare, "before"), bridge_of(bare, "behind"), "sampan0"):
        assert switch(4, name, "route_localnet") == "0", name


def test_a_bridge_takes_no_ipv6_from_containers(make: Make) -> None:
    service = make()
    service.create(NetworkSpec("one"))
    assert switch(6, bridge_of(service, "one"), "disable_ipv6") == switch(6, "sampan0", "disable_ipv6") == "1"


@pytest.mark.parametrize("mode", ["nat", "isolated"])
def test_an_isolated_network_is_no_way_to_the_host(make: Make, mode: str) -> None:
    """Nor by frames that a container writes itself; with an address on the bridge, the same ones arrive."""
    service = make()
    options = {"com.docker.network.bridge.gateway_mode_ipv4": mode}
    network = service.create(NetworkSpec("one", internal=True, options=options))
    sandbox = service.create_sandbox("aa", [Request(network.id)])
    place = sandbox.endpoints["one"]
    shown = ["ip", "-j", "link", "show", bridge_of(service, "one")]
    mac: str = json.loads(subprocess.check_output(shown))[0]["address"]
    host = service.get("bridge").gateway
    asked = [question(place.mac_address, source, host) for source in (place.ip_address, "0.0.0.0")]
    evil = datagram(place.ip_address, host, b"evil", 9777)
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as wire,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener,
    ):
        listener.bind((host, 9777))
        wire.bind((bridge_of(service, "one"), ETH_P_ALL))
        told = [frame(to, place.mac_address, ETH_P_IP, evil) for to in (mac, EVERYBODY)]
        put(sandbox.path, *asked, *told)  # what it has sent has arrived, or never will
        answers = [one for one in _all(wire) if one[12:14] == b"\x08\x06" and one[20:22] == b"\0\2"]
        arrived = [*_all(listener)]
    assert (bool(arrived), len(answers)) == ((True, 2) if mode == "nat" else (False, 0))


def _all(end: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        while True:
            yield end.recv(100, socket.MSG_DONTWAIT)


def test_ports_are_published_as_each_network_does(make: Make) -> None:
    """Who goes from a routed network to another is no longer open at its own address, but at the host's."""
    service = make()
    routed = {"com.docker.network.bridge.gateway_mode_ipv4": "routed"}
    first = service.create(NetworkSpec("first", options=routed))
    second = service.create(NetworkSpec("second"))
    ports = [Binding("tcp", 80, "", "8080")]
    service.create_sandbox("aa", [Request(first.id)], ports)

    def rules() -> str:
        return subprocess.check_output(["nft", "list", "table", "ip", "sampan-sampan0"], text=True)

    def openings(address: str) -> tuple[bool, bool]:
        return f"{{ {address} . tcp . 80 }}" in rules(), f"tcp . 8080 : {address} . 80" in rules()

    for one, other, modes in ((first, second, (False, True)), (second, first, (True, False))):
        service.connect("aa", Request(other.id), ports)
        sandbox = service.disconnect("aa", one.id, ports)
        assert openings(sandbox.endpoints[other.name].ip_address) == modes, other.name
        assert [entry.host_port for entry in sandbox.published] == [8080 * modes[1]]


def test_who_leaves_a_network_leaves_with_the_interface_of_this_run(make: Make) -> None:
    service = make()
    network = service.create(NetworkSpec("one"))
    first = service.create_sandbox("aa", [Request(network.id)])
    held = os.open(first.path, os.O_RDONLY)  # as another container in the namespace: the old link stays
    try:
        service.remove_sandbox("aa")
        second = service.create_sandbox("aa", [Request(network.id)])
        assert "eth0" in links(second.path)
        assert service.disconnect("aa", network.id).endpoints == {}
        assert "eth0" not in links(second.path)
    finally:
        os.close(held)


def test_a_connection_that_a_crash_cut_short_is_none(make: Make) -> None:
    service = make()
    network = service.create(NetworkSpec("one"))
    sandbox = service.create_sandbox("aa", [Request(service.get("bridge").id), Request(network.id)])
    before = links()
    subprocess.run(["nsenter", f"--net={sandbox.path}", "ip", "link", "delete", "eth1"], check=True)
    assert len(before - links()) == 1
    later = make(("aa",))
    recalled = later.recall_sandbox("aa")
    assert recalled is not None and set(recalled.endpoints) == {"bridge"}
    later.remove(later.get("one"), {"aa": "aa"})


def test_no_port_is_lost_to_who_takes_the_rules_away_meanwhile(make: Make) -> None:
    """A start puts the table back while another one adds to it, and both while it goes away again."""
    service = make()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    bridge = service.get("bridge").id

    def publish(first: int) -> None:
        for port in range(first, first + 20):
            service.create_sandbox(
                f"c{port}", [Request(bridge)], [Binding("tcp", 80, "127.0.0.1", str(port))]
            )
            published.append(port)

    published: list[int] = []
    threads = [threading.Thread(target=publish, args=(first,)) for first in (7000, 7100, 7200)]
    flusher = subprocess.Popen(["sh", "-c", "while :; do nft flush ruleset; done"], start_new_session=True)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.killpg(flusher.pid, signal.SIGKILL)
    flusher.wait()
    assert len(published) == 60

    def all_there() -> bool:  # once the last program that flushes has ended
        service.create_sandbox("last", [Request(bridge)])  # which puts back what was taken away
        rules = subprocess.check_output(["nft", "list", "ruleset"], text=True)
        return sorted(map(int, re.findall(r"127\.0\.0\.1 \. (\d+) :", rules))) == sorted(published)

    eventually(all_there)


def test_a_network_is_removed_once(make: Make) -> None:
    service = make()
    network = service.create(NetworkSpec("one"))
    service.remove(network, {})
    with pytest.raises(NotFound, match="network one not found"):
        service.remove(network, {})
