"""What a running server's tasks and threads are doing at this moment, for SIGUSR1 and the debug pages."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Iterator


def stacks(deepest: int = 20) -> Iterator[str]:
    """A line for each task of this loop and each thread, innermost frame last.

    Args:
        deepest: how many frames of each to show.
    """
    for task in asyncio.all_tasks():
        frames = task.get_stack(limit=deepest)
        place = "; ".join(f"{frame.f_code.co_qualname}:{frame.f_lineno}" for frame in frames)
        yield f"task {task.get_name()}: {place or 'done'}"
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        stack = traceback.extract_stack(frame)[-deepest:]
        place = "; ".join(f"{item.name}:{item.lineno}" for item in stack)
        yield f"thread {names.get(ident, ident)}: {place}"
