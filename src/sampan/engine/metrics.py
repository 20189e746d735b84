"""What the engine counts of its own work, for monitoring; the names of the actions are Docker's.

Counting costs a few additions on the event loop's thread, which alone may call.
"""

from __future__ import annotations

import functools
import time
from bisect import bisect_left
from collections.abc import Callable, Coroutine
from dataclasses import field
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sampan.dataclasses import dataclass

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M", bound="Measured")

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CONTAINER_ACTIONS = ("changes", "commit", "create", "delete", "start")


@dataclass(slots=True)
class Histogram:
    """How many observations fell into each of `BUCKETS_S` and behind the last, and their sum in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds


class Metrics:
    """The counters of one engine.

    Attributes:
        started_at: when the engine came to be, seconds since 1970.
        container_actions: how long what succeeded of each action took.
        health_starts: how long it took to begin a health check.
        health_checks, health_checks_failed: how many were begun, and how many of them could not be run.
    """

    def __init__(self) -> None:
        self.started_at = time.time()
        self.container_actions = {name: Histogram() for name in CONTAINER_ACTIONS}
        self.health_starts = Histogram()
        self.health_checks = 0
        self.health_checks_failed = 0


class Measured(Protocol):
    """What `timed` asks of the first argument: an engine."""

    metrics: Metrics


_Work = Callable[Concatenate[M, P], Coroutine[Any, Any, T]]


def timed(
    action: str,
) -> Callable[[_Work[M, P, T]], _Work[M, P, T]]:
    """Time what the decorated coroutine does as one of `CONTAINER_ACTIONS`; a failure is not counted."""

    def decorate(work: _Work[M, P, T]) -> _Work[M, P, T]:
        @functools.wraps(work)
        async def measured(core: M, /, *arguments: P.args, **named: P.kwargs) -> T:
            begun = time.perf_counter()
            result = await work(core, *arguments, **named)
            core.metrics.container_actions[action].observe(time.perf_counter() - begun)
            return result

        return measured

    return decorate
