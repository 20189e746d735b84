"""Request bodies with an end: limits on size, and on how slow a client may be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from sampan.http import Request
from sampan.registry.server.faults import SizeInvalid, TooLarge, TooSlow

STALL_S = 60.0
SLOWEST_BYTES = 1024  # in each `STALL_S`


def announced(request: Request) -> int | None:
    """The body's length as the head tells it, None when it comes in chunks of unknown number."""
    text = request.headers.get("content-length")
    if text is None:
        return None if "transfer-encoding" in request.headers else 0
    return int(text)


async def pieces(request: Request) -> AsyncIterator[list[bytes]]:
    """The body as it comes, several pieces at a time.

    Raises:
        TooSlow: next to nothing has come for a while.
        ConnectionError: the client is gone.
    """
    start, received = time.monotonic(), 0
    while True:
        try:
            async with asyncio.timeout(STALL_S):
                some = await request.body.read_pieces()
        except TimeoutError:
            raise TooSlow(f"nothing was received for {STALL_S:.0f} seconds") from None
        if not some:
            return
        yield some
        received += sum(map(len, some))
        now = time.monotonic()
        if now - start > STALL_S:
            if received < SLOWEST_BYTES:
                raise TooSlow(f"only {received} bytes were received in {STALL_S:.0f} seconds")
            start, received = now, 0


async def whole(request: Request, limit_bytes: int, refusal: TooLarge) -> bytes:
    """A small body.

    Raises:
        TooLarge: `refusal`, when it has more than `limit_bytes`.
        SizeInvalid: it is shorter than announced.
    """
    length = announced(request)
    if length is not None and length > limit_bytes:
        raise refusal
    parts: list[bytes] = []
    size = 0
    async for some in pieces(request):
        size += sum(map(len, some))
        if size > limit_bytes:
            raise refusal
        parts += some
    if length is not None and size != length:
        raise SizeInvalid(f"{length} bytes were announced, {size} were received")
    return b"".join(parts)
