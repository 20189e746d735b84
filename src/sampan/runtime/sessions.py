"""Attached clients: output to them, stdin from them, framing, detach keys (Engine API, ContainerAttach)."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable

from sampan.linux.sockets import unread_bytes
from sampan.runtime.backlog import Backlog
from sampan.runtime.protocol import Attachment

READ_BYTES = 65536
_SEND_FLAGS = int(socket.MSG_DONTWAIT) | int(socket.MSG_NOSIGNAL)
HEAD_S = 0.1  # for how long output waits until the client has read the answer's head
STALLED_S = 1.0  # a client that takes nothing for so long keeps the process waiting no longer
GONE_S = 10.0  # … and is as good as gone, where what it does not take can be kept nowhere
STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}


def frame(stream: str, data: bytes) -> bytes:
    """`data` behind the 8-byte header that tells clients which stream it belongs to."""
    return struct.pack(">B3xI", STREAMS[stream], len(data)) + data


class DetachScanner:
    """Finds the detach keys in what a terminal's user types, across reads.

    Args:
        keys: the sequence; empty never matches.
    """

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on of `data`, and whether the sequence was completed.

        The beginning of a sequence is held back until it is clear that it is not one.
        """
        if not self._keys:
            return data, False
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    self._matched = 0
                    return bytes(passed), True
                continue
            passed += self._keys[: self._matched]
            self._matched = 0
            if byte == self._keys[0]:
                self._matched = 1
                if len(self._keys) == 1:
                    self._matched = 0
                    return bytes(passed), True
            else:
                passed.append(byte)
        return bytes(passed), False


class Session:
    """One attached client.

    Its first output waits until it has read what was sent before, the head of an HTTP answer: some clients
    (docker-py) read that through a buffer, go on with the bare socket, and would lose what came along.

    A client that takes output more slowly than it comes paces the process, as a pipe does. One that takes
    none does not: its share is then kept on the disk, until it has caught up. When that becomes too much, a
    patient one's process waits, since it wants every byte, and another one is let go.

    Args:
        fd: its socket; owned from now on.
        attachment: what it takes part in.
        terminal: the process has a terminal: detach keys count.
        patient: it may keep the process waiting for as long as it likes, when nothing more can be kept.
        directory: on whose file system output is kept for it; "" for nowhere.
        held: it takes nothing until `release`, since what comes before is on its way to it.
    """

    def __init__(
        self,
        fd: int,
        attachment: Attachment,
        terminal: bool,
        patient: bool,
        directory: str = "",
        held: bool = False,
    ) -> None:
        self.sock = socket.socket(fileno=fd)
        self.fd = fd
        self.reads = attachment.stdin
        self.wants = frozenset(
            name for name, wanted in (("stdout", attachment.stdout), ("stderr", attachment.stderr)) if wanted
        )
        self.framed = attachment.framed
        self.scanner = DetachScanner(attachment.detach_keys if terminal else b"")
        self.prefix = attachment.prefix
        self.pending = bytearray()  # what comes next; empty only when nothing at all waits
        self.ending = False  # gets what is pending, then is closed
        self.dead = False
        self.held = held
        self._opened = False  # the head was read, or HEAD_S have passed
        self._opens_at = 0.0
        self._patient = patient
        self._taken_at = 0.0  # when it last took bytes, while some are pending
        self._directory = directory
        self._backlog: Backlog | None = None  # what comes behind `pending`
        self._rest = bytearray()  # and behind that, for which the backlog had no room
        self._paid_bytes = 0  # what it took and has not yet been replaced, while there is a backlog
        self.half_closed = False  # it will send nothing more, which says nothing of what it still reads

    def send(self, stream: str, data: bytes) -> None:
        """Send output; what the client does not take at once is kept."""
        if self.dead or self.ending or stream not in self.wants:
            return
        if self.framed:
            data = frame(stream, data)
        if self.pending:
            self._keep(data)
            return
        sent = 0 if self.waits() else self._try(data)
        if sent < len(data) and not self.dead:
            self.pending += memoryview(data)[sent:]
            self._taken_at = time.monotonic() if not self.held else 0.0  # nobody waits for who is held

    def _keep(self, data: bytes) -> None:
        self._paid_bytes = max(0, self._paid_bytes - len(data))
        if self._backlog is None and self._directory and self._stalled():
            self._paid_bytes = 0
            try:
                self._backlog = Backlog(self._directory)
            except OSError:
                self._directory = ""  # no room, or a file system that knows no such files
        if self._backlog is None:
            self.pending += data
        else:
            kept = 0 if self._rest else self._backlog.put(data)
            self._rest += memoryview(data)[kept:]

    def flush(self) -> None:
        """Send what is pending, as far as the client takes it."""
        if self.pending and not self.dead and not self.waits():
            taken = self._try(self.pending)
            if taken:
                self._taken_at = time.monotonic()
                self._paid_bytes += taken
                del self.pending[:taken]
            if not self.pending and self._backlog is not None:
                self._refill(self._backlog)

    def _refill(self, backlog: Backlog) -> None:
        try:
            if len(backlog):
                self.pending += backlog.take(READ_BYTES)
        except OSError:
            self.dead = True  # what comes next is lost, and what is behind it must not be taken for it
            return
        if self._rest:
            del self._rest[: backlog.put(self._rest)]
        if not self.pending:
            self.pending, self._rest = self._rest, bytearray()
        if not len(backlog):
            backlog.close()
            self._backlog = None
            self._paid_bytes = 0

    def release(self) -> None:
        """What came before has been sent: go on."""
        self.held, self._opened = False, True
        self._taken_at = time.monotonic()
        self.flush()

    def detach(self) -> None:
        """Its user has left: what is on its way is still sent, what was kept is of no use."""
        self.ending = True
        self.reads = False
        self._rest.clear()
        if self._backlog is not None:
            self._backlog.close()
            self._backlog = None

    @property
    def memory_bytes(self) -> int:
        """How much is kept for it in memory."""
        return len(self.pending) + len(self._rest)

    def waits(self) -> bool:
        """Whether the client has the answer's head still to read, or something else before."""
        if self.held:
            return True
        if not self._opened:
            now = time.monotonic()
            self._opens_at = self._opens_at or now + HEAD_S
            try:
                self._opened = now >= self._opens_at or not unread_bytes(self.sock)
            except OSError:
                self._opened = True
        return not self._opened

    def _stalled(self) -> bool:
        return time.monotonic() >= self._taken_at + STALLED_S

    def holds(self) -> bool:
        """Whether the process has to wait for it now."""
        if not self.pending or self.dead:
            return False
        if self._rest or not self._directory:
            return True
        return not self._stalled() and (self._backlog is None or not self._paid_bytes)

    def tend(self) -> float:
        """Let go of it when it is due; seconds until to ask again, negative for when something happens."""
        if not self.pending or self.dead or (self._patient and (self._rest or not self._directory)):
            return -1.0
        limit = STALLED_S if self._directory else GONE_S
        left = self._taken_at + limit - time.monotonic()
        if left > 0:
            return left
        if self._rest or not self._directory:
            self.dead = True
        return -1.0

    def _try(self, data: bytes | bytearray) -> int:
        try:
            return self.sock.send(data, _SEND_FLAGS)
        except BlockingIOError:
            return 0
        except OSError:
            self.dead = True
            self.pending.clear()
            return 0

    def receive(self) -> bytes | None:
        """Bytes from the client; empty at the end of its side, None when there is nothing to read now."""
        try:
            return self.sock.recv(READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            self.dead = True
            return b""

    def close(self) -> None:
        """Tell the client that nothing more comes, and let go of it."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has left already
        self.sock.close()
        if self._backlog is not None:
            self._backlog.close()


class Stdin:
    """The way into the process's stdin: writes that do not block, and the end of it.

    Args:
        fd: the pipe's or terminal's descriptor, non-blocking.
        close: called once when stdin has ended and all was written.
    """

    def __init__(self, fd: int, close: Callable[[], None]) -> None:
        self.fd = fd
        self.pending = bytearray()
        self.closing = False
        self.closed = False
        self._close = close

    def write(self, data: bytes) -> None:
        """Pass bytes on; what does not fit is kept in `pending`."""
        if not self.closing:
            self.pending += data
            self.flush()

    def flush(self) -> None:
        """Write what is pending, as far as it fits."""
        if self.pending and not self.closed:
            written = _write(self.fd, self.pending)
            if written < 0:
                self.pending.clear()
                self.closing = True
            else:
                del self.pending[:written]
        if self.closing and not self.pending and not self.closed:
            self.closed = True
            self._close()

    def end(self) -> None:
        """No more will come: close when all is written."""
        self.closing = True
        self.flush()


def _write(fd: int, data: bytes | bytearray) -> int:
    """Bytes written: 0 when nothing fits, -1 when nobody will read it any more."""
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0
    except OSError:
        return -1
