"""Asking one upstream once, by UDP or TCP, from a container's network namespace or from the host's.

A namespace's sockets are few and were opened by the daemon, as this process may not enter it; they are used
again and again (`sampan.linux.reuse`). A UDP socket that nobody waits at gives its port back, so that the
next question goes out from another; with more questions on their way than sockets some share a port, and the
16 random bits of the id tell them apart. From the host's namespace each question has a socket of its own.
"""

from __future__ import annotations

import errno
import random
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from sampan.linux.reuse import IP_RECVERR, dissolve
from sampan.resolver.protocol import Upstream
from sampan.resolver.wire import LARGEST_BYTES, Query, Reply, forwarded, parse_reply
from sampan.runtime.loop import Loop

_PORT = 53
_BURST = 16
_LENGTH = struct.Struct(">H")
_random = random.SystemRandom()


def destination(upstream: Upstream) -> tuple[Any, ...]:
    """An upstream's socket address."""
    if ":" in upstream.address:
        return (upstream.address, _PORT, 0, upstream.scope)
    return (upstream.address, _PORT)


class Attempt:
    """One question to one upstream.

    Args:
        done: called once, with the answer, or with None when there will be none. Not called after `cancel`.
    """

    __slots__ = ("_done", "address", "holder", "ident", "query")

    def __init__(self, query: Query, upstream: Upstream, done: Callable[[Reply | None], None]) -> None:
        self.query = query
        self.address = destination(upstream)
        self.holder: _Holder | None = None
        self.ident = -1
        self._done: Callable[[Reply | None], None] | None = done

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._done is None

    def finish(self, reply: Reply | None) -> None:
        """Tell who waits, and let the socket go."""
        done = self._done
        self.cancel()
        if done is not None:
            done(reply)

    def cancel(self) -> None:
        """Wait no more."""
        self._done = None
        holder, self.holder = self.holder, None
        if holder is not None:
            holder.release(self)


class _Holder:
    """What an attempt occupies."""

    def release(self, attempt: Attempt) -> None:
        raise NotImplementedError


class UdpOutlet(_Holder):
    """A UDP socket and the questions that went out by it. `lasting`: it is kept when nobody waits at it."""

    def __init__(self, loop: Loop, end: socket.socket, *, lasting: bool) -> None:
        self._loop = loop
        self._socket = end
        self._lasting = lasting
        self._waiting: dict[int, Attempt] = {}
        loop.watch(end.fileno(), select.EPOLLIN, self._ready)

    @property
    def load(self) -> int:
        """How many questions wait here for answers."""
        return len(self._waiting)

    def ask(self, attempt: Attempt) -> None:
        """Send a question; one that cannot be sent is an attempt that failed."""
        ident = _random.getrandbits(16)
        while ident in self._waiting:
            ident = _random.getrandbits(16)
        self._waiting[ident] = attempt
        attempt.ident, attempt.holder = ident, self
        data = forwarded(attempt.query, ident)
        try:
            self._socket.sendto(data, attempt.address)
        except OSError:
            try:  # what is reported may have been an earlier question's end
                self._socket.sendto(data, attempt.address)
            except OSError:
                attempt.finish(None)

    def release(self, attempt: Attempt) -> None:
        """Forget a question, and the port if it was the last."""
        self._waiting.pop(attempt.ident, None)
        if self._waiting:
            return
        if self._lasting:
            with suppress(OSError):
                dissolve(self._socket)
        else:
            self.close()

    def close(self) -> None:
        """Give the socket back; who waited is told that there is no answer."""
        if self._socket.fileno() < 0:
            return
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        for attempt in list(self._waiting.values()):
            attempt.holder = None
            attempt.finish(None)
        self._waiting = {}

    def _ready(self, events: int) -> None:
        if events & select.EPOLLERR:
            self._read_errors()
        for _ in range(_BURST):
            if self._socket.fileno() < 0:
                return
            try:
                data, address = self._socket.recvfrom(LARGEST_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # a pending error, which is gone now
            attempt = self._waiting.get(_ident(data))
            if attempt is None or address[:2] != attempt.address[:2]:
                continue
            reply = parse_reply(attempt.query, data)
            if reply is not None:
                attempt.finish(reply)

    def _read_errors(self) -> None:
        """Questions that came back (ICMP, IP_RECVERR in ip(7)): their upstream does not answer."""
        for _ in range(_BURST):
            if self._socket.fileno() < 0:
                return
            try:
                data, _, _, address = self._socket.recvmsg(2, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return
            attempt = self._waiting.get(_ident(data))
            if attempt is not None and address is not None and address[:2] == attempt.address[:2]:
                attempt.finish(None)


def _ident(data: bytes) -> int:
    return int.from_bytes(data[:2], "big") if len(data) >= 2 else -1


class TcpOutlet(_Holder):
    """A TCP socket that takes one question at a time (RFC 7766). `freed`: it can take the next."""

    def __init__(self, loop: Loop, end: socket.socket, freed: Callable[[TcpOutlet], None]) -> None:
        self._loop = loop
        self._socket = end
        self._freed = freed
        self._attempt: Attempt | None = None
        self._out = b""
        self._in = bytearray()

    def ask(self, attempt: Attempt) -> None:
        """Connect and send a question; what cannot be is an attempt that failed."""
        attempt.ident = _random.getrandbits(16)
        data = forwarded(attempt.query, attempt.ident)
        self._out, self._in = _LENGTH.pack(len(data)) + data, bytearray()
        self._attempt = attempt
        attempt.holder = self
        if self._socket.connect_ex(attempt.address) not in (0, errno.EINPROGRESS):
            attempt.finish(None)
            return
        self._loop.watch(self._socket.fileno(), select.EPOLLOUT, self._ready)

    def release(self, attempt: Attempt) -> None:
        """End the connection."""
        if self._attempt is attempt:
            self._attempt = None
            self._loop.unwatch(self._socket.fileno())
            self._freed(self)

    def dissolve(self) -> bool:
        """Make the socket ready for another connection; whether that could be done."""
        try:
            dissolve(self._socket)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Give the socket back; who waited is told that there is no answer."""
        if self._attempt is not None:
            self._attempt.finish(None)
        self._socket.close()

    def _ready(self, events: int) -> None:
        attempt = self._attempt
        if attempt is None:
            return
        try:
            if self._out:
                self._out = self._out[self._socket.send(self._out) :]
                if not self._out:
                    self._loop.set_mask(self._socket.fileno(), select.EPOLLIN)
                return
            chunk = self._socket.recv(LARGEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            attempt.finish(None)
            return
        self._in += chunk
        if not chunk:
            attempt.finish(None)
        elif len(self._in) >= 2 and len(self._in) >= 2 + _LENGTH.unpack_from(self._in)[0]:
            data = bytes(self._in[2 : 2 + _LENGTH.unpack_from(self._in)[0]])
            right = _ident(data) == attempt.ident
            attempt.finish(parse_reply(attempt.query, data) if right else None)


class NamespaceOutlets:
    """The sockets of one container's network namespace. Questions by TCP wait until one is free."""

    def __init__(self, loop: Loop, udp: Sequence[socket.socket], tcp: Sequence[socket.socket]) -> None:
        self._udp = [UdpOutlet(loop, end, lasting=True) for end in udp]
        self._tcp = [TcpOutlet(loop, end, self._freed) for end in tcp]
        self._free = list(self._tcp)
        self._queue: deque[Attempt] = deque()
        self._closed = self._pumping = False

    def ask_udp(self, attempt: Attempt) -> None:
        """Send a question by the socket with the least to do."""
        if not self._udp:
            attempt.finish(None)
            return
        least = min(outlet.load for outlet in self._udp)
        _random.choice([outlet for outlet in self._udp if outlet.load == least]).ask(attempt)

    def ask_tcp(self, attempt: Attempt) -> None:
        """Send a question by TCP."""
        if not self._tcp:
            attempt.finish(None)
        else:
            self._queue.append(attempt)
            self._pump()

    def _freed(self, outlet: TcpOutlet) -> None:
        if self._closed:
            return
        if outlet.dissolve():
            self._free.append(outlet)
            self._pump()
        else:
            self._tcp.remove(outlet)
            outlet.close()

    def _pump(self) -> None:
        """Give free sockets what waits. One that fails at once is free again before `ask` returns."""
        if self._pumping:
            return
        self._pumping = True
        while self._free and self._queue:
            attempt = self._queue.popleft()
            if not attempt.over:
                self._free.pop().ask(attempt)
        self._pumping = False

    def close(self) -> None:
        """Give the sockets back, without which the namespace would not end."""
        self._closed = True
        for attempt in self._queue:
            attempt.finish(None)
        for udp in self._udp:
            udp.close()
        for tcp in self._tcp:
            tcp.close()


class HostOutlets:
    """Sockets of the network namespace that this process lives in: one for each question."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def ask_udp(self, attempt: Attempt) -> None:
        """Send a question."""
        end = self._open(attempt, socket.SOCK_DGRAM)
        if end is not None:
            if end.family == socket.AF_INET:
                end.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            UdpOutlet(self._loop, end, lasting=False).ask(attempt)

    def ask_tcp(self, attempt: Attempt) -> None:
        """Send a question by TCP."""
        end = self._open(attempt, socket.SOCK_STREAM)
        if end is not None:
            TcpOutlet(self._loop, end, TcpOutlet.close).ask(attempt)

    def _open(self, attempt: Attempt, kind: int) -> socket.socket | None:
        family = socket.AF_INET6 if len(attempt.address) == 4 else socket.AF_INET
        try:
            return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError:  # no descriptor left, no IPv6
            attempt.finish(None)
            return None
