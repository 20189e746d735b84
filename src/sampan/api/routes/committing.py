"""`POST /commit` and `GET /containers/{id}/export`."""

from __future__ import annotations

from sampan.engine import Engine, committing
from sampan.engine.model import ContainerConfig
from sampan.errors import InvalidParameter
from sampan.http import Request, Response, Routes, json_response, thread_stream
from sampan.oci.records import decode

routes = Routes()


@routes.post("/commit")
async def commit(request: Request) -> Response:
    """Make an image of what a container has changed."""
    engine: Engine = request.engine
    query = request.query
    reference = query.get("container")
    if not reference:
        raise InvalidParameter('invalid name or ID supplied: ""')
    live = engine.get(reference)
    body = await request.json()
    if body is not None and not isinstance(body, dict):
        raise InvalidParameter("expected a container's config, or nothing")
    repository, tag = query.get("repo"), query.get("tag")
    wish = committing.CommitRequest(
        name=(f"{repository}:{tag}" if tag else repository) if repository else None,
        author=query.get("author"),
        comment=query.get("comment"),
        pause=query.flag("pause", default=True) or not query.get("pause"),
        config=decode(ContainerConfig, body) if body else None,
        changes=query.all("changes"),
    )
    return json_response({"Id": await committing.commit(engine, live, wish)}, 201)


@routes.get("/containers/{id}/export")
async def export(request: Request) -> Response:
    """A container's root file system as an archive."""
    engine: Engine = request.engine
    live = engine.get(request.params["id"])
    return thread_stream(committing.exporter(engine, live), "application/octet-stream")
