"""`/containers/{id}/stats`, `top` and `update`: what a container uses, what runs in it, and its limits."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sampan.api.shapes.stats import stats as shape
from sampan.engine import Engine, Live
from sampan.engine import stats as samples
from sampan.engine.model import HostConfig
from sampan.engine.top import top
from sampan.engine.updating import update
from sampan.errors import InvalidParameter
from sampan.http import Request, Response, Routes, dump_json, json_response, stream
from sampan.oci.records import decode

routes = Routes()


@routes.get("/containers/{id}/stats")
async def stats(request: Request) -> Response:
    """A frame each second, or with `stream=false` one, or with `one-shot` one without an earlier sample."""
    engine: Engine = request.engine
    streaming = request.query.flag("stream", True)
    one_shot = request.query.flag("one-shot")
    if streaming and one_shot:
        raise InvalidParameter("cannot have stream=true and one-shot=true")
    live = engine.get(request.params["id"])
    if streaming:
        return stream(_frames(engine, live))
    take = samples.once if one_shot else samples.snapshot
    return json_response(shape(live, await take(engine, live)))


async def _frames(engine: Engine, live: Live) -> AsyncIterator[bytes]:
    async for frame in samples.follow(engine, live):
        yield dump_json(shape(live, frame))


@routes.get("/containers/{id}/top")
async def processes(request: Request) -> Response:
    """The container's processes, as ps shows them with `ps_args`."""
    engine: Engine = request.engine
    live = engine.get(request.params["id"])
    titles, rows = await top(engine, live, request.query.get("ps_args"))
    return json_response({"Processes": rows, "Titles": titles})


@routes.post("/containers/{id}/update")
async def change(request: Request) -> Response:
    """Other limits, or another restart policy; what is not named, or 0, stays."""
    engine: Engine = request.engine
    live = engine.get(request.params["id"])
    body = await request.json()
    if not isinstance(body, dict):
        raise InvalidParameter("the body of an update must be a JSON object")
    given = {key: value for key, value in body.items() if key not in ("KernelMemory", "KernelMemoryTCP")}
    warnings = await update(engine, live, decode(HostConfig, given))
    return json_response({"Warnings": warnings or None})
