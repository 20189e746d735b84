"""All routes of the API, collected: at the start those of usual work, the rest when first asked for."""

from __future__ import annotations

from sampan.api.routes import attaching, containers, egress, events, images, networks, system, volumes
from sampan.http import Router, Routes


def router() -> Router:
    """The router of the whole API.

    Raises:
        ValueError: two modules claim the same method and path.
    """
    modules = (
        containers,
        attaching,
        images,
        egress,  # before networks, whose names may have slashes
        networks,
        volumes,
        events,
        system,
    )
    return Router([module.routes for module in modules], rest)


def rest() -> list[Routes]:
    """The routes that a daemon is seldom asked for; they, and what they import, make no start longer."""
    from sampan.api.routes import (
        archive,
        build_cache,
        building,
        check,
        committing,
        debug,
        disk_usage,
        registries,
        unoffered,
        usage,
        websockets,
    )

    modules = (
        archive,
        usage,
        committing,
        registries,
        building,
        build_cache,
        disk_usage,
        check,
        websockets,
        debug,
        unoffered,
    )
    return [module.routes for module in modules]
