"""A request's body on its way from the socket to a handler, or to a worker thread, with back-pressure.

The event loop feeds it; one reader, a coroutine or a thread, takes from it. Past `HIGH_BYTES` unread the
connection stops reading from its socket until the reader has caught up. A thread that asked for it is lent
the socket of a large body (`lending.py`).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from sampan.errors import InvalidParameter
from sampan.http.lending import LentSocket

HIGH_BYTES = 1 << 20
LOW_BYTES = 1 << 18
LEND_BYTES = 1 << 18  # a body longer than this is large
_IOV_MAX = 1024


class Body:
    """The bytes of one request's body.

    Args:
        loop: the loop that feeds it.
        wanted: called once, in the loop, when somebody starts to read (time for `100 Continue`).
        resume: called in the loop when there is room again after `feed` said that there is none.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, wanted: Callable[[], None], resume: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._wanted: Callable[[], None] | None = wanted
        self._resume = resume
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._full = False
        self._lock = threading.Lock()
        self._arrived: threading.Condition | None = None  # of a thread that reads
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._fed = 0
        self._wants_socket = False
        self._lent: LentSocket | None = None
        self.complete = False

    # --- the connection's side, in the loop ---

    def feed(self, data: bytes) -> bool:
        """Add received bytes; False asks the caller to stop reading until `resume` is called."""
        with self._lock:
            self._pieces.append(data)
            self._size += len(data)
            self._fed += len(data)
            # Once full it stays so until the reader resumes it: bytes read from the socket before it was
            # stopped may come when the reader has taken some, but not yet enough to have told us.
            self._full = full = self._full or self._size > HIGH_BYTES
            self._tell_thread()
        self._wake()
        return not full

    @property
    def wants_socket(self) -> bool:
        """Whether its reader, a thread, would rather read the rest from the socket itself."""
        return self._wants_socket and self._fed > LEND_BYTES and self._lent is None

    def lend(self, lent: LentSocket) -> None:
        """From here to the end of the body, or of the connection, the reader reads from the socket."""
        with self._lock:
            self._lent = lent
            self._full = False
            self._tell_thread()

    @property
    def lent(self) -> bool:
        """Whether what is missing is not the event loop's to read."""
        return self._lent is not None and not self.complete

    def drop(self) -> None:
        """Nobody reads it any more."""
        if self._lent is not None:
            self._lent.end()

    def finish(self) -> None:
        """The whole body has been fed."""
        with self._lock:
            self.complete = True
            self._tell_thread()
        self._wake()

    def fail(self, error: Exception) -> None:
        """The rest will never come: readers get `error` once they have read what is there."""
        with self._lock:
            if not self.complete and self._error is None:
                self._error = error
            self._tell_thread()
        self._wake()

    def _tell_thread(self) -> None:
        if self._arrived is not None:
            self._arrived.notify()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- the reader's side ---

    def _take(self) -> bytes | None:
        """What is there, b"" at the end, None when one must wait; called with the lock held."""
        if self._pieces:
            data = self._pieces.popleft()
            self._size -= len(data)
            if self._full and self._size < LOW_BYTES:
                self._full = False
                self._loop.call_soon_threadsafe(self._resume)
            return data
        if self._error is not None:
            raise self._error
        return b"" if self.complete else None

    def take_now(self) -> bytes:
        """All that has been received and not read yet, without waiting."""
        with self._lock:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            if self._full:
                self._full = False
                self._loop.call_soon(self._resume)
        return data

    async def read_some(self) -> bytes:
        """The next bytes, b"" at the end.

        Raises:
            ConnectionError: the client went away in the middle.
            InvalidParameter: the body is not well-formed HTTP.
        """
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            wanted()
        while True:
            with self._lock:
                data = self._take()
            if data is not None:
                return data
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def read_pieces(self) -> list[bytes]:
        """The next bytes in as many pieces as they came, all that is there; nothing at the end.

        Raises:
            ConnectionError: the client went away in the middle.
            InvalidParameter: the body is not well-formed HTTP.
        """
        pieces = [await self.read_some()]
        if not pieces[0]:
            return []
        with self._lock:
            while self._pieces:
                pieces.append(self._take() or b"")
        return pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.read_some():
            yield data

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body.

        Raises:
            InvalidParameter: it is longer than `limit_bytes`.
        """
        pieces: list[bytes] = []
        size = 0
        while data := await self.read_some():
            size += len(data)
            if size > limit_bytes:
                raise InvalidParameter(f"the request body is larger than {limit_bytes} bytes")
            pieces.append(data)
        return b"".join(pieces)

    def pieces_in_thread(self) -> Sequence[bytes | memoryview]:
        """The next bytes, for a thread other than the loop's; blocks. They are good until the next call.

        Raises:
            ConnectionError, InvalidParameter: as `read_some`.
        """
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            self._loop.call_soon_threadsafe(wanted)
        lent: LentSocket | None = None
        while True:
            with self._lock:
                while (data := self._take()) is None and self._lent is lent:
                    if self._arrived is None:
                        self._arrived = threading.Condition(self._lock)
                    self._arrived.wait()
                lent = self._lent
            if data is not None:
                return [data] if data else []
            if lent is not None and (pieces := lent.receive()):
                return pieces

    def stream(self, direct: bool = False) -> BodyStream:
        """The body for a worker thread; `direct` to read a large one from the socket itself if it can."""
        self._wants_socket = direct
        return BodyStream(self)


class BodyStream:
    """A `Body` with `read` for a worker thread: it blocks, and ends with b""."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._piece = b""
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        """Bytes as they came, without copying them together: often fewer than `size`; with -1 all.

        Raises:
            OSError: the client went away, or what it sends is not well-formed.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(HIGH_BYTES), b""))
        if self._at == len(self._piece):
            self._keep(self._pieces())
        data = self._piece[self._at : self._at + size]  # no copy when it is the whole
        self._at += len(data)
        return data

    def copy_to(self, fd: int, size: int) -> int:
        """Write some of the next `size` bytes to a file; how many, 0 at the end.

        Raises:
            OSError: as `read`, or of the file.
        """
        if self._at == len(self._piece):
            pieces = self._pieces()
            count = sum(map(len, pieces))
            if 0 < count <= size:
                _write_all(fd, pieces)
                return count
            self._keep(pieces)
        with memoryview(self._piece) as view, view[self._at : self._at + size] as part:
            _write_all(fd, [part])
            self._at += len(part)
            return len(part)

    def _keep(self, pieces: Sequence[bytes | memoryview]) -> None:
        first = pieces[0] if pieces else b""
        self._piece = first if len(pieces) < 2 and isinstance(first, bytes) else b"".join(pieces)
        self._at = 0

    def _pieces(self) -> Sequence[bytes | memoryview]:
        try:
            return self._body.pieces_in_thread()
        except InvalidParameter as error:
            raise OSError(error.message) from error


def _write_all(fd: int, pieces: Sequence[bytes | memoryview]) -> None:
    for at in range(0, len(pieces), _IOV_MAX):
        batch = pieces[at : at + _IOV_MAX]
        written = os.writev(fd, batch)
        if written < sum(map(len, batch)):
            rest = memoryview(b"".join(batch))[written:]
            while rest:
                rest = rest[os.write(fd, rest) :]
