"""The socket of a large chunked body, lent to the worker thread that wants the bytes.

On the way through the event loop each byte is taken from the socket by one thread and used by another, which
take turns at the interpreter's lock, and is copied together in between. A thread that has the socket itself
hands what it received straight to the kernel again (`writev`).
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable

from sampan.errors import InvalidParameter
from sampan.http.chunks import ChunkDecoder

RECEIVE_BYTES = 1 << 20


class LentSocket:
    """A socket from which the event loop does not read meanwhile.

    Args:
        sock: a duplicate of the connection's, which does not block; it is closed at the end.
        chunks: the decoder, in the middle of the body.
        give_back: called once from the thread when it needs the socket no more: with what begins with the
            last chunk, or with b"" where the connection has ended or failed, as the loop will find, too.
    """

    def __init__(self, sock: socket.socket, chunks: ChunkDecoder, give_back: Callable[[bytes], None]) -> None:
        self._socket = sock
        self._chunks = chunks
        self._give_back = give_back
        self._buffer = bytearray(RECEIVE_BYTES)
        self._lock = threading.Lock()  # held while the descriptor is in use
        self._over = False

    def receive(self) -> list[memoryview]:
        """Content that has arrived, good until the next call; waits for some. Nothing once it is given back.

        Raises:
            InvalidParameter: this is no chunked body.
        """
        with self._lock:
            while not self._over:
                pieces: list[memoryview] = []
                rest: bytes | None = b""
                count = self._fill()
                if count:
                    try:
                        pieces, rest = self._chunks.feed(self._buffer, count)
                    except InvalidParameter:
                        self._close()
                        raise
                if rest is not None:
                    self._close()
                    self._give_back(rest)
                if pieces:
                    return pieces
            self._close()
        return []

    def _fill(self) -> int:
        """Receive into the buffer: how many bytes, 0 at the connection's end."""
        while True:
            try:
                return self._socket.recv_into(self._buffer)
            except BlockingIOError:
                waiting = select.poll()
                waiting.register(self._socket, select.POLLIN)
                waiting.poll()
            except OSError:
                return 0

    def _close(self) -> None:
        self._over = True
        self._socket.close()

    def end(self) -> None:
        """Nobody wants the rest. Who waits in `receive` is woken by a shutdown of the connection."""
        self._over = True
        if self._lock.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._lock.release()
