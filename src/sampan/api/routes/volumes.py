"""`/volumes`: list, create, inspect, remove, prune."""

from __future__ import annotations

import asyncio

from sampan.api.filters import boolean, check, one_prune
from sampan.engine import Engine
from sampan.engine.core import in_thread
from sampan.errors import InvalidParameter, Unsupported
from sampan.http import Request, Response, Routes, empty, json_response
from sampan.volumes import describe

routes = Routes()

GO_BOOLEANS = frozenset("1 t T true TRUE True 0 f F false FALSE False".split())


@routes.get("/volumes")
async def list_volumes(request: Request) -> Response:
    """The volumes."""
    engine: Engine = request.engine
    filters = request.query.filters()
    check(filters, {"dangling", "driver", "label", "name"})
    boolean(filters, "dangling", False)
    volumes = await in_thread(lambda: engine.volumes.list(filters))
    return json_response({"Volumes": [describe(volume) for volume in volumes], "Warnings": None})


@routes.post("/volumes/create")
async def create_volume(request: Request) -> Response:
    """Make a volume; one that exists is given back as it is."""
    engine: Engine = request.engine
    body = await request.json() or {}
    if not isinstance(body, dict):
        raise InvalidParameter("expected an object with the volume's Name, Driver, DriverOpts, Labels")
    name, driver = body.get("Name") or "", body.get("Driver") or "local"
    options, labels = body.get("DriverOpts") or {}, body.get("Labels") or {}
    if body.get("ClusterVolumeSpec"):
        raise Unsupported("ClusterVolumeSpec: cluster volumes are not offered")
    if not isinstance(name, str) or not isinstance(driver, str):
        raise InvalidParameter("Name and Driver must be texts")
    for field, value in (("DriverOpts", options), ("Labels", labels)):
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise InvalidParameter(f"{field}: expected an object of texts")

    volume, new = await in_thread(lambda: engine.volumes.create(name or None, driver, options, labels))
    if new:
        engine.events.publish("volume", "create", volume.name, {"driver": volume.driver})
    return json_response(describe(volume), 201)


@routes.get("/volumes/{name:path}")
async def inspect_volume(request: Request) -> Response:
    """One volume."""
    engine: Engine = request.engine
    return json_response(describe(await in_thread(lambda: engine.volumes.get(request.params["name"]))))


@routes.delete("/volumes/{name:path}")
async def remove_volume(request: Request) -> Response:
    """Delete a volume that no container refers to."""
    engine: Engine = request.engine
    name, force = request.params["name"], request.query.flag("force")
    if await in_thread(lambda: engine.volumes.remove(name, force)):
        engine.events.publish("volume", "destroy", name, {"driver": "local"})
        _purge_later(engine)
    return empty()


@routes.post("/volumes/prune")
async def prune_volumes(request: Request) -> Response:
    """Delete anonymous volumes that nobody refers to; before 1.42, and with `all=true`, named ones too."""
    engine: Engine = request.engine
    filters = request.query.filters()
    if request.api_version < (1, 42):
        filters["all"] = ["true"]
    check(filters, {"all", "label", "label!"})
    if len(everything := filters.get("all", [])) > 1:
        raise InvalidParameter(f"invalid filter 'all=[{' '.join(everything)}]': only one value is expected")
    if everything and everything[0] not in GO_BOOLEANS:
        raise InvalidParameter(
            f"invalid filter 'all': strconv.ParseBool: parsing \"{everything[0]}\": invalid syntax"
        )
    with one_prune(engine, "volumes"):
        removed, freed_bytes = await in_thread(lambda: engine.volumes.prune(filters))
    for name in removed:
        engine.events.publish("volume", "destroy", name, {"driver": "local"})
    if removed:
        _purge_later(engine)
    engine.events.publish("volume", "prune", "", {"reclaimed": str(freed_bytes)})
    return json_response({"VolumesDeleted": removed, "SpaceReclaimed": freed_bytes})


def _purge_later(engine: Engine) -> None:
    """Delete the files with nobody waiting."""
    engine.spawn(asyncio.ensure_future(in_thread(engine.volumes.purge_trash)))
