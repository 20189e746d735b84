"""The file that a worker thread writes a response to: pieces cross to the event loop, a few at a time."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable
from typing import BinaryIO, cast

PIECE_BYTES = 256 << 10
PIECES_IN_FLIGHT = 4


class ThreadWriter(io.RawIOBase):
    """Written to in a thread, read with `next_piece` in the loop.

    Args:
        loop: the loop of the reading side.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = threading.Semaphore(PIECES_IN_FLIGHT)
        self._buffer = bytearray()
        self._abandoned = False
        self._owed = False

    # --- the thread's side ---

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        if self._abandoned:
            raise BrokenPipeError("the client is gone")
        size = memoryview(data).nbytes
        if not self._buffer and size >= PIECE_BYTES:
            self._pass_on(bytes(data))
            return size
        self._buffer += data
        if len(self._buffer) >= PIECE_BYTES:
            self._pass_on(bytes(self._buffer))
            self._buffer.clear()
        return size

    def _pass_on(self, piece: bytes) -> None:
        self._room.acquire()
        if self._abandoned:
            raise BrokenPipeError("the client is gone")
        self._loop.call_soon_threadsafe(self._queue.put_nowait, piece)

    def run(self, writer: Callable[[BinaryIO], None]) -> None:
        """Let `writer` write, then pass on the rest; the end is announced whatever happens."""
        try:
            writer(cast("BinaryIO", self))
            if self._buffer:
                self._pass_on(bytes(self._buffer))
        finally:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, None)

    # --- the loop's side ---

    async def next_piece(self) -> bytes | None:
        """The next bytes, None when the writer has ended; asking for it frees the room of the one before."""
        if self._owed:
            self._room.release()
            self._owed = False
        piece = await self._queue.get()
        self._owed = piece is not None
        return piece

    def abandon(self) -> None:
        """Nobody reads any more: the writer's next write raises `BrokenPipeError`."""
        self._abandoned = True
        self._room.release(PIECES_IN_FLIGHT + 1)
