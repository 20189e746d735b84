"""Answers made of progress messages, one JSON object a line, while a thread works."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from sampan.errors import SampanError
from sampan.http import Response, dump_json, stream

Progress = Callable[[dict[str, Any]], None]


class ClientLeft(SampanError):
    """Nobody reads the messages any more; the work that tells them ends here."""


async def progress_response(work: Callable[[Progress], None]) -> Response:
    """Run `work` in a thread and stream the messages it gives to the function it is passed.

    An error before the first message is raised here, and so gets its status; a later one becomes Docker's
    last message, `{"errorDetail": {"message": …}, "error": …}`. Once the client has left, the next message
    that `work` gives raises `ClientLeft`.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    left = threading.Event()

    def tell(message: dict[str, Any]) -> None:
        if left.is_set():
            raise ClientLeft("the client has gone away")
        loop.call_soon_threadsafe(queue.put_nowait, message)

    def run() -> None:
        try:
            work(tell)
        finally:
            loop.call_soon_threadsafe(queue.put_nowait, None)

    task = loop.run_in_executor(None, run)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # maybe nobody asks for it
    try:
        first = await queue.get()
    except asyncio.CancelledError:
        left.set()
        raise
    if first is None:
        await task

    async def lines() -> AsyncIterator[bytes]:
        message = first
        try:
            while message is not None:
                yield dump_json(message)
                message = await queue.get()
            try:
                await task
            except (SampanError, OSError) as error:
                yield dump_json({"errorDetail": {"message": str(error)}, "error": str(error)})
        finally:
            left.set()

    return stream(lines())
