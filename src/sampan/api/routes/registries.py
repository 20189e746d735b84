"""`/auth`, `/distribution/…`, `/images/search`, `/images/…/push`: what is asked of registries, save pulls."""

from __future__ import annotations

import threading
from typing import Any

from sampan.api.routes.images import platform_of
from sampan.api.routes.progress import ClientLeft, Progress, progress_response
from sampan.api.shapes import registries as shapes
from sampan.engine import Engine
from sampan.errors import InvalidParameter
from sampan.http import Request, Response, Routes, json_response
from sampan.oci.digest import is_digest
from sampan.oci.reference import parse
from sampan.registry import Credentials, Found
from sampan.threads import in_new_thread

routes = Routes()


def credentials_of(request: Request) -> Credentials:
    """Who asks, by the header `X-Registry-Auth`.

    Raises:
        InvalidParameter: the header cannot be read.
    """
    return Credentials.from_header(request.headers.get("x-registry-auth", ""))


@routes.post("/auth")
async def auth(request: Request) -> Response:
    """Whether credentials are good for the registry that they name."""
    engine: Engine = request.engine
    credentials = Credentials.from_json(await request.json())
    token = await in_new_thread(lambda: engine.images.registries.log_in(credentials), "login")
    return json_response({"IdentityToken": token, "Status": "Login Succeeded"})


@routes.post("/images/{name:path}/push")
async def push(request: Request) -> Response:
    """Push an image; without `tag` all tags of the repository.

    `compression` is our own: gzip or zstd, for layers that are not compressed yet.
    """
    engine: Engine = request.engine
    credentials = credentials_of(request)
    name, tag = request.params["name"], request.query.get("tag")
    reference = f"{name}{'@' if is_digest(tag) else ':'}{tag}" if tag else name
    parse(reference)  # refuse it before anything is answered
    platform, compression = platform_of(request), request.query.get("compression")

    left = threading.Event()

    def work(tell: Progress) -> None:
        def checked(message: dict[str, Any]) -> None:
            if left.is_set():
                raise ClientLeft("the client has gone away")
            tell(message)

        engine.images.push(reference, credentials, checked, platform, compression)

    return await progress_response(work, request, left.set)


@routes.get("/distribution/{name:path}/json")
async def distribution(request: Request) -> Response:
    """What a registry has under a name: digest, size and platforms."""
    engine: Engine = request.engine
    credentials = credentials_of(request)
    name = request.params["name"]
    descriptor, platforms = await in_new_thread(lambda: engine.images.look_up(name, credentials), "look up")
    return json_response(shapes.distribution(descriptor, platforms))


@routes.get("/images/search")
async def search(request: Request) -> Response:
    """Repositories on Docker Hub, or on the registry that the term begins with."""
    engine: Engine = request.engine
    credentials = credentials_of(request)
    term, limit = request.query.get("term"), request.query.integer("limit")
    if request.query.get("limit") and limit == 0:
        raise InvalidParameter("limit 0 is outside the range of [1, 100]")
    wanted = _Filters(request.query.filters())
    registries = engine.images.registries
    found = await in_new_thread(lambda: registries.search(term, limit, credentials), "search")
    return json_response([shapes.found(item) for item in found if wanted.fits(item)])


class _Filters:
    """`is-official`, `stars`, and `is-automated`, which nothing is any more."""

    def __init__(self, given: dict[str, list[str]]) -> None:
        for name in given:
            if name not in ("is-official", "is-automated", "stars"):
                raise InvalidParameter(f"invalid filter '{name}'")
        self._official = _boolean(given, "is-official")
        self._automated = _boolean(given, "is-automated")
        self._stars = 0
        for text in given.get("stars", []):
            if not (text.isascii() and text.isdigit() and len(text) < 10):
                raise InvalidParameter(f"invalid filter 'stars={text}'")
            self._stars = max(self._stars, int(text))

    def fits(self, item: Found) -> bool:
        """Whether a result is wanted."""
        return (
            self._automated is not True
            and self._official in (None, item.is_official)
            and item.star_count >= self._stars
        )


def _boolean(given: dict[str, list[str]], name: str) -> bool | None:
    values: list[Any] = given.get(name, [])
    if not values:
        return None
    if len(values) > 1 or values[0] not in ("1", "true", "0", "false"):
        raise InvalidParameter(f"invalid filter '{name}=[{' '.join(values)}]'")
    return values[0] in ("1", "true")
