"""Which containers `GET /containers/json` shows: filters, limit, order."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sampan.api.shapes.containers import listed, summary
from sampan.engine import Core, Live, endpoints, links
from sampan.engine.core import in_thread
from sampan.engine.health import status as health_status
from sampan.errors import InvalidParameter, NotFound

Filters = dict[str, list[str]]
_HEALTHS = {"none", "starting", "healthy", "unhealthy"}
_STATES = {"created", "running", "paused", "restarting", "removing", "exited", "dead"}


def choose(core: Core, everything: bool, limit: int, filters: Filters) -> list[Live]:
    """The containers to show, newest first.

    Args:
        everything: also those that do not run.
        limit: at most so many of the newest, running or not; 0 for no limit.

    Raises:
        InvalidParameter: an unknown filter or a value it cannot have.
    """
    tests = [_test(core, name, values) for name, values in filters.items()]
    everything = everything or limit > 0 or "status" in filters
    found = [
        live
        for live in core.containers.values()
        if (everything or live.container.state.active) and all(test(live) for test in tests)
    ]
    found.sort(key=lambda live: live.container.created_at_ns, reverse=True)
    return found[:limit] if limit > 0 else found


def list_as_json(core: Core, chosen: list[Live]) -> bytes:
    """The summaries of these containers, without sizes."""
    names = _image_names(core, chosen)
    return (
        b"["
        + b",".join(listed(live, names[live.id], links.names(core, live.container)) for live in chosen)
        + b"]\n"
    )


async def list_with_sizes(core: Core, chosen: list[Live]) -> list[dict[str, Any]]:
    """The summaries of these containers, with the sizes of their files."""
    sizes = await in_thread(lambda: [sizes_of(core, live) for live in chosen])
    names = _image_names(core, chosen)
    return [
        summary(live, size, names[live.id], links.names(core, live.container))
        for live, size in zip(chosen, sizes, strict=True)
    ]


def sizes_of(core: Core, live: Live) -> tuple[int, int]:
    """Bytes of the writable layer, and of it together with the image."""
    writable = whole = core.driver.container_size(live.id)
    try:
        layer = core.driver.container_parent(live.id)  # its image may have been removed by force
    except NotFound:  # it was made with another storage driver, or is damaged
        layer = None
    while layer is not None and core.driver.has_layer(layer):
        whole += core.driver.layer_size(layer)
        layer = core.driver.layer_parent(layer)
    return writable, whole


def _image_names(core: Core, chosen: list[Live]) -> dict[str, str]:
    """What each container's image was called, or its id when that is another image now."""
    known: dict[tuple[str, str], str] = {}  # many containers are of few images
    names = {}
    for live in chosen:
        name, image_id = key = live.container.config.image, live.container.image_id
        if key not in known:
            try:
                same = core.images.resolve(name).id == image_id
            except (NotFound, InvalidParameter):
                same = False
            known[key] = name if same else image_id
        names[live.id] = known[key]
    return names


def _test(core: Core, name: str, values: list[str]) -> Callable[[Live], bool]:
    if name == "status":
        for value in values:
            if value not in _STATES:
                raise InvalidParameter(f"invalid filter 'status={value}'")
        return lambda live: live.status in values
    if name == "health":
        for value in values:
            if value not in _HEALTHS:
                raise InvalidParameter(f"unrecognized filter value for health: {value}")
        return lambda live: health_status(live.container) in values
    if name == "id":
        return lambda live: any(value and live.id.startswith(value) for value in values)
    if name == "name":
        patterns = [pattern for value in values if (pattern := _pattern(value)) is not None]
        return lambda live: any(
            pattern.search(live.container.name) or pattern.search(f"/{live.container.name}")
            for pattern in patterns
        )
    if name == "label":
        return lambda live: all(_label_matches(live.container.config.labels, value) for value in values)
    if name == "exited":
        codes = [_number(name, value) for value in values]
        return lambda live: (
            live.container.state.status == "exited" and live.container.state.exit_code in codes
        )
    if name == "ancestor":
        wanted = _with_children(core, values)
        return lambda live: live.container.image_id in wanted
    if name in ("before", "since"):
        times = [core.get(value).container.created_at_ns for value in values]
        if name == "before":
            return lambda live: live.container.created_at_ns < min(times)
        return lambda live: live.container.created_at_ns > max(times)
    if name == "volume":
        return lambda live: any(
            value in (point.name, point.source, point.destination)
            for point in live.container.mounts
            for value in values
        )
    if name == "network":
        return lambda live: any(
            value in (network, endpoint.network_id) or (value and endpoint.network_id.startswith(value))
            for network, endpoint in endpoints.of(live.container).items()
            for value in values
        )
    if name in ("expose", "publish"):
        ports = _ports(name, values)
        if name == "expose":
            return lambda live: not ports.isdisjoint(live.container.config.exposed_ports or ())
        return lambda live: not ports.isdisjoint(live.container.host_config.port_bindings or ())
    if name == "is-task":  # one of Swarm's
        if values not in (["true"], ["false"]):
            raise InvalidParameter(f"invalid filter 'is-task=[{' '.join(values)}]'")
        return lambda _: values == ["false"]
    if name == "isolation":  # there is one kind outside of Windows
        return lambda _: not {"", "default"}.isdisjoint(values)
    raise InvalidParameter(f"invalid filter '{name}'")


def _pattern(text: str) -> re.Pattern[str] | None:
    """A regular expression; None for what is none, which matches nothing, as in Docker."""
    try:
        return re.compile(text)
    except re.error:
        return None


def _label_matches(labels: dict[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise InvalidParameter(f"invalid filter '{name}={value}'") from error


def _with_children(core: Core, values: list[str]) -> set[str]:
    """The ids of these images and of all that were made from them."""
    found: set[str] = set()
    todo = []
    for value in values:
        try:
            todo.append(core.images.resolve(value).id)
        except (NotFound, InvalidParameter):
            continue
    while todo:
        image_id = todo.pop()
        if image_id not in found:
            found.add(image_id)
            todo += core.images.children(image_id)
    return found


def _ports(name: str, values: list[str]) -> set[str]:
    """The `port/protocol` that a filter names, ranges spelled out."""
    found: set[str] = set()
    for value in values:
        if ":" in value:
            raise InvalidParameter(f"filter for '{name}' should not contain ':': {value}")
        numbers, _, protocol = value.partition("/")
        first, dash, last = numbers.partition("-")
        try:
            low = int(first)
            high = int(last) if dash else low
            if not 0 <= low <= high <= 65535:
                raise ValueError("invalid range")
        except ValueError:
            raise InvalidParameter(
                f'error while looking up for {name} {value}: "{numbers}" is no port and no range of ports'
            ) from None
        found |= {f"{port}/{(protocol or 'tcp').lower()}" for port in range(low, high + 1)}
    return found
