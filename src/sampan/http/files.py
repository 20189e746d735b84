"""Bytes of files to sockets by sendfile(2): threads copy, the event loop waits for slow clients."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from typing import TypeVar

T = TypeVar("T")

SMALL_FILE_BYTES = 64 << 10  # up to this a body goes out with its head, in one write
PIECE_BYTES = 256 << 10
CALL_BYTES = 4 << 20
SLICE_BYTES = 64 << 20
SLICE_PATIENCE_MS = 20
STALL_S = 60.0  # a client that takes nothing for so long is given up


def read_exactly(fd: int, offset: int, length: int) -> bytes:
    """`length` bytes of a file from `offset` on.

    Raises:
        EOFError: the file is shorter.
    """
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            raise EOFError(f"a file of at least {offset + length} bytes ends at {offset + len(data)}")
        data += more
    return data


async def finish(work: asyncio.Future[T]) -> T:
    """The result of a thread's work; a cancellation waits for it, as it uses descriptors of ours."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait((work,))
        raise


async def send_file(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, fd: int, offset: int, length: int
) -> None:
    """Send a part of a file on a connected socket whose transport has nothing left to write.

    Raises:
        ConnectionError: the client went away, or took nothing for `STALL_S` seconds.
        EOFError: the file is shorter.
    """
    # A descriptor of our own: the transport's may close meanwhile, and is registered with the loop already.
    own = os.dup(sock.fileno())
    try:
        end = offset + length
        while offset < end:
            sent = await finish(loop.run_in_executor(None, _send_slice, own, fd, offset, end - offset))
            offset += sent
            if offset < end and sent < SLICE_BYTES:
                await _until_writable(loop, own)
    finally:
        os.close(own)


def _send_slice(out: int, fd: int, offset: int, length: int) -> int:
    """Send as much as goes without waiting long; the number of bytes, possibly 0."""
    sent = 0
    poll = select.poll()
    poll.register(out, select.POLLOUT)
    while sent < min(length, SLICE_BYTES):
        try:
            count = os.sendfile(out, fd, offset + sent, min(length - sent, CALL_BYTES))
        except BlockingIOError:
            if not poll.poll(SLICE_PATIENCE_MS):
                break
            continue
        if not count:
            raise EOFError(f"the file ends {length - sent} bytes early")
        sent += count
    return sent


async def _until_writable(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    ready = loop.create_future()
    loop.add_writer(fd, _wake, ready)
    try:
        async with asyncio.timeout(STALL_S):
            await ready
    except TimeoutError:
        raise ConnectionAbortedError(f"the client has taken nothing for {STALL_S:.0f} seconds") from None
    finally:
        loop.remove_writer(fd)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
