"""`sampan events`: what happens in the engine, as it happens."""

from __future__ import annotations

import sys
import time

from sampan.cli.app import out
from sampan.cli.flags import Command, Flag
from sampan.cli.listing import filters
from sampan.cli.moments import timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Print each event in one line until the daemon, `--until` or the user ends it."""
    since, until, form = values.text("since"), values.text("until"), values.text("format")
    render: Callable[[Any], str] | None = None
    if form:
        form = "{{json .}}" if form == "json" else form
        from sampan.cli.template import inspect_template

        by_template = inspect_template(form, raw=False, failure="Error parsing format")

        def render(event: Any) -> str:
            return by_template(event, "event")

    query = {
        "since": timestamp(since) if since else None,
        "until": timestamp(until) if until else None,
        "filters": filters(values.items("filter")),
    }
    for event in app.client.request("GET", "/events", query).values():
        out((render(event) if render is not None else text(event)) + "\n")
        sys.stdout.flush()
    return 0


def text(event: dict[str, Any]) -> str:
    """An event in one line: time, type, action, id and attributes."""
    nanoseconds = event.get("timeNano", 0)
    moment = time.localtime(nanoseconds // 10**9 if nanoseconds else event.get("time", 0))
    zone = time.strftime("%z", moment)
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    line = time.strftime("%Y-%m-%dT%H:%M:%S", moment) + f".{nanoseconds % 10**9:09d}{zone}"
    actor = event.get("Actor") or {}
    line += f" {event.get('Type', '')} {event.get('Action', '')} {actor.get('ID', '')}"
    attributes = actor.get("Attributes") or {}
    if attributes:
        line += " (" + ", ".join(f"{name}={attributes[name]}" for name in sorted(attributes)) + ")"
    return line


COMMAND = Command(
    "events",
    "[OPTIONS]",
    "Get real time events from the server",
    (
        Flag("filter", "filter", "Show only what meets the conditions", "f"),
        Flag("format", "string", "Output: 'json' or a Go template"),
        Flag("since", "string", "Show the events since this time too"),
        Flag("until", "string", "End at this time"),
    ),
    run,
    most=0,
    aliases=("system events", "events"),
)
