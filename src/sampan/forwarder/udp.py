"""UDP datagrams: for each client a socket of its own towards the container, by which the answers come back.

An answer leaves from the address that the client has asked (IP_PKTINFO of ip(7), IPV6_PKTINFO of ipv6(7)),
whichever of the host's that was. A client that has been silent for `IDLE_S` is forgotten; so is the one that
has been silent longest when there are `MOST`.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from contextlib import suppress

from sampan.forwarder.tcp import family_of
from sampan.runtime.loop import Loop

IDLE_S = 90.0  # as Docker's
MOST = 4096  # clients of one port
_IP_PKTINFO = 8  # linux/in.h
_PKTINFO, _PKTINFO6 = struct.Struct("=i4s4s"), struct.Struct("=16sI")
_ANCILLARY = socket.CMSG_SPACE(_PKTINFO6.size)
_DATAGRAM = 1 << 16
_LINK_LOCAL6 = b"\xfe\x80"
_AT_ONCE = 64

Key = tuple[tuple[str, int], bytes]  # the client, and what it has asked, as an answer's IP_PKTINFO says it


class UdpForwarder:
    """One published port.

    Args:
        listener: bound at the host's.
        target: address and port in the container.
    """

    pausing = False

    def __init__(self, listener: socket.socket, target: tuple[str, int], loop: Loop) -> None:
        self._listener, self._target, self._loop = listener, target, loop
        self._clients: dict[Key, tuple[socket.socket, float]] = {}  # the one that was silent longest first
        listener.setblocking(False)
        self._is_ipv6 = listener.family == socket.AF_INET6
        if self._is_ipv6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            self._kind = socket.IPPROTO_IPV6, socket.IPV6_PKTINFO
        else:
            listener.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            self._kind = socket.IPPROTO_IP, _IP_PKTINFO
        loop.watch(listener.fileno(), select.EPOLLIN, self._ask)

    def tick(self, now: float) -> None:
        """Forget clients that say nothing any more."""
        while self._clients:
            key, (_, last) = next(iter(self._clients.items()))
            if now - last < IDLE_S:
                return
            self._forget(key)

    def _ask(self, events: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, ancillary, _, client = self._listener.recvmsg(_DATAGRAM, _ANCILLARY)
            except OSError:  # nothing more; or an answer was refused, which is the next message's error
                return
            asked = b""
            for level, kind, content in ancillary:
                if (level, kind) == self._kind:
                    asked = self._answering(content)
            outlet = self._outlet((client, asked))
            if outlet is not None:
                with suppress(OSError):  # nobody listens there, or there is no room: as on any way
                    outlet.send(data)

    def _answering(self, info: bytes) -> bytes:
        """What lets an answer leave from where a question has come to."""
        if not self._is_ipv6:
            return _PKTINFO.pack(0, _PKTINFO.unpack(info[: _PKTINFO.size])[1], b"\0\0\0\0")
        address, interface = _PKTINFO6.unpack(info[: _PKTINFO6.size])
        return _PKTINFO6.pack(address, interface if address.startswith(_LINK_LOCAL6) else 0)

    def _outlet(self, key: Key) -> socket.socket | None:
        known = self._clients.pop(key, None)
        if known is not None:
            outlet = known[0]
        else:
            if len(self._clients) >= MOST:
                self._forget(next(iter(self._clients)))
            try:
                outlet = socket.socket(family_of(self._target[0]), socket.SOCK_DGRAM)
            except OSError:
                return None
            outlet.setblocking(False)
            try:
                outlet.connect(self._target)
            except OSError:
                outlet.close()
                return None
            self._loop.watch(outlet.fileno(), select.EPOLLIN, lambda _: self._answer(key, outlet))
        self._clients[key] = outlet, time.monotonic()
        return outlet

    def _answer(self, key: Key, outlet: socket.socket) -> None:
        client, asked = key
        info = [(*self._kind, asked)] if asked else []
        for _ in range(_AT_ONCE):
            try:
                data = outlet.recv(_DATAGRAM)
            except BlockingIOError:
                break
            except OSError:  # refused: the next question may find somebody
                return
            with suppress(OSError):
                self._listener.sendmsg([data], info, 0, client)
        if key in self._clients:
            del self._clients[key]
            self._clients[key] = outlet, time.monotonic()

    def _forget(self, key: Key) -> None:
        outlet, _ = self._clients.pop(key)
        self._loop.unwatch(outlet.fileno())
        outlet.close()
