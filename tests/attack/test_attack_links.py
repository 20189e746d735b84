"""Where a bridge keeps containers apart, a link opens ports to its parent, and to nobody who says to be it.

The attacker is on the same bridge, with raw sockets. Answers do not matter: one packet that arrives is one
too many.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.network import NetworkService, Request
from sampan.network.linking import Link
from sampan.network.model import Endpoint
from support.machine import eventually
from support.names import inside
from support.packets import (
    ETH_P_ALL,
    ETH_P_ARP,
    ETH_P_IP,
    EVERYBODY,
    datagram,
    fragments,
    frame,
    mac,
    put,
    question,
    tagged,
)

pytestmark = pytest.mark.root

Make = Callable[..., NetworkService]
PRIORITY, SERVICE_VLAN = 0x8100, 0x88A8


@contextlib.contextmanager
def listening(path: str) -> Iterator[Callable[[], list[bytes]]]:
    """What has come to a namespace's interface."""

    def listen() -> socket.socket:
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        end.bind(("eth0", 0))
        return end

    seen: list[bytes] = []

    def now() -> list[bytes]:
        with contextlib.suppress(BlockingIOError):
            while True:
                seen.append(end.recv(2048, socket.MSG_DONTWAIT))
        return seen

    with inside(path, listen) as end:
        yield now


def told(by: str, claims: str, to: str) -> bytes:
    """ARP: an address is at a MAC address, as an answer to one."""
    ends = mac(by) + socket.inet_aton(claims) + mac(to) + socket.inet_aton(claims)
    return frame(to, by, ETH_P_ARP, struct.pack(">HHBBH", 1, ETH_P_IP, 6, 4, 2) + ends)


def unreachable(source: str, destination: str, about: bytes) -> bytes:
    """ICMP: a packet did not get there."""
    body = bytearray(struct.pack(">BBHI", 3, 3, 0, 0) + about)
    total = sum(struct.unpack(f">{len(body) // 2}H", body))
    total = (total & 0xFFFF) + (total >> 16)
    body[2:4] = struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF)
    whole = bytearray(datagram(source, destination, bytes(body)[8:]))
    whole[20:] = body
    whole[9], whole[10:12] = socket.IPPROTO_ICMP, b"\0\0"
    total = sum(struct.unpack(">10H", whole[:20]))
    total = (total & 0xFFFF) + (total >> 16)
    whole[10:12] = struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF)
    return bytes(whole)


def neighbour(address: str) -> str:
    """Where the host thinks that an address is."""
    out = subprocess.check_output(["ip", "neigh", "show", address, "dev", "sampan0"], text=True)
    return out.split("lladdr ")[1].split()[0] if "lladdr" in out else ""


def test_nobody_else_comes_by_a_link(make: Make) -> None:
    service = make(icc=False)
    bridge = service.get("bridge")
    paths, places = {}, {}
    for name in ("web", "db", "stranger"):
        made = service.create_sandbox(name, [Request(bridge.id)])
        paths[name], places[name] = made.path, made.endpoints["bridge"]
    web, db, stranger = places["web"], places["db"], places["stranger"]
    service.link(Link("web", "db", web.ip_address, db.ip_address, ((80, "udp"), (81, "tcp"))))
    host: str = json.loads(subprocess.check_output(["ip", "-j", "link", "show", "sampan0"]))[0]["address"]

    def by(place: Endpoint, to: str, payload: bytes, source: str = web.ip_address, **port: int) -> bytes:
        return frame(to, place.mac_address, ETH_P_IP, datagram(source, db.ip_address, payload, **port))

    # What the host knows of neighbours holds for a second against other news: so long nobody is to wait.
    Path("/proc/sys/net/ipv4/neigh/sampan0/locktime").write_text("0")
    with listening(paths["db"]) as arrived, listening(paths["web"]) as returned:
        put(paths["web"], by(web, host, b"friendly"))
        eventually(lambda: any(b"friendly" in one for one in arrived()), what="the parent gets there")
        evil = [by(one, to, b"evil") for one in (stranger, web) for to in (host, db.mac_address, EVERYBODY)]
        evil += [tagged(one, *tags) for one in evil[:1] for tags in ((0,), (0, 0), (0, 0, 0), (7,), (0, 7))]
        inner = evil[0][:12] + struct.pack(">HHHH", SERVICE_VLAN, 0, PRIORITY, 0) + evil[0][12:]
        evil += [inner, by(stranger, host, b"evil", stranger.ip_address), by(web, host, b"evil", port=79)]
        body = struct.pack(">HHHH", 4000, 80, 24, 0) + b"evil".ljust(16)
        evil += [
            frame(host, stranger.mac_address, ETH_P_IP, piece)
            for piece in fragments(web.ip_address, db.ip_address, body, (0, 8), (8, 24))
        ]
        answered = datagram(db.ip_address, web.ip_address, b"evil")
        answered = answered[:20] + struct.pack(">HHHH", 80, 4000, 12, 0) + answered[28:]
        evil += [
            frame(host, stranger.mac_address, ETH_P_IP, unreachable(source, db.ip_address, answered))
            for source in (stranger.ip_address, web.ip_address, "192.0.2.1")
        ]
        # And to the parent, as if it were an answer; and to make the host believe to be the one or the other.
        evil += [frame(host, stranger.mac_address, ETH_P_IP, answered)]
        for one in (web, db):
            evil += [question(stranger.mac_address, one.ip_address, bridge.gateway)]
            evil += [told(stranger.mac_address, one.ip_address, to) for to in (host, EVERYBODY)]
        put(paths["stranger"], *evil)
        put(paths["web"], by(web, host, b"once more"))
        eventually(lambda: any(b"once more" in one for one in arrived()), what="the parent still gets there")
        assert not [one.hex() for one in (*arrived(), *returned()) if b"evil" in one]
        assert (neighbour(db.ip_address), neighbour(web.ip_address)) == (db.mac_address, web.mac_address)
    service.unlink("web", "db")
    tables = subprocess.check_output(["nft", "list", "tables"], text=True)
    assert "table bridge" not in tables and "table ip sampan-sampan0" in tables
