"""TCP connections, handed on as bytes that never enter this process: splice(2) through a pipe.

A direction has a pipe only while bytes are in it; where the receiver is slow they wait there, and nothing
more is read. An end of one side's stream is an end of the other's (half-close), an error ends both.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct

from sampan.runtime.loop import Loop

_CHUNK = 1 << 16  # what a pipe holds
_PIECES = 16  # of one connection, then others have their turn
_ACCEPTED_AT_ONCE = 64
_SPARE_PIPES = 64
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_ABORT = struct.pack("ii", 1, 0)


class Pipes:
    """Pipes that are empty, to be used again."""

    def __init__(self) -> None:
        self._spare: list[tuple[int, int]] = []

    def get(self) -> tuple[int, int]:
        """An empty pipe.

        Raises:
            OSError: no descriptor is left.
        """
        return self._spare.pop() if self._spare else os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def put(self, pipe: tuple[int, int]) -> None:
        """Give an empty pipe back."""
        if len(self._spare) < _SPARE_PIPES:
            self._spare.append(pipe)
        else:
            _close_pipe(pipe)


class _Direction:
    """Bytes from one socket to the other.

    Attributes:
        held: how many are in the pipe.
        done: the source has ended, and the sink knows.
    """

    def __init__(self, source: socket.socket, sink: socket.socket, pipes: Pipes) -> None:
        self._source, self._sink, self._pipes = source, sink, pipes
        self._pipe: tuple[int, int] | None = None
        self.held = 0
        self.done = False

    def pump(self) -> None:
        """Move what can be moved now, within bounds.

        Raises:
            OSError: a side has broken off.
        """
        for _ in range(_PIECES):
            if self.done or not (self.held or self._fill()):
                break
            assert self._pipe is not None
            try:
                self.held -= os.splice(self._pipe[0], self._sink.fileno(), self.held, flags=_FLAGS)
            except BlockingIOError:
                return
        if not self.held and self._pipe is not None:
            self._pipes.put(self._pipe)
            self._pipe = None

    def _fill(self) -> bool:
        if self._pipe is None:
            self._pipe = self._pipes.get()
        try:
            self.held = os.splice(self._source.fileno(), self._pipe[1], _CHUNK, flags=_FLAGS)
        except BlockingIOError:
            return False
        if not self.held:
            self.done = True
            self._sink.shutdown(socket.SHUT_WR)
        return bool(self.held)

    def close(self) -> None:
        """Drop what is held."""
        if self._pipe is not None:
            _close_pipe(self._pipe)
            self._pipe = None


class _Connection:
    """A client, the container's side, and the bytes between them."""

    def __init__(self, client: socket.socket, server: socket.socket, loop: Loop, pipes: Pipes) -> None:
        self._ends = (client, server)
        self._ways = (_Direction(client, server, pipes), _Direction(server, client, pipes))
        self._loop = loop
        self._connected = False
        loop.watch(server.fileno(), select.EPOLLOUT, self._turn)

    def _turn(self, events: int) -> None:
        try:
            if not self._connected:
                number = self._ends[1].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if number:
                    raise OSError(number, os.strerror(number))
                self._connected = True
            for way in self._ways:
                way.pump()
        except OSError:
            self.close(abort=True)
            return
        if all(way.done for way in self._ways):
            self.close()
            return
        for end, out, into in zip(self._ends, self._ways, reversed(self._ways), strict=True):
            mask = 0 if out.done or out.held else select.EPOLLIN
            mask |= select.EPOLLOUT if into.held else 0
            self._wait(end.fileno(), mask)

    def _wait(self, fd: int, mask: int) -> None:
        """Wait for these events alone: for none not at all, as epoll tells of a hang-up unasked."""
        if not mask:
            self._loop.unwatch(fd)
        elif fd in self._loop:
            self._loop.set_mask(fd, mask)
        else:
            self._loop.watch(fd, mask, self._turn)

    def close(self, *, abort: bool = False) -> None:
        """End both sides; with `abort`, so that they know that it was no orderly end."""
        for end in self._ends:
            self._loop.unwatch(end.fileno())
            if abort:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            end.close()
        for way in self._ways:
            way.close()


class TcpForwarder:
    """One published port.

    Args:
        listener: listens at the host's.
        target: address and port in the container.

    Attributes:
        pausing: nobody is accepted for want of descriptors, until the next `tick`.
    """

    def __init__(self, listener: socket.socket, target: tuple[str, int], loop: Loop, pipes: Pipes) -> None:
        self._listener, self._target, self._loop, self._pipes = listener, target, loop, pipes
        self.pausing = False
        listener.setblocking(False)
        loop.watch(listener.fileno(), select.EPOLLIN, self._accept)

    def tick(self, now: float) -> None:
        """Go on accepting after there was no room."""
        if self.pausing:
            self.pausing = False
            self._loop.watch(self._listener.fileno(), select.EPOLLIN, self._accept)

    def _accept(self, events: int) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._loop.unwatch(self._listener.fileno())
                    self.pausing = True
                    return
                continue  # it has broken off while it waited
            self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.socket(family_of(self._target[0]), socket.SOCK_STREAM)
        except OSError:
            _refuse(client)
            return
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        number = server.connect_ex(self._target)
        if number not in (0, errno.EINPROGRESS):
            server.close()
            _refuse(client)
            return
        _Connection(client, server, self._loop, self._pipes)


def family_of(address: str) -> socket.AddressFamily:
    """The family of an address in its textual form."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _refuse(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    client.close()


def _close_pipe(pipe: tuple[int, int]) -> None:
    for fd in pipe:
        os.close(fd)
