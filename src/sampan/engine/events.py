"""What happened, in order: published once, kept for a while, and sent to everybody who listens.

Engine API, `GET /events`. Publishing never waits: a listener that does not keep up is ended.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

KEPT = 256  # for `since`, as many as Docker
BACKLOG = 4096  # a listener further behind than this is ended


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        type: container, image, network, volume, daemon.
        action: what happened, in Docker's words (create, start, die, "exec_start: sh", …).
        actor_id: the object's id or name.
        attributes: the object's labels and what else Docker tells of it.
        time_ns: nanoseconds since 1970.
    """

    type: str
    action: str
    actor_id: str
    attributes: dict[str, str]
    time_ns: int


@dataclass(eq=False, slots=True)
class _Listener:
    queue: asyncio.Queue[Event | None] = field(default_factory=lambda: asyncio.Queue(BACKLOG))


class EventBus:
    """The engine's events. `publish` may be called from any thread, the rest on the event loop.

    Attributes:
        published: how many there have been.
    """

    def __init__(self) -> None:
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._listeners: set[_Listener] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last_ns = 0
        self.published = 0

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the loop that listeners live on."""
        self._loop = loop

    @property
    def listeners(self) -> int:
        """How many are listening now."""
        return len(self._listeners)

    def publish(self, type_: str, action: str, actor_id: str, attributes: dict[str, str]) -> None:
        """Tell everybody, without waiting for anybody."""
        loop = self._loop
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if loop is None or running is loop:
            self._deliver(type_, action, actor_id, attributes)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(self._deliver, type_, action, actor_id, attributes)

    def _deliver(self, type_: str, action: str, actor_id: str, attributes: dict[str, str]) -> None:
        self._last_ns = max(time.time_ns(), self._last_ns + 1)  # never two at once, never backwards
        event = Event(type_, action, actor_id, attributes, self._last_ns)
        self._kept.append(event)
        self.published += 1
        for listener in tuple(self._listeners):
            try:
                listener.queue.put_nowait(event)
            except asyncio.QueueFull:
                self._listeners.discard(listener)
                listener.queue.get_nowait()
                listener.queue.put_nowait(None)

    async def listen(
        self,
        since_ns: int | None = None,
        until_ns: int | None = None,
        wanted: Callable[[Event], bool] = lambda _: True,
    ) -> AsyncGenerator[Event, None]:
        """Past events from `since_ns` on, then new ones, up to `until_ns`; without either only new ones."""
        listener = _Listener()
        self._listeners.add(listener)
        try:
            past = [event for event in self._kept if event.time_ns >= (since_ns or 0)]
            if since_ns is None and until_ns is None:
                past = []
            for event in past:
                if until_ns is not None and event.time_ns > until_ns:
                    return
                if wanted(event):
                    yield event
            while True:
                left_s = None if until_ns is None else (until_ns - time.time_ns()) / 1e9
                if left_s is not None and left_s <= 0:
                    return
                try:
                    async with asyncio.timeout(left_s):
                        received = await listener.queue.get()
                except TimeoutError:
                    return
                if received is None:
                    return
                if wanted(received):
                    yield received
        finally:
            self._listeners.discard(listener)
