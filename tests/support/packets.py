"""Packets and frames written by hand, and a container's wire to put them on and listen at."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
from collections.abc import Callable, Iterator

from support.engine import Engine
from support.names import inside
from support.nets import bridge_of
from support.outside import netns_of

ETH_P_ALL, ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 3, 0x0800, 0x0806, 0x86DD
EVERYBODY = "ff:ff:ff:ff:ff:ff"
numbers = itertools.count(100)  # which tell the pieces of one packet from those of others


def mac(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))


def datagram(source: str, destination: str, payload: bytes, port: int = 80) -> bytes:
    """An IPv4 packet with UDP in it; without a UDP checksum, as RFC 768 allows."""
    body = struct.pack(">HHHH", 4000, port, 8 + len(payload), 0) + payload
    head = bytearray(struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, 17, 0))
    head += socket.inet_aton(source) + socket.inet_aton(destination)
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head[10:12] = struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF)
    return bytes(head) + body


def fragments(
    source: str, destination: str, body: bytes, *cuts: tuple[int, int], number: int = 0
) -> list[bytes]:
    """An IPv4 packet with UDP in it, cut: each piece from one byte to another, in any order.

    Args:
        number: which tells the pieces of one packet from those of others.
    """
    number = number or next(numbers)
    found = []
    for first, last in cuts:
        more = 0x2000 if last < len(body) else 0
        head = bytearray(
            struct.pack(">BBHHHBBH", 0x45, 0, 20 + last - first, number, more | first // 8, 64, 17, 0)
        )
        head += socket.inet_aton(source) + socket.inet_aton(destination)
        total = sum(struct.unpack(">10H", head))
        total = (total & 0xFFFF) + (total >> 16)
        head[10:12] = struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF)
        found.append(bytes(head) + body[first:last])
    return found


def tagged(one: bytes, *tags: int) -> bytes:
    """A frame with VLAN tags (IEEE 802.1Q), the outer one first."""
    return one[:12] + b"".join(struct.pack(">HH", 0x8100, tag) for tag in tags) + one[12:]


def frame(to: str, by: str, kind: int, payload: bytes) -> bytes:
    return mac(to) + mac(by) + struct.pack(">H", kind) + payload


def datagram6(source: str, destination: str, payload: bytes, kind: int = 17) -> bytes:
    """An IPv6 packet, with UDP in it or what `payload` is; nobody on the way looks at its checksum."""
    body = struct.pack(">HHHH", 4000, 80, 8 + len(payload), 1) + payload if kind == 17 else payload
    head = struct.pack(">IHBB", 6 << 28, len(body), kind, 255)
    ends = (socket.inet_pton(socket.AF_INET6, address) for address in (source, destination))
    return head + b"".join(ends) + body


def discovery(kind: int, target: str, mark: bytes) -> bytes:
    """A message of RFC 4861: 133 to 137."""
    return struct.pack(">BBHI", kind, 0, 0, 0) + socket.inet_pton(socket.AF_INET6, target) + mark


def link_local(mac_address: str) -> str:
    first, *rest = mac(mac_address)
    packed = bytes([0xFE, 0x80, *bytes(6), first ^ 2, *rest[:2], 0xFF, 0xFE, *rest[2:]])
    return socket.inet_ntop(socket.AF_INET6, packed)


def frames(engine: Engine, container: str, *sent: bytes) -> None:
    """Put frames on a container's wire."""
    put(netns_of(engine, container), *sent)


def put(netns: str, *sent: bytes) -> None:
    """Put frames on the wire of a network namespace."""

    def work() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as end:
            end.bind(("eth0", 0))
            for frame in sent:
                end.send(frame)

    inside(netns, work)


def question(by: str, source: str, target: str) -> bytes:
    """Who has an address, by ARP."""
    ends = mac(by) + socket.inet_aton(source) + bytes(6) + socket.inet_aton(target)
    return frame(EVERYBODY, by, ETH_P_ARP, struct.pack(">HHBBH", 1, ETH_P_IP, 6, 4, 1) + ends)


@contextlib.contextmanager
def wire(engine: Engine, container: str) -> Iterator[Callable[[bytes], bool]]:
    """Listens to all that comes to a container; what is yielded says whether something had these bytes in it,
    once a last frame of our own has come."""

    def listen() -> socket.socket:
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        end.bind(("eth0", 0))
        end.settimeout(10)
        return end

    with inside(netns_of(engine, container), listen) as end:
        seen: list[bytes] = []

        def had(needle: bytes) -> bool:
            marker = b"the last one"
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(
                    marker, (engine.api.inspect(container)["NetworkSettings"]["IPAddress"] or own(), 9)
                )
            while not seen or marker not in seen[-1]:
                seen.append(end.recv(2048))
            return any(needle in frame for frame in seen)

        def own() -> str:
            (one,) = engine.api.inspect(container)["NetworkSettings"]["Networks"].values()
            return str(one["IPAddress"])

        yield had


def listening(interface: str) -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    end.bind((interface, 0))
    end.settimeout(10)
    return end


def gateway_mac(engine: Engine, network: str) -> str:
    with open(f"/sys/class/net/{bridge_of(engine, network)}/address") as file:
        return file.read().strip()
