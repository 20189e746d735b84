"""`GET /events`: what happens, as it happens."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from sampan.api.routes.containers import timestamp_ns
from sampan.engine import Engine, Event
from sampan.errors import InvalidParameter
from sampan.http import Request, Response, Routes, dump_json, stream

routes = Routes()

_SAME_AS_TYPE = {"container", "image", "network", "volume", "daemon", "plugin"}


@routes.get("/events")
async def events(request: Request) -> Response:
    """Events from `since` on, until `until` or for ever."""
    engine: Engine = request.engine
    wanted = _wanted(request.query.filters())
    since = request.query.get("since")
    until = request.query.get("until")
    source = engine.events.listen(
        timestamp_ns(since) if since else None, timestamp_ns(until) if until else None, wanted
    )

    async def lines() -> AsyncIterator[bytes]:
        yield b""  # the head at once: clients wait for it
        async with contextlib.aclosing(source):
            async for event in source:
                yield dump_json(_shape(event))

    return stream(lines())


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


def _wanted(filters: dict[str, list[str]]) -> Callable[[Event], bool]:
    known = _SAME_AS_TYPE | {"type", "event", "label", "scope"}
    for name in filters:
        if name not in known:
            raise InvalidParameter(f"invalid filter '{name}'")

    def test(event: Event) -> bool:
        for name, values in filters.items():
            if name == "type":
                found = event.type in values
            elif name == "event":
                found = any(event.action == v or event.action.startswith(f"{v}:") for v in values)
            elif name == "scope":
                found = "local" in values
            elif name == "label":
                found = all(_label(event.attributes, value) for value in values)
            else:
                found = event.type == name and any(
                    event.actor_id.startswith(v) or event.attributes.get("name") == v for v in values
                )
            if not found:
                return False
        return True

    return test


def _label(attributes: dict[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in attributes and (not equals or attributes[key] == value)
