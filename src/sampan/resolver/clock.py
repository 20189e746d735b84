"""When what has been waited for long enough is given up: a heap of deadlines beside the event loop."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable


class Timer:
    """One deadline; `cancel` is for good."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Do nothing when the time comes."""
        self.action = None


class Clock:
    """Deadlines in order; a cancelled one stays, as a few words, until its time comes."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Call `action` when so much time has passed."""
        timer = Timer(action)
        heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._count), timer))
        return timer

    def wait_s(self) -> float:
        """How long nothing is due; negative for ever."""
        while self._heap and self._heap[0][2].action is None:
            heapq.heappop(self._heap)
        return max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else -1.0

    def run_due(self) -> None:
        """Call what is due."""
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            action, timer.action = timer.action, None
            if action is not None:
                action()
