"""What happened, in order: published once, kept for a while, and sent to everybody who listens.

Engine API, `GET /events`. Publishing never waits: a listener that does not keep up is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import field

from sampan.dataclasses import dataclass

KEPT = 256  # for `since`, as many as Docker
_SET_BACK_NS = 1_000_000_000  # more than the clock is slewed or events come faster than it counts
BACKLOG = 4096  # a listener further behind than this is ended


@dataclass(slots=True)
class Event:
    """One thing that happened.

    Attributes:
        type: container, image, network, volume, daemon.
        action: what happened, in Docker's words (create, start, die, "exec_start: sh", …).
        actor_id: the object's id or name.
        attributes: the object's labels and what else Docker tells of it.
        time_ns: nanoseconds since 1970.
        shown: the event as somebody shows it to many, kept for the next of them; empty before.
    """

    type: str
    action: str
    actor_id: str
    attributes: dict[str, str]
    time_ns: int
    shown: bytes = field(default=b"", compare=False, repr=False)


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
        # Never two at once, and never backwards, unless the clock was set back: times to come tell nothing.
        now_ns = time.time_ns()
        set_back = self._last_ns - now_ns > _SET_BACK_NS
        self._last_ns = now_ns if set_back else max(now_ns, self._last_ns + 1)
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
        async with contextlib.aclosing(self.batches(since_ns, until_ns, wanted)) as source:
            async for batch in source:
                for event in batch:
                    yield event

    async def batches(
        self,
        since_ns: int | None = None,
        until_ns: int | None = None,
        wanted: Callable[[Event], bool] = lambda _: True,
    ) -> AsyncGenerator[list[Event], None]:
        """As `listen`, but what has come together is given together: many listeners cost less so."""
        listener = _Listener()
        self._listeners.add(listener)
        queue = listener.queue
        try:
            past = [event for event in self._kept if event.time_ns >= (since_ns or 0)]
            if since_ns is None and until_ns is None:
                past = []
            chosen = [
                event for event in past if (until_ns is None or event.time_ns <= until_ns) and wanted(event)
            ]
            if chosen:
                yield chosen
            if until_ns is not None and any(event.time_ns > until_ns for event in past):
                return
            while True:
                if until_ns is None:
                    received = await queue.get()
                else:
                    left_s = (until_ns - time.time_ns()) / 1e9
                    if left_s <= 0:
                        return
                    try:
                        async with asyncio.timeout(left_s):
                            received = await queue.get()
                    except TimeoutError:
                        return
                chosen = []
                while received is not None:
                    if wanted(received):
                        chosen.append(received)
                    if queue.empty():
                        break
                    received = queue.get_nowait()
                if chosen:
                    yield chosen
                if received is None:
                    return
        finally:
            self._listeners.discard(listener)
