"""Answers made of progress messages, one JSON object a line, while a thread works."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from sampan.engine import Engine
from sampan.errors import SampanError
from sampan.http import Request, Response, dump_json, stream
from sampan.storage.tar_reader import Readable
from sampan.threads import in_new_thread

Progress = Callable[[dict[str, Any]], None]
_STALE_BEYOND = 256


class ClientLeft(SampanError):
    """Nobody reads the messages any more; the work that tells them ends here."""


async def coroutine_response(
    work: Callable[[Progress], Awaitable[None]], request: Request, cancel: Callable[[], None]
) -> Response:
    """As `progress_response`, for a coroutine; the function it is passed takes calls from any thread.

    Args:
        work: goes on to its own end when the client goes away.
        cancel: called then.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def put(message: dict[str, Any]) -> None:
        if queue.qsize() < _STALE_BEYOND or "progressDetail" not in message:
            queue.put_nowait(message)

    def tell(message: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(put, message)

    async def run() -> None:
        try:
            await work(tell)
        finally:
            loop.call_soon_threadsafe(queue.put_nowait, None)

    engine: Engine = request.engine
    task = engine.spawn(asyncio.create_task(run(), name="build"))
    watch = _watch(request, cancel)
    task.add_done_callback(lambda _done: watch.cancel())
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # maybe nobody asks for it
    try:
        first = await queue.get()
    except asyncio.CancelledError:
        cancel()
        raise
    return await _streamed(first, queue, task)


async def progress_response(
    work: Callable[[Progress], None],
    request: Request | None = None,
    cancel: Callable[[], None] | None = None,
) -> Response:
    """Run `work` in a thread of its own, and stream the messages it gives to the function it is passed.

    An error before the first message is raised here, and so gets its status; a later one becomes Docker's
    last message, `{"errorDetail": {"message": …}, "error": …}`. A client that reads too slowly misses numbers
    that later ones make stale. Once the client has left, the next message that `work` gives raises
    `ClientLeft`, unless there is `cancel`.

    Args:
        work: tells by the function that it is passed.
        cancel: called when the client of `request` goes away before the end; messages then go nowhere.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    left = threading.Event()

    def put(message: dict[str, Any]) -> None:
        if queue.qsize() < _STALE_BEYOND or "progress" not in message:
            queue.put_nowait(message)

    def tell(message: dict[str, Any]) -> None:
        if not left.is_set():
            loop.call_soon_threadsafe(put, message)
        elif cancel is None:
            raise ClientLeft("the client has gone away")

    def run() -> None:
        try:
            work(tell)
        finally:
            loop.call_soon_threadsafe(queue.put_nowait, None)

    task = in_new_thread(run, "progress")
    if request is not None and cancel is not None:
        watch = _watch(request, cancel)
        task.add_done_callback(lambda _done: watch.cancel())
    try:
        first = await queue.get()
    except asyncio.CancelledError:
        left.set()
        raise
    return await _streamed(first, queue, task, left.set)


async def _streamed(
    first: dict[str, Any] | None,
    queue: asyncio.Queue[dict[str, Any] | None],
    work: Awaitable[None],
    close: Callable[[], None] = lambda: None,
) -> Response:
    """The answer made of messages up to None, and the error that `work` ends with."""
    if first is None:
        await asyncio.shield(work)

    async def lines() -> AsyncIterator[bytes]:
        message = first
        try:
            while message is not None:
                yield _line(message)
                message = await queue.get()
            try:
                await asyncio.shield(work)
            except (SampanError, OSError) as error:
                detail: dict[str, Any] = {"message": str(error)}
                code = getattr(error, "code", None)
                if isinstance(code, int):  # of the command that failed
                    detail = {"code": code, **detail}
                yield _line({"errorDetail": detail, "error": str(error)})
        finally:
            close()

    return stream(lines())


def _line(message: dict[str, Any]) -> bytes:
    """A message on a line that ends as Docker's do."""
    return dump_json(message)[:-1] + b"\r\n"


def _watch(request: Request, cancel: Callable[[], None]) -> asyncio.Task[None]:
    """Call `cancel` when the client goes away; to be cancelled itself at the end of the work."""

    async def watch() -> None:
        await request.disconnected()
        cancel()

    return asyncio.get_running_loop().create_task(watch())


class Watched:
    """Tells of the progress of what is read through it, at most every 100 ms.

    Args:
        stream: what is read.
        total: how many bytes it has; None when nobody knows.
        tell: receives `progressDetail` and what older clients show.
    """

    def __init__(self, stream: Readable, total: int | None, tell: Callable[[dict[str, Any]], None]) -> None:
        self._stream = stream
        self._total = total
        self._tell = tell
        self._done = 0
        self._last_s = 0.0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._done += len(data)
        now = time.monotonic()
        if now - self._last_s > 0.1 or not data:
            self._last_s = now
            detail = (
                {"current": self._done}
                if self._total is None
                else {"current": self._done, "total": self._total}
            )
            self._tell({"progressDetail": detail})
        return data
