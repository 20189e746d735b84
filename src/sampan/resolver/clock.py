"""When what has been waited for long enough is given up: a heap of deadlines beside the event loop."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable

_FEW = 1024


class Timer:
    """One deadline; `cancel` is for good."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Do nothing when the time comes."""
        self.action = None


class Clock:
    """Deadlines in order; cancelled ones are swept out when they may be the most there are."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self._sweep_at = _FEW

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Call `action` when so much time has passed."""
        if len(self._heap) >= self._sweep_at:  # a client that asks without end sets as many
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._sweep_at = max(_FEW, 2 * len(self._heap))
        timer = Timer(action)
        heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._count), timer))
        return timer

    def __len__(self) -> int:
        """How many deadlines are kept, cancelled ones included."""
        return len(self._heap)

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
