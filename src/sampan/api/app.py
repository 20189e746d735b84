"""All routes of the API, collected."""

from __future__ import annotations

from sampan.api.routes import (
    archive,
    attaching,
    build_cache,
    building,
    check,
    committing,
    containers,
    debug,
    disk_usage,
    egress,
    events,
    images,
    networks,
    registries,
    system,
    unoffered,
    usage,
    volumes,
    websockets,
)
from sampan.http import Router


def router() -> Router:
    """The router of the whole API.

    Raises:
        ValueError: two modules claim the same method and path.
    """
    modules = (
        containers,
        usage,
        attaching,
        websockets,
        archive,
        committing,
        images,
        egress,  # before networks, whose names may have slashes
        networks,
        volumes,
        events,
        registries,
        system,
        disk_usage,
        check,
        debug,
        build_cache,
        building,
        unoffered,
    )
    return Router(module.routes for module in modules)
