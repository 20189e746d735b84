"""Questions by TCP (RFC 7766): few connections for each container, each with bounded buffers and time."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from sampan.resolver.clock import Clock, Timer
from sampan.runtime.loop import Loop

MOST_CONNECTIONS = 32
IDLE_S = 10.0
_MOST_QUESTION = 2048
_MOST_UNANSWERED = 16
_MOST_WAITING = 1 << 16  # bytes of answers
_BURST = 8
_PAUSE_S = 0.5
_LENGTH = struct.Struct(">H")

Handle = Callable[[bytes, Callable[[bytes], None]], None]


class Listener:
    """One container's listening socket and its connections.

    Args:
        handle: takes a question and how to answer it, now or later.
    """

    def __init__(self, loop: Loop, clock: Clock, end: socket.socket, handle: Handle) -> None:
        self.loop = loop
        self.clock = clock
        self.handle = handle
        self.connections: dict[int, Connection] = {}  # by descriptor, the longest idle first
        self._socket = end
        loop.watch(end.fileno(), select.EPOLLIN, self._ready)

    def _ready(self, events: int) -> None:
        for _ in range(_BURST):
            try:
                end, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptor left: nothing would come of asking again at once
                self.loop.set_mask(self._socket.fileno(), 0)
                self.clock.after(_PAUSE_S, self._go_on)
                return
            if len(self.connections) >= MOST_CONNECTIONS:
                next(iter(self.connections.values())).close()
            end.setblocking(False)
            Connection(self, end)

    def _go_on(self) -> None:
        if self._socket.fileno() >= 0:
            self.loop.set_mask(self._socket.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Give all sockets back."""
        self.loop.unwatch(self._socket.fileno())
        self._socket.close()
        for connection in list(self.connections.values()):
            connection.close()


class Connection:
    """One client, among its listener's connections while open; not read from while its answers pile up."""

    def __init__(self, listener: Listener, end: socket.socket) -> None:
        self._listener = listener
        self._socket = end
        self._in = bytearray()
        self._out = bytearray()
        self._unanswered = 0
        self._working = False
        self._ended = False  # the client has sent all it will
        self._timer: Timer | None = None
        listener.loop.watch(end.fileno(), select.EPOLLIN, self._ready)
        self._await_more()

    def _await_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._listener.clock.after(IDLE_S, self.close)
        connections, fd = self._listener.connections, self._socket.fileno()
        connections.pop(fd, None)
        connections[fd] = self  # the last of them to be closed for a new one

    def _ready(self, events: int) -> None:
        if events & (select.EPOLLHUP | select.EPOLLERR):
            self.close()
            return
        try:
            if self._out:
                self._flush()
            if events & select.EPOLLIN and not self._ended:
                chunk = self._socket.recv(4096)
                self._in += chunk
                self._ended = not chunk
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._work()

    def _work(self) -> None:
        """Take what questions there are; an answer that comes at once does not begin this anew."""
        if self._working:
            return
        self._working = True
        while self._unanswered < _MOST_UNANSWERED and len(self._out) < _MOST_WAITING:
            length = _LENGTH.unpack_from(self._in)[0] if len(self._in) >= 2 else _MOST_QUESTION
            if length > _MOST_QUESTION:
                self.close()
            if self._socket.fileno() < 0 or len(self._in) < 2 + length:
                break
            data = bytes(self._in[2 : 2 + length])
            del self._in[: 2 + length]
            self._unanswered += 1
            self._await_more()
            self._listener.handle(data, self._answer)
        self._working = False
        if self._socket.fileno() >= 0:
            self._settle()

    def _answer(self, data: bytes) -> None:
        if self._socket.fileno() < 0:
            return
        self._unanswered -= 1
        if data:  # no answer is the answer
            self._out += _LENGTH.pack(len(data)) + data
        try:
            self._flush()
        except OSError:
            self.close()
            return
        self._work()

    def _flush(self) -> None:
        if not self._out:
            return
        with suppress(BlockingIOError):
            del self._out[: self._socket.send(self._out)]

    def _settle(self) -> None:
        """Wait for what can come next, or leave when nothing can."""
        if self._ended and not self._out and not self._unanswered:
            self.close()
            return
        mask = select.EPOLLOUT if self._out else 0
        if not self._ended and not self._out and self._unanswered < _MOST_UNANSWERED:
            mask |= select.EPOLLIN
        self._listener.loop.set_mask(self._socket.fileno(), mask)

    def close(self) -> None:
        """Hang up."""
        if self._timer is not None:
            self._timer.cancel()
        fd = self._socket.fileno()
        if fd < 0:
            return
        self._listener.loop.unwatch(fd)
        self._listener.connections.pop(fd, None)
        self._socket.close()
