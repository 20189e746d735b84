"""What containers and ill-timed ends may not get out of the networks; each test in a namespace of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.errors import NotFound
from sampan.network import Binding, NetworkService, NetworkSpec, Request
from support.machine import eventually

pytestmark = pytest.mark.root

Make = Callable[..., NetworkService]
_ETH_P_ALL = 3  # what goes out, too


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


_RAW = """
import socket, struct, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(("eth0", 0))
own, bridge, source, target = (bytes.fromhex(word) for word in sys.argv[1:])
arp = struct.pack("!HHBBH", 1, 0x800, 6, 4, 1)
for sender in (source, bytes(4)):
    wire.send(b"\\xff" * 6 + own + b"\\x08\\x06" + arp + own + sender + bytes(6) + target)
payload = struct.pack("!4H4s", 9, 9777, 12, 0, b"evil")
head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, 17, 0) + source + target
total = sum(struct.unpack("!10H", head))
total = (total & 0xFFFF) + (total >> 16)
head = head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:]
for mac in (bridge, b"\\xff" * 6):
    wire.send(mac + own + b"\\x08\\x00" + head + payload)
"""


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
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as wire,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener,
    ):
        listener.bind((host, 9777))
        wire.bind((bridge_of(service, "one"), _ETH_P_ALL))
        words = [place.mac_address.replace(":", ""), mac.replace(":", "")]
        words += [socket.inet_aton(address).hex() for address in (place.ip_address, host)]
        inside = ["nsenter", f"--net={sandbox.path}", sys.executable, "-c", _RAW, *words]
        subprocess.run(inside, check=True)  # what it has sent has arrived, or never will
        told = [
            _arrived(listener),
            any(frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2" for frame in _all(wire)),
        ]
    assert told == [mode == "nat"] * 2


def _arrived(end: socket.socket) -> bool:
    try:
        return bool(end.recv(100, socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False


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
