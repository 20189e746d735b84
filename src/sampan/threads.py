"""Work in a thread of its own, beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_new_thread(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """The end of `work`, which runs in a thread of its own, as it may wait for a network or a client.

    All other work shares a few threads (the event loop's executor), and would wait for it there.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    # Whoever waited may have gone: what went wrong is then nobody's, and no warning either.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def tell(settle: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the daemon has left
            loop.call_soon_threadsafe(lambda: None if future.done() else settle())

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # handed to whoever awaits the future
            failure = error
            tell(lambda: future.set_exception(failure))
        else:
            tell(lambda: future.set_result(result))

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
