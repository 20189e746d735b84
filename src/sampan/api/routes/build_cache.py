"""`POST /build/prune`, and what `GET /system/df` says of the build cache: the caches that RUN mounts.

The steps of builds are images, which `POST /images/prune` removes when nobody needs them.
"""

from __future__ import annotations

import shutil
from typing import Any

from sampan.api import filters
from sampan.api.shapes.times import rfc3339
from sampan.engine import Core, Engine
from sampan.engine.build_caches import BuildCache
from sampan.engine.core import in_thread
from sampan.errors import InvalidParameter
from sampan.http import Request, Response, Routes, json_response

routes = Routes()

_TYPE = "exec.cachemount"
_FILTERS = filters.PRUNE | {"id", "parent", "type", "description", "inuse", "shared", "private"}


@routes.post("/build/prune")
async def prune_build_cache(request: Request) -> Response:
    """Remove caches that no command has mounted: all, or those least used of late down to a size."""
    engine: Engine = request.engine
    query = request.query
    reserved = query.integer("reserved-space") or query.integer("keep-storage")
    most, free = query.integer("max-used-space"), query.integer("min-free-space")
    if min(reserved, most, free) < 0:
        raise InvalidParameter("a size to keep must not be negative")
    given = query.filters()
    filters.check(given, _FILTERS)
    until = filters.until_ns(given)
    with filters.one_prune(engine, "build cache"):
        caches = engine.build_caches.all()
        sizes = await in_thread(lambda: {one.id: engine.build_caches.size_bytes(one) for one in caches})
        total = sum(sizes.values())
        keep = _to_keep(engine, total, reserved, most, free)
        gone: list[str] = []
        reclaimed = 0
        for cache in sorted(caches, key=lambda one: one.last_used_at_ns):
            if keep and total - reclaimed <= keep:
                break
            old = until is None or cache.last_used_at_ns < until
            if old and _chosen(cache, given) and engine.build_caches.remove(cache):
                gone.append(cache.id)
                reclaimed += sizes[cache.id]
        await in_thread(engine.build_caches.purge_trash)
    return json_response({"CachesDeleted": gone or None, "SpaceReclaimed": reclaimed})


def _to_keep(core: Core, total: int, reserved: int, most: int, free: int) -> int:
    """How many bytes of caches may stay, as BuildKit reckons; 0 for none."""
    keep = most
    missing = free - shutil.disk_usage(core.options.data_root).free if free else 0
    if missing > 0:
        keep = min(keep or total, max(total - missing, 1))
    elif free and not most:
        keep = total  # there is room enough
    return max(keep, reserved)


def _chosen(cache: BuildCache, given: filters.Filters) -> bool:
    """Whether the filters let a cache through; each wants one of its values to fit.

    A cache has no labels, so `label` lets none through: the client sends those of `system prune` along.
    """
    if not filters.keeps_labels(given, {}):
        return False
    facts = {
        "id": cache.id,
        "type": _TYPE,
        "description": cache.description,
        "parent": "",
        "inuse": str(bool(cache.users)).lower(),
        "shared": "false",
        "private": "true",
    }
    for name, fact in facts.items():
        wanted = given.get(name)
        if wanted and not any(
            fact.startswith(one) if name == "id" else (one or "true") == fact for one in wanted
        ):
            return False
    return True


async def shapes(core: Core) -> list[dict[str, Any]]:
    """All caches, as `GET /system/df` lists them."""
    caches = core.build_caches.all()
    return await in_thread(lambda: [_shape(core, one) for one in caches])


def _shape(core: Core, cache: BuildCache) -> dict[str, Any]:
    return {
        "ID": cache.id,
        "Type": _TYPE,
        "Description": cache.description,
        "InUse": cache.users > 0,
        "Shared": False,
        "Size": core.build_caches.size_bytes(cache),
        "CreatedAt": rfc3339(cache.created_at_ns),
        "LastUsedAt": rfc3339(cache.last_used_at_ns),
        "UsageCount": cache.usage_count,
    }
