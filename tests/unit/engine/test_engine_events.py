"""Events: order, replay, filters by time, and a listener that does not keep up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest

from sampan.engine import events
from sampan.engine.events import Event, EventBus


def run(scenario: object) -> object:
    return asyncio.run(asyncio.wait_for(scenario(), 5))  # type: ignore[operator]


def test_the_past_is_replayed_and_the_future_follows() -> None:
    async def scenario() -> list[str]:
        bus = EventBus()
        bus.bind(asyncio.get_running_loop())
        bus.publish("container", "create", "a", {})
        seen: list[str] = []

        async def listen() -> None:
            async with contextlib.aclosing(bus.listen(since_ns=0)) as source:
                async for event in source:
                    seen.append(event.action)
                    if event.action == "die":
                        return

        task = asyncio.create_task(listen())
        await asyncio.sleep(0)
        thread = threading.Thread(target=bus.publish, args=("container", "start", "a", {}))
        thread.start()
        thread.join()
        await asyncio.sleep(0.01)
        bus.publish("container", "die", "a", {})
        await task
        assert bus.listeners == 0
        return seen

    assert run(scenario) == ["create", "start", "die"]


def test_times_never_repeat_and_until_ends_the_listening() -> None:
    async def scenario() -> list[Event]:
        bus = EventBus()
        bus.bind(asyncio.get_running_loop())
        for number in range(100):
            bus.publish("container", str(number), "a", {})
        return [event async for event in bus.listen(since_ns=0, until_ns=time.time_ns() + 10_000_000)]

    seen = run(scenario)
    assert isinstance(seen, list) and len(seen) == 100
    times = [event.time_ns for event in seen]
    assert times == sorted(set(times))


def test_a_listener_that_does_not_keep_up_is_ended() -> None:
    async def scenario() -> int:
        bus = EventBus()
        bus.bind(asyncio.get_running_loop())
        source = bus.listen()
        first = asyncio.ensure_future(anext(source))
        await asyncio.sleep(0)
        for number in range(events.BACKLOG + 10):
            bus.publish("container", str(number), "a", {})
        await first
        rest = [event async for event in source]
        assert bus.listeners == 0
        return len(rest)

    assert run(scenario) < events.BACKLOG


def test_events_that_come_together_are_given_together() -> None:
    async def hear() -> list[list[str]]:
        bus = EventBus()
        bus.bind(asyncio.get_running_loop())
        source = bus.batches(wanted=lambda event: event.action != "not this")
        waiting = asyncio.ensure_future(anext(source))
        await asyncio.sleep(0)
        for action in ("first", "not this", "second"):
            bus.publish("container", action, "id", {})
        heard = [await waiting]
        bus.publish("container", "third", "id", {})
        heard.append(await anext(source))
        await source.aclose()
        assert bus.listeners == 0
        return [[event.action for event in batch] for batch in heard]

    assert asyncio.run(hear()) == [["first", "second"], ["third"]]


def test_a_clock_that_is_set_back_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> list[int]:
        bus = EventBus()
        bus.bind(asyncio.get_running_loop())
        for now_s in (10_000, 10_000, 9_999.9999, 5_000, 5_000):
            monkeypatch.setattr(time, "time_ns", lambda now_s=now_s: int(now_s * 10**9))
            bus.publish("container", "start", "x", {})
        return [event.time_ns for event in bus._kept]

    times = asyncio.run(main())
    assert times[:3] == [10_000 * 10**9 + n for n in range(3)]
    assert times[3:] == [5_000 * 10**9 + n for n in range(2)]
