"""`GET /system/df`: the disk that images, containers and volumes take."""

from __future__ import annotations

from typing import Any

from sampan.api.routes.build_cache import shapes
from sampan.api.routes.image_listing import list_images
from sampan.api.routes.listing import choose, list_with_sizes
from sampan.engine import Engine
from sampan.engine.core import in_thread
from sampan.errors import InvalidParameter
from sampan.http import Request, Response, Routes, json_response
from sampan.volumes import describe, disk_bytes

routes = Routes()

_TYPES = ("container", "image", "volume", "build-cache")


@routes.get("/system/df")
async def disk_usage(request: Request) -> Response:
    """What is there and how much disk it takes, of the types that were asked for or of all."""
    engine: Engine = request.engine
    version = request.api_version
    wanted = request.query.all("type") if version >= (1, 42) else []
    for name in wanted:
        if name not in _TYPES:
            raise InvalidParameter(f"unknown object type: {name}")
    wanted = wanted or list(_TYPES)
    shape: dict[str, Any] = {
        "LayersSize": 0,
        "Images": None,
        "Containers": None,
        "Volumes": None,
        "BuildCache": await shapes(engine) if "build-cache" in wanted else None,
    }
    if version < (1, 42):
        shape["BuilderSize"] = sum(one["Size"] for one in shape["BuildCache"] or ())
    if "image" in wanted:
        shape["Images"] = await in_thread(lambda: list_images(engine, version, {}, shared=True, counted=True))
        shape["LayersSize"] = await in_thread(engine.images.disk_bytes)
    if "container" in wanted:
        shape["Containers"] = await list_with_sizes(engine, choose(engine, True, 0, {}))
    if "volume" in wanted:
        shape["Volumes"] = await in_thread(lambda: _volumes(engine))
    return json_response(shape)


def _volumes(engine: Engine) -> list[dict[str, Any]]:
    return [
        {
            **describe(volume),
            "UsageData": {"RefCount": len(engine.volumes.users(volume.name)), "Size": disk_bytes(volume)},
        }
        for volume in engine.volumes.list()
    ]
