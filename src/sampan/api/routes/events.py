"""`GET /events`: what happens, as it happens."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from sampan.api import filters
from sampan.api.routes.containers import timestamp_ns
from sampan.engine import Engine, Event
from sampan.errors import InvalidParameter
from sampan.http import Request, Response, Routes, dump_json, stream
from sampan.oci.reference import parse

routes = Routes()

_NAMED = ("daemon", "container", "plugin", "volume", "network", "node", "service", "secret", "config")
_FILTERS = frozenset((*_NAMED, "image", "type", "event", "label", "scope"))
_WITH_DETAILS = frozenset(("health_status", "exec_create", "exec_start"))  # actions with more behind a colon


@routes.get("/events")
async def events(request: Request) -> Response:
    """Events from `since` on, until `until` or for ever."""
    engine: Engine = request.engine
    wanted = _wanted(request.query.filters())
    since = request.query.get("since")
    until = request.query.get("until")
    since_ns, until_ns = timestamp_ns(since) if since else None, timestamp_ns(until) if until else None
    if since_ns is not None and until_ns is not None and since_ns > until_ns:
        raise InvalidParameter(f"`since` time ({since}) cannot be after `until` time ({until})")
    source = engine.events.batches(since_ns, until_ns, wanted)

    async def lines() -> AsyncIterator[bytes]:
        yield b""  # the head at once: clients wait for it
        async with contextlib.aclosing(source):
            async for batch in source:
                yield b"".join(_line(event) for event in batch)

    return stream(lines())


def _line(event: Event) -> bytes:
    """The event as JSON, made once for all who listen."""
    if not event.shown:
        event.shown = dump_json(_shape(event))
    return event.shown


def _shape(event: Event) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.actor_id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time_ns // 1_000_000_000,
        "timeNano": event.time_ns,
    }
    if event.type in ("container", "image"):  # the form from before API 1.22, still sent by Docker
        shape |= {"status": event.action, "id": event.actor_id}
        if event.type == "container":
            shape["from"] = event.attributes.get("image", "")
    return shape


def _wanted(given: filters.Filters) -> Callable[[Event], bool]:
    """Which events the filters let through; moby, `daemon/events/filter.go`."""
    filters.check(given, _FILTERS)
    named = [name for name in _NAMED if name in given]
    loose = bool(_WITH_DETAILS & set(given.get("event", ())))
    acts = filters.begins if loose else list.__contains__

    def test(event: Event) -> bool:
        if "type" in given and event.type not in given["type"]:
            return False
        if "event" in given and not acts(given["event"], event.action):
            return False
        if "scope" in given and "local" not in given["scope"]:
            return False
        name = event.attributes.get("name", "")
        for kind in named:
            if not filters.begins(given[kind], event.actor_id) and not filters.begins(given[kind], name):
                return False
        if "image" in given and given["image"] and _images_of(event).isdisjoint(given["image"]):
            return False
        return filters.labelled(given.get("label", ()), event.attributes)

    return test


def _images_of(event: Event) -> set[str]:
    """What the image of an event may be called, or that of a container's event: with its tag and without."""
    name = event.attributes.get("name" if event.type == "image" else "image", "")
    return {event.actor_id, name, _without_tag(event.actor_id), _without_tag(name)} - {""}


def _without_tag(text: str) -> str:
    try:
        return parse(text).familiar_name
    except InvalidParameter:
        return text
