"""`/containers/{id}/archive` (HEAD, GET, PUT) and `GET /containers/{id}/changes`."""

from __future__ import annotations

import base64
from typing import BinaryIO, cast

from sampan.api.shapes.times import rfc3339
from sampan.engine import Engine, archive
from sampan.http import Request, Response, Routes, empty, json_response, thread_stream
from sampan.http.response import dump_json

routes = Routes()


def _header(found: archive.PathStat) -> dict[str, str]:
    text = dump_json(
        {
            "name": found.name,
            "size": found.size,
            "mode": found.mode,
            "mtime": rfc3339(found.mtime_ns) if found.mtime_ns else "1970-01-01T00:00:00Z",
            "linkTarget": found.target,
        }
    )
    return {"X-Docker-Container-Path-Stat": base64.b64encode(text.strip()).decode()}


@routes.head("/containers/{id}/archive")
async def look(request: Request) -> Response:
    """What is at a path, in a header."""
    engine: Engine = request.engine
    found = await archive.look(engine, request.params["id"], request.query.get("path"))
    return empty(200, _header(found))


@routes.get("/containers/{id}/archive")
async def get(request: Request) -> Response:
    """A file or directory as an archive."""
    engine: Engine = request.engine
    found, write, opened = await archive.reader(engine, request.params["id"], request.query.get("path"))
    return thread_stream(write, headers=_header(found), finish=lambda: archive.close_later(engine, opened))


@routes.put("/containers/{id}/archive")
async def put(request: Request) -> Response:
    """Unpack an archive, which may be compressed, into a directory."""
    engine: Engine = request.engine
    query = request.query
    await archive.put(
        engine,
        request.params["id"],
        query.get("path"),
        cast("BinaryIO", request.body_stream(direct=True)),
        copy_owner=query.flag("copyUIDGID"),
        keep_kinds=query.flag("noOverwriteDirNonDir"),
    )
    return empty(200)


@routes.get("/containers/{id}/changes")
async def changes(request: Request) -> Response:
    """How a container's files differ from its image's; null for not at all."""
    engine: Engine = request.engine
    found = await archive.changes(engine, request.params["id"])
    return json_response([{"Path": one.path, "Kind": one.kind} for one in found] or None)
