"""Ways out of an egress policy by what is written on the wire: other senders, fragments, VLAN tags, IPv6."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
from collections.abc import Callable

import pytest

from support.engine import Engine
from support.machine import eventually
from support.names import inside
from support.nets import bridge_of, shown
from support.outside import Outside, arrived, ip, netns_of, tcp, udp
from support.packets import (
    ETH_P_ARP,
    ETH_P_IP,
    ETH_P_IPV6,
    datagram,
    datagram6,
    discovery,
    fragments,
    frame,
    frames,
    gateway_mac,
    link_local,
    listening,
    mac,
    numbers,
    tagged,
    wire,
)  # fmt: skip

pytestmark = pytest.mark.root

Names = Callable[[], str]
Start = Callable[..., str]


def test_another_source_address_gets_nowhere(engine: Engine, world: Outside, start: Start, net: str) -> None:
    one, other = start("deny", "--network", net), start("", "--network", net)
    mine, theirs = shown(engine, one, net), shown(engine, other, net)
    gateway, target = gateway_mac(engine, net), world.addresses[0]
    with wire(engine, other) as had:
        for number, (by, source) in enumerate(
            (
                (mine["MacAddress"], theirs["IPAddress"]),
                (theirs["MacAddress"], theirs["IPAddress"]),
                (theirs["MacAddress"], mine["IPAddress"]),
                (mine["MacAddress"], re.sub(r"\d+$", "77", mine["IPAddress"])),
                (mine["MacAddress"], world.router),
                (mine["MacAddress"], "127.0.0.1"),
            )
        ):
            payload = b"spoofed %d" % number
            for to in (gateway, theirs["MacAddress"]):
                frames(engine, one, frame(to, by, ETH_P_IP, datagram(source, target, payload)))
            assert not had(payload)
        assert not arrived(world, b"spoofed")
    ip(engine, one, "address", "add", re.sub(r"\d+$", "78", mine["IPAddress"]) + "/16", "dev", "eth0")
    ip(engine, one, "link", "set", "eth0", "address", theirs["MacAddress"])
    assert not udp(engine, one, target) and not udp(engine, one, theirs["IPAddress"])
    assert udp(engine, other, target)


def test_neither_ipv6_nor_foreign_arp_gets_onto_the_bridge(
    engine: Engine, start: Start, net: str, world: Outside
) -> None:
    one, other = start("deny", "--network", net), start("", "--network", net)
    mine, theirs = shown(engine, one, net), shown(engine, other, net)
    everybody = "ff:ff:ff:ff:ff:ff"

    def announcement(address: str) -> bytes:
        sender = mac(mine["MacAddress"]) + socket.inet_aton(address)
        return (
            struct.pack(">HHBBH", 1, ETH_P_IP, 6, 4, 2) + sender + sender + b"announced " + address.encode()
        )

    packet6 = bytes.fromhex("6000000000081140") + bytes(15) + b"\x01" + bytes(15) + b"\x02" + b"six over"
    with wire(engine, other) as had:
        frames(
            engine,
            one,
            frame(theirs["MacAddress"], mine["MacAddress"], ETH_P_IPV6, packet6),
            frame("33:33:00:00:00:01", mine["MacAddress"], ETH_P_IPV6, packet6),
            frame(everybody, mine["MacAddress"], 0x88CC, b"six over"),
            frame(everybody, mine["MacAddress"], ETH_P_ARP, announcement(mine["Gateway"])),
            frame(everybody, mine["MacAddress"], ETH_P_ARP, announcement(theirs["IPAddress"])),
            frame(everybody, mine["MacAddress"], ETH_P_ARP, announcement(mine["IPAddress"])),
        )
        assert had(b"announced " + mine["IPAddress"].encode())
        assert not had(b"announced " + mine["Gateway"].encode())
        assert not had(b"announced " + theirs["IPAddress"].encode())
        assert not had(b"six over")


def test_fragments_are_judged_as_what_they_are_part_of(
    engine: Engine, world: Outside, start: Start, net: str
) -> None:
    allowed, closed = world.addresses[:2]
    one = start(f"allow:{allowed}:80", "--network", net)
    mine, gateway = shown(engine, one, net), gateway_mac(engine, net)

    def send(destination: str, body: bytes, *cuts: tuple[int, int]) -> None:
        packets = fragments(mine["IPAddress"], destination, body, *cuts)
        frames(engine, one, *(frame(gateway, mine["MacAddress"], ETH_P_IP, packet) for packet in packets))

    def body(port: int, payload: bytes) -> bytes:
        return struct.pack(">HHHH", 4000, port, 8 + len(payload), 0) + payload

    plain = body(80, b"in pieces".ljust(64, b"."))
    send(closed, plain, (0, 24), (24, 72))
    send(closed, plain, (24, 72), (0, 24))
    send(closed, plain, (0, 8), (8, 72))
    send(closed, plain, (24, 72))
    send(allowed, body(443, b"in pieces".ljust(64, b".")), (0, 8), (8, 72))
    # The first piece is for the port that is open; what overlaps it would make another port of it.
    other = body(443, b"in pieces".ljust(64, b"."))
    for sent in ((plain[:24], other), (other[:24], plain)):
        first, rest = sent
        number = next(numbers)
        pieces = fragments(mine["IPAddress"], allowed, first + rest[24:], (0, 24), number=number)
        pieces += fragments(mine["IPAddress"], allowed, rest, (0, 32), (32, 72), number=number)
        frames(engine, one, *(frame(gateway, mine["MacAddress"], ETH_P_IP, piece) for piece in pieces))
    assert not arrived(world, b"in pieces")
    send(allowed, body(80, b"as allowed".ljust(64, b".")), (24, 72), (0, 24))
    eventually(lambda: arrived(world, b"as allowed"), what="a whole packet in pieces passes")


def test_a_vlan_tag_hides_nothing(engine: Engine, world: Outside, start: Start, net: str) -> None:
    one, other = start("deny", "--network", net), start("", "--network", net)
    mine, theirs, gateway = shown(engine, one, net), shown(engine, other, net), gateway_mac(engine, net)
    bridge = bridge_of(engine, net)
    # Where the kernel has such links, a way into the host, were it taken.
    add = ["ip", "link", "add", "link", bridge, "name", "tag7", "type", "vlan", "id", "7"]
    subprocess.run(add, check=False, capture_output=True)
    try:
        subprocess.run(["ip", "link", "set", "tag7", "up"], check=False, capture_output=True)
        stolen = datagram(theirs["IPAddress"], world.addresses[0], b"under a tag")
        own = datagram(mine["IPAddress"], world.addresses[0], b"under a tag")
        with wire(engine, other) as had:
            for packet, by in ((stolen, theirs["MacAddress"]), (own, mine["MacAddress"])):
                for to in (gateway, theirs["MacAddress"]):
                    plain = frame(to, by, ETH_P_IP, packet)
                    for tags in ((0,), (7,), (7, 7), (0, 7)):
                        frames(engine, one, tagged(plain, *tags))
            assert not had(b"under a tag")
        assert not arrived(world, b"under a tag")
    finally:
        subprocess.run(["ip", "link", "delete", "tag7"], check=False, capture_output=True)


def test_ipv6_is_no_way_around(engine: Engine, world: Outside, start: Start, name: Names) -> None:
    net = name()
    engine.docker("network", "create", "--ipv6", "--subnet", "fd53:a9::/64", net)
    one, other = (start(policy, "--network", net) for policy in ("allow:*,0.0.0.0/0", ""))
    mine, theirs = shown(engine, one, net), shown(engine, other, net)
    own, gateway = mine["GlobalIPv6Address"], mine["IPv6Gateway"]

    def reaches(container: str, address: str) -> bool:
        words = ("busybox", "ping", "-6", "-c1", "-W1", address)
        inside_it = ["nsenter", f"--net={netns_of(engine, container)}", *words]
        return subprocess.run(inside_it, capture_output=True, check=False).returncode == 0

    for address in (world.addresses6[0], world.router6, gateway):
        assert reaches(other, address) and not reaches(one, address)
    assert not reaches(one, "fe80::1%eth0")
    assert reaches(one, theirs["GlobalIPv6Address"]) and reaches(other, own), "neighbours"
    assert not reaches(one, link_local(theirs["MacAddress"]) + "%eth0"), "by their addresses in the network"
    everybody, near = "33:33:00:00:00:01", link_local(mine["MacAddress"])

    def said(source: str, message: bytes, by: str = mine["MacAddress"]) -> bytes:
        return frame(everybody, by, ETH_P_IPV6, datagram6(source, "ff02::1", message, 58))

    other_mac, other6 = theirs["MacAddress"], theirs["GlobalIPv6Address"]
    # Options of IPv6 before it (RFC 8200, 4.6), with one's own address where a target would be.
    options = bytes((58, 2, 1, 4, 0, 0, 0, 0)) + socket.inet_pton(socket.AF_INET6, own)
    hidden = datagram6(own, "ff02::1", options + discovery(136, gateway, b"spoofed hidden"), 60)
    with wire(engine, other) as had:
        frames(
            engine,
            one,
            frame(other_mac, mine["MacAddress"], ETH_P_IPV6, datagram6(other6, other6, b"spoofed 1")),
            frame(other_mac, other_mac, ETH_P_IPV6, datagram6(own, other6, b"spoofed 2")),
            frame(other_mac, mine["MacAddress"], ETH_P_IPV6, datagram6("fd53:a9::77", other6, b"spoofed 3")),
            frame(other_mac, mine["MacAddress"], ETH_P_IPV6, datagram6(near, other6, b"spoofed 4")),
            frame(other_mac, mine["MacAddress"], ETH_P_IPV6, datagram6("::", other6, b"spoofed 5")),
            frame(other_mac, mine["MacAddress"], ETH_P_IPV6, datagram6(own, other6, b"my own")),
            said(near, discovery(134, "::", b"spoofed router")),
            said(own, discovery(134, "::", b"spoofed router")),
            said(own, discovery(137, gateway, b"spoofed redirect")),
            said(own, discovery(136, gateway, b"spoofed gateway")),
            said(near, discovery(136, other6, b"spoofed peer")),
            frame(everybody, mine["MacAddress"], ETH_P_IPV6, hidden),
            said("fe80::1", discovery(136, own, b"spoofed source")),
            said(own, discovery(136, own, b"spoofed mac"), other_mac),
            said(own, discovery(135, gateway, b"who is it")),
            said(near, discovery(136, own, b"it is me")),
        )
        assert had(b"it is me") and had(b"who is it") and had(b"my own")
        assert not had(b"spoofed")
    # What looks like a question for neighbours, and is for the world, stays here as well.
    with inside(world.netns, lambda: listening("eth0")) as far:
        bridge, target = gateway_mac(engine, net), world.addresses6[0]
        for source in (own, near):
            packet = datagram6(source, target, discovery(135, target, b"secret"), 58)
            frames(engine, one, frame(bridge, mine["MacAddress"], ETH_P_IPV6, packet))
        packet = datagram6(theirs["GlobalIPv6Address"], target, b"open")
        frames(engine, other, frame(bridge, other_mac, ETH_P_IPV6, packet))
        seen = b""
        while b"open" not in seen:
            seen += far.recv(2048)
        assert b"secret" not in seen
    # Who takes the table away finds it put back.
    (table6,) = (
        line.split()[2]
        for line in subprocess.check_output(["nft", "list", "tables", "ip6"], text=True).splitlines()
        if line.endswith("-egress")
        and own in subprocess.check_output(["nft", "list", "table", "ip6", line.split()[2]], text=True)
    )
    subprocess.run(["nft", "delete", "table", "ip6", table6], check=True)
    eventually(lambda: tcp(engine, one, world.addresses6[0]) != "" and table6 in six_tables())
    engine.docker("rm", "-f", one, other)
    engine.docker("network", "rm", net)


def six_tables() -> str:
    return subprocess.check_output(["nft", "list", "tables", "ip6"], text=True)
