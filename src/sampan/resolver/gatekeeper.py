"""Has the daemon open what a name was answered with, and hands the answer on when it is open.

This process may not touch the firewall; so without a daemon nothing is opened, and such names are not
answered.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from sampan.dataclasses import dataclass
from sampan.resolver.answers import Malformed, addresses, spelled
from sampan.resolver.clock import Clock, Timer
from sampan.resolver.protocol import LONGEST_TTL_S
from sampan.resolver.wire import AAAA, ANY, IN, A, Query

_WAIT_S = 5.0
_MOST_WAITING = 1024
_MOST_TOLD = 20  # refused names a second, of all containers
_SECOND = 1.0

Deliver = Callable[[bytes | None], None]


@dataclass(slots=True)
class _Waiting:
    data: bytes
    deliver: Deliver
    timer: Timer


class Gatekeeper:
    """All answers that wait.

    Args:
        tell: says something to the daemon; whether that got on its way.
    """

    def __init__(self, clock: Clock, tell: Callable[[dict[str, Any]], bool]) -> None:
        self._clock = clock
        self._tell = tell
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._told, self._since = 0, 0.0

    def passing(self, container_id: str, query: Query, answer: bytes, deliver: Deliver) -> None:
        """An answer is to be handed on: `deliver` it once its addresses are open, or None if they are not."""
        if query.klass != IN or query.kind not in (A, AAAA, ANY):
            deliver(answer)
            return
        try:
            found, data = addresses(query, answer, LONGEST_TTL_S)
        except Malformed:
            deliver(None)
            return
        if not found:
            deliver(data)
            return
        if len(self._waiting) >= _MOST_WAITING:
            deliver(None)
            return
        number = next(self._numbers)
        timer = self._clock.after(_WAIT_S, lambda: self.opened(number, False))
        self._waiting[number] = _Waiting(data, deliver, timer)
        name = spelled(query.key)
        message = {
            "event": "open",
            "id": number,
            "container_id": container_id,
            "name": name,
            "addresses": found,
        }
        if not self._tell(message):
            self.opened(number, False)

    def opened(self, number: int, done: bool) -> None:
        """The daemon has opened what an answer has, or has not."""
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            waiting.timer.cancel()
            waiting.deliver(waiting.data if done else None)

    def give_up(self) -> None:
        """There is no daemon any more."""
        for number in list(self._waiting):
            self.opened(number, False)

    def refused(self, container_id: str, query: Query) -> None:
        """A name was not asked of upstreams, as the container's policy does not have it."""
        now = time.monotonic()
        if now - self._since >= _SECOND:
            self._told, self._since = 0, now
        self._told += 1
        if self._told <= _MOST_TOLD:
            self._tell({"event": "refused", "container_id": container_id, "name": spelled(query.key)})
