"""Unpacking layers in a process beside the daemon, whose threads would take turns at one interpreter lock.

The daemon starts it, lends it the directory and the blob as descriptors (SCM_RIGHTS, unix(7)), and tells how
far the blob has grown; the process answers with what it unpacked, or why it could not, and takes the next
layer. It is a fresh interpreter, as the launcher is, knows nothing of what lies below a layer, and ends with
its socket or its parent.

    daemon   {"layer": true} + root, blob     {"received": 1048576} …     {"end": true}
    process  {"read": 1048576} …   {"size": 3, "diff_id": "sha256:…"}   or   {"error": "…", "kind": "invalid"}
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sampan.errors import SampanError
from sampan.helpers import Program, start_helper
from sampan.storage.errors import DriverError, InvalidLayer, ParentNeeded

_MESSAGE_BYTES = 64 << 10
_TELL_BYTES = 4 << 20
_ERRORS: dict[str, type[SampanError]] = {
    "invalid": InvalidLayer,
    "parent": ParentNeeded,
    "other": DriverError,
}
_PROGRAM = Program("sampan.storage.unpack_process", "sampan-unpack", "serve", libraries=True)


class UnpackProcess:
    """The daemon's end. One layer at a time; `kill` may come from any thread."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = start_helper(_PROGRAM, [theirs.fileno(), os.getpid()])
        except BaseException:
            self._socket.close()
            raise
        self.usable = True

    def unpack(
        self, root: int, blob: int, growth: Iterable[int], tell: Callable[[int], None] | None = None
    ) -> tuple[int, str | None]:
        """Unpack a blob, plain or compressed, beneath a directory.

        Args:
            root: the empty directory.
            blob: descriptor of the file.
            growth: yields how many bytes of it are there, ever more; its end is the blob's.
            tell: receives how many bytes of it have been read.

        Returns:
            the sum of the files' sizes, and the diff id if the blob is compressed.

        Raises:
            InvalidLayer: the layer is broken or hostile.
            ParentNeeded: it cannot be unpacked alone.
            DriverError: the disk is full, or the process died.
            Exception: what `growth` raised. The process is gone after any error.
        """
        try:
            listens = self._tell(b'{"layer": true}', [root, blob])
            for received in growth:
                if not (listens and self._tell(b'{"received": %d}' % received)):
                    break
            else:
                self._tell(b'{"end": true}')
            found = self._answer()
            while "read" in found:
                if tell is not None:
                    tell(found["read"])
                found = self._answer()
            if "error" in found:
                raise _ERRORS[found["kind"]](found["error"])
        except BaseException:
            self.usable = False
            self.kill()
            raise
        return found["size"], found["diff_id"]

    def _answer(self) -> dict[str, Any]:
        try:
            answer = self._socket.recv(_MESSAGE_BYTES)
        except ConnectionResetError:  # it went with messages unread; its answer comes after this
            answer = self._socket.recv(_MESSAGE_BYTES)
        if not answer:
            raise DriverError("the process that unpacks layers has died")
        found: dict[str, Any] = json.loads(answer)
        return found

    def _tell(self, message: bytes, fds: Sequence[int] = ()) -> bool:
        """Whether it takes the message; if not, it has left an answer."""
        try:
            socket.send_fds(self._socket, [message], fds)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self._process.kill()

    def close(self) -> None:
        """Let it end, which it does at once when it has no layer, and wait for that."""
        self._socket.close()
        self._process.wait()


class Apart:
    """A blob to be unpacked by another process, in the place of its stream (`Driver.prepare_ahead`)."""

    def __init__(
        self,
        process: UnpackProcess,
        blob: int,
        growth: Iterable[int],
        tell: Callable[[int], None] | None = None,
    ) -> None:
        self.diff_id: str | None = None  # of a compressed layer, once it is unpacked
        self._process = process
        self._blob = blob
        self._growth = growth
        self._tell = tell

    def unpack(self, root: int) -> int:
        """As `Unpacker.run`, beneath the directory `root`."""
        size, self.diff_id = self._process.unpack(root, self._blob, self._growth, self._tell)
        return size


# --- in the process ---


class _Followed:
    """The blob, as far as it has come."""

    def __init__(self, sock: socket.socket, blob: int, parent: int) -> None:
        self._socket = sock
        self._blob = blob
        self._parent = parent
        self._at = self._received = self._told = 0
        self._ended = False

    def read(self, size: int = -1, /) -> bytes:
        if os.getppid() != self._parent:
            raise EOFError  # the daemon is dead, and the next one clears away what was begun
        while self._at >= self._received and not self._ended:
            message = _receive(self._socket)
            self._received = message.get("received", self._received)
            self._ended = "end" in message
        data = os.pread(self._blob, min(size, self._received - self._at), self._at)
        self._at += len(data)
        if self._at - self._told >= _TELL_BYTES:
            self._told = self._at
            with contextlib.suppress(BlockingIOError):  # nobody reads it yet, and the next one will do
                self._socket.send(b'{"read": %d}' % self._at, socket.MSG_DONTWAIT)
        return data

    def finish(self) -> None:
        """Take what is still said of the blob."""
        while not self._ended:
            self._ended = "end" in _receive(self._socket)


def _receive(sock: socket.socket) -> dict[str, Any]:
    data = sock.recv(_MESSAGE_BYTES)
    if not data:
        raise EOFError
    message: dict[str, Any] = json.loads(data)
    return message


def serve(fd: int, parent: int) -> None:
    """The process: layers one after the other, until the daemon closes its end of the socket `fd`."""
    from sampan.storage.compression import Hashing, ReadAhead, decompressed
    from sampan.storage.lower_view import UnknownLower
    from sampan.storage.overlay2 import OverlayWhiteouts
    from sampan.storage.unpack import Unpacker

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=fd) as sock, contextlib.suppress(EOFError, ConnectionError):
        while True:
            data, fds, _, _ = socket.recv_fds(sock, _MESSAGE_BYTES, 2)
            if not data:
                return
            root, blob = fds
            try:
                followed = _Followed(sock, blob, parent)
                unpacker = Unpacker(root, OverlayWhiteouts(UnknownLower()), None, UnknownLower().lookup)
                kind, plain = decompressed(followed)
                diff_id = None
                if kind:
                    hashing = Hashing(plain)
                    with ReadAhead(hashing) as stream:
                        size = unpacker.run(stream)
                    diff_id = hashing.digest
                else:
                    size = unpacker.run(plain)
                followed.finish()
            except (SampanError, OSError) as error:
                if isinstance(error, ConnectionError):
                    raise
                names = [name for name, known in _ERRORS.items() if isinstance(error, known)]
                answer = {"error": str(error)[:2000], "kind": names[0] if names else "other"}
                sock.send(json.dumps(answer).encode())
                return
            finally:
                os.close(root)
                os.close(blob)
            sock.send(json.dumps({"size": size, "diff_id": diff_id}).encode())
