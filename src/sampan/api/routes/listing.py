"""Which containers `GET /containers/json` shows: filters, limit, order."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sampan.api.shapes.containers import summary
from sampan.engine import Core, Live
from sampan.engine.core import in_thread
from sampan.engine.health import status as health_status
from sampan.errors import InvalidParameter, NotFound

Filters = dict[str, list[str]]
_HEALTHS = {"none", "starting", "healthy", "unhealthy"}
_STATES = {"created", "running", "paused", "restarting", "removing", "exited", "dead"}


async def list_containers(
    core: Core, everything: bool, limit: int, sizes: bool, filters: Filters
) -> list[dict[str, Any]]:
    """The summaries, newest first.

    Args:
        everything: also those that do not run.
        limit: at most so many of the newest, running or not; 0 for no limit.

    Raises:
        InvalidParameter: an unknown filter or a value it cannot have.
    """
    tests = [_test(core, name, values) for name, values in filters.items()]
    # a filter by state, exit code or age speaks of all containers
    everything = everything or limit > 0 or bool({"status", "exited", "before", "since"} & set(filters))
    found = [
        live
        for live in sorted(core.containers.values(), key=lambda live: -live.container.created_at_ns)
        if (everything or live.container.state.active) and all(test(live) for test in tests)
    ]
    if limit > 0:
        found = found[:limit]
    result = []
    for live in found:
        size = None
        if sizes:
            size = await in_thread(lambda live=live: sizes_of(core, live))  # type: ignore[misc]
        result.append(summary(live, size, _image_name(core, live)))
    return result


def sizes_of(core: Core, live: Live) -> tuple[int, int]:
    """Bytes of the writable layer, and of it together with the image."""
    writable = whole = core.driver.container_size(live.id)
    layer = core.driver.container_parent(live.id)  # its image may have been removed by force
    while layer is not None and core.driver.has_layer(layer):
        whole += core.driver.layer_size(layer)
        layer = core.driver.layer_parent(layer)
    return writable, whole


def _image_name(core: Core, live: Live) -> str:
    container = live.container
    try:
        if core.images.resolve(container.config.image).id == container.image_id:
            return container.config.image
    except (NotFound, InvalidParameter):
        pass
    return container.image_id


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
        return lambda live: any(live.id.startswith(value) for value in values)
    if name == "name":
        return lambda live: any(_name_matches(live.container.name, value) for value in values)
    if name == "label":
        return lambda live: all(_label_matches(live.container.config.labels, value) for value in values)
    if name == "exited":
        codes = [_number(name, value) for value in values]
        return lambda live: (
            live.container.state.status == "exited" and live.container.state.exit_code in codes
        )
    if name == "ancestor":
        return lambda live: _ancestor(core, live, values)
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
            for network, endpoint in live.container.networks.items()
            for value in values
        )
    if name in ("expose", "publish", "isolation", "is-task"):
        raise InvalidParameter(f"filter '{name}' is not offered yet")
    raise InvalidParameter(f"invalid filter '{name}'")


def prune_filter(filters: Filters) -> Callable[[Live], bool]:
    """Which stopped containers a prune may take: `label`, `label!` and `until` (a time in seconds).

    Raises:
        InvalidParameter: an unknown filter, or a time that is none.
    """
    for name in filters:
        if name not in ("label", "label!", "until"):
            raise InvalidParameter(f"invalid filter '{name}'")
    until = [_number("until", value.partition(".")[0]) for value in filters.get("until", [])]

    def test(live: Live) -> bool:
        labels = live.container.config.labels
        return (
            all(_label_matches(labels, value) for value in filters.get("label", []))
            and not any(_label_matches(labels, value) for value in filters.get("label!", []))
            and all(live.container.created_at_ns < limit * 1_000_000_000 for limit in until)
        )

    return test


def _name_matches(name: str, pattern: str) -> bool:
    try:
        return re.search(pattern, f"/{name}") is not None or re.search(pattern, name) is not None
    except re.error as error:
        raise InvalidParameter(f"invalid filter 'name={pattern}': {error}") from error


def _label_matches(labels: dict[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise InvalidParameter(f"invalid filter '{name}={value}'") from error


def _ancestor(core: Core, live: Live, values: list[str]) -> bool:
    for value in values:
        try:
            if core.images.resolve(value).id == live.container.image_id:
                return True
        except (NotFound, InvalidParameter):
            continue
    return False
