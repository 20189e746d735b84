"""Bytes between the user and a container over a hijacked connection, in one thread.

Without a terminal the container's output comes in frames (Engine API, "Attach to a container"): a kind
byte (1 stdout, 2 stderr), three zeros, a big-endian length. Our end of input is a half-close.
"""

from __future__ import annotations

import os
import select

from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sampan.cli.client import Channel
    from sampan.cli.detach import Watcher

_PIECE = 256 * 1024


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write everything."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody made our terminal non-blocking
            select.select([], [fd], [])


class Frames:
    """Takes framed bytes as they come and writes each kind to its descriptor."""

    def __init__(self, outputs: dict[int, int] | None = None) -> None:
        self._outputs = outputs if outputs is not None else {1: 1, 2: 2}
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Write what is complete; frames of one kind that follow each other go out in one write."""
        if self._rest:
            data = self._rest + data
        position, end = 0, len(data)
        kind = 0
        parts: list[bytes] = []
        while end - position >= 8:
            length = int.from_bytes(data[position + 4 : position + 8], "big")
            stop = position + 8 + length
            if stop > end:
                break
            if data[position] != kind:
                self._flush(kind, parts)
                kind, parts = data[position], []
            parts.append(data[position + 8 : stop])
            position = stop
        self._flush(kind, parts)
        self._rest = data[position:]

    def _flush(self, kind: int, parts: list[bytes]) -> None:
        if not parts:
            return
        if kind == 3:
            raise CommandError(f"error from daemon in stream: {b''.join(parts).decode('utf-8', 'replace')}")
        fd = self._outputs.get(kind if kind else 1)
        if fd is not None:
            write_all(fd, parts[0] if len(parts) == 1 else b"".join(parts))


class Copier:
    """One attached connection.

    Args:
        channel: hijacked; its buffer may already hold output.
        framed: no terminal, so the output is in frames.
        stdin: descriptor to read from, or None.
        outputs: kind -> descriptor of the kinds that are wanted.
        watcher: of the detach keys, for a terminal.
    """

    def __init__(
        self,
        channel: Channel,
        framed: bool,
        stdin: int | None,
        outputs: dict[int, int] | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self._channel = channel
        self._socket: Any = channel.socket
        self._frames = Frames(outputs) if framed else None
        self._stdin = stdin
        self._watcher = watcher
        self._secure = hasattr(self._socket, "pending")
        self._pending = b""
        self._input_over = stdin is None
        self._closing = False

    def copy(self) -> bool:
        """Copy until the container's output ends; True when the user detached instead."""
        first, self._channel.buffer = self._channel.buffer, b""
        if first:
            self._show(first)
        self._socket.setblocking(False)
        poller = select.poll()
        fd = self._socket.fileno()
        want = -1
        reading = False
        while True:
            if self._secure and self._socket.pending() and not self._receive():
                return False
            mask = select.POLLIN | (select.POLLOUT if self._pending or self._closing else 0)
            if mask != want:
                poller.register(fd, mask)
                want = mask
            read_input = not self._input_over and not self._pending
            if read_input != reading and self._stdin is not None:
                if read_input:
                    poller.register(self._stdin, select.POLLIN)
                else:
                    poller.unregister(self._stdin)
                reading = read_input
            for ready, events in poller.poll():
                if ready == fd:
                    if events & select.POLLOUT:
                        self._push(b"")
                    if events & ~select.POLLOUT and not self._receive():
                        return False
                elif self._take_input():
                    return True

    def _receive(self) -> bool:
        while True:
            try:
                data = self._socket.recv(_PIECE)
            except BlockingIOError:
                return True
            except ConnectionResetError:
                return False
            if not data:
                return False
            self._show(data)
            if not (self._secure and self._socket.pending()):
                return True

    def _show(self, data: bytes) -> None:
        if self._frames is not None:
            self._frames.feed(data)
        else:
            write_all(1, data)

    def _take_input(self) -> bool:
        assert self._stdin is not None
        try:
            data = os.read(self._stdin, _PIECE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._input_over = True
            self._half_close()
            return False
        if self._watcher is not None:
            data, done = self._watcher.feed(data)
            if done:
                if data:
                    self._push(data)
                return True
        if data:
            self._push(data)
        return False

    def _push(self, data: bytes) -> None:
        pending = self._pending + data if self._pending else data
        try:
            sent = self._socket.send(pending) if pending else 0
        except BlockingIOError:
            sent = 0
        except (BrokenPipeError, ConnectionResetError):
            self._input_over = True
            sent = len(pending)
        self._pending = pending[sent:]
        if not self._pending and self._closing:
            self._half_close()

    def _half_close(self) -> None:
        self._closing = True
        if self._pending:
            return
        try:
            self._socket.shutdown(1)
            self._closing = False
        except BlockingIOError:
            pass  # TLS has a farewell to send, and no room yet
        except OSError:
            self._closing = False  # the other side has gone first: the next read sees it


def show_frames(pieces: Iterable[bytes]) -> None:
    """Write a framed body (logs) to our stdout and stderr."""
    frames = Frames()
    for piece in pieces:
        frames.feed(piece)


def show_raw(pieces: Iterable[bytes]) -> None:
    """Write an unframed body to our stdout."""
    for piece in pieces:
        write_all(1, piece)
