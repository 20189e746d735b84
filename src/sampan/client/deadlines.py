"""Deadlines, and clean-up that a cancellation cannot cut short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sampan.client.errors import DeadlineExceeded
from sampan.errors import SampanError

GRACE_S = 10.0  # for the daemon to end and remove what a call had made
T = TypeVar("T")


@asynccontextmanager
async def deadline(timeout: float | None, what: str) -> AsyncIterator[None]:
    """Cancel the body after `timeout` seconds.

    Raises:
        DeadlineExceeded: it has passed; the body has cleaned up by then.
    """
    passing = asyncio.timeout(timeout)
    try:
        async with passing:
            yield
    except TimeoutError as error:
        if not passing.expired():
            raise
        raise DeadlineExceeded(f"{what} did not end within {timeout:g} seconds") from error


async def undo(error: BaseException, work: Coroutine[Any, Any, None]) -> None:
    """Clean up after `error`, which stays what is raised: a failure of the clean-up becomes a note on it."""

    async def bounded() -> None:
        async with asyncio.timeout(GRACE_S):
            await work

    try:
        await to_its_end(bounded())
    except (SampanError, TimeoutError) as failure:
        error.add_note(
            f"What the call had made may be left: {failure or 'the daemon did not answer in time'}"
        )


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` whole, at most `GRACE_S` seconds once our own task has been cancelled.

    The cancellation is raised when the work is done, and carries the work's failure as its context.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    stop_at = 0.0
    loop = asyncio.get_running_loop()
    while not task.done():
        try:
            await asyncio.wait([task], timeout=max(0.0, stop_at - loop.time()) if cancelled else None)
        except asyncio.CancelledError as error:
            if cancelled is None:
                cancelled, stop_at = error, loop.time() + GRACE_S
        else:
            if cancelled is not None and not task.done():
                task.cancel()
                raise cancelled
    if cancelled is None:
        return await task
    if not task.cancelled() and (failure := task.exception()) is not None:
        raise cancelled from failure
    raise cancelled
