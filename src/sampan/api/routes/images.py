"""`/images/…`: list, inspect, history, tag, remove, prune, load, save, import, pull."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

from sampan.api import filters
from sampan.api.routes import image_listing as listing
from sampan.api.routes.progress import Progress, Watched, progress_response
from sampan.api.shapes import images as shapes
from sampan.engine import Engine
from sampan.engine.core import in_thread
from sampan.errors import Conflict, InvalidParameter, NotFound
from sampan.http import Request, Response, Routes, empty, json_response, thread_stream
from sampan.images import Cancellation, Image
from sampan.oci.digest import is_digest
from sampan.oci.image import Platform
from sampan.oci.platforms import from_json, from_text
from sampan.oci.reference import parse
from sampan.registry import Credentials

routes = Routes()


def users_of(engine: Engine) -> Callable[[str], list[tuple[str, bool]]]:
    """Who uses an image at the moment of asking; threads may ask."""

    def users(image_id: str) -> list[tuple[str, bool]]:
        found = [
            (live.id, live.container.state.running)
            for live in list(engine.containers.values())  # a copy, at once: others change it meanwhile
            if live.container.image_id == image_id
            or any(point.image_id == image_id for point in live.container.mounts)
        ]
        return [*found, ("of a build", True)] if image_id in engine.build_images else found

    return users


def platform_of(request: Request) -> Platform | None:
    """The platform that a request's parameter `platform` asks for, a JSON object."""
    text = request.query.get("platform")
    return from_json(text) if text else None


# --- looking ---


@routes.get("/images/json")
async def list_images(request: Request) -> Response:
    """The images: named ones and dangling ones, with `all` also those that others were made from."""
    engine: Engine = request.engine
    query, version = request.query, request.api_version
    filters = query.filters()
    if query.get("filter") and version < (1, 41):
        filters.setdefault("reference", []).append(query.get("filter"))
    everything, shared = query.flag("all"), query.flag("shared-size")
    manifests = query.flag("manifests") and version >= (1, 47)
    return json_response(
        await in_thread(
            lambda: listing.list_images(
                engine, version, filters, everything=everything, shared=shared, manifests=manifests
            )
        )
    )


@routes.get("/images/{name:path}/json")
async def inspect_image(request: Request) -> Response:
    """Everything about one image."""
    engine: Engine = request.engine
    version, platform = request.api_version, platform_of(request)
    manifests = request.query.flag("manifests") and version >= (1, 48)
    if manifests and platform is not None:
        raise InvalidParameter("conflicting options: manifests and platform options cannot both be set")

    def work() -> dict[str, Any]:
        image = engine.images.resolve(request.params["name"], platform)
        places = engine.driver.layer_data(image.top_layer)
        descriptor = engine.images.manifest_descriptor(image) if version >= (1, 48) else None
        shape = shapes.inspect(image, version, engine.driver.name, places, descriptor)
        if manifests and descriptor is not None:
            users = listing.users_by_image(engine).get(image.id, [])
            size = engine.images.content_size(image)
            shape["Manifests"] = [shapes.manifest_summary(image, descriptor, size, users)]
        return shape

    return json_response(await in_thread(work))


@routes.get("/images/{name:path}/history")
async def image_history(request: Request) -> Response:
    """How an image came about."""
    engine: Engine = request.engine
    platform = platform_of(request)

    def work() -> list[dict[str, Any]]:
        image = engine.images.resolve(request.params["name"], platform)
        return shapes.history(engine.images.history_of(image))

    return json_response(await in_thread(work))


# --- naming and removing ---


@routes.post("/images/{name:path}/tag")
async def tag_image(request: Request) -> Response:
    """Give an image another name."""
    engine: Engine = request.engine
    target = _target(request)
    if not target:
        raise InvalidParameter("repo: a repository name is needed")
    await in_thread(lambda: engine.images.tag(request.params["name"], target))
    return empty(201)


def _target(request: Request) -> str:
    repository, tag = request.query.get("repo"), request.query.get("tag")
    return f"{repository}:{tag}" if repository and tag else repository


@routes.delete("/images/{name:path}")
async def remove_image(request: Request) -> Response:
    """Remove a name, and the image with its last one."""
    engine: Engine = request.engine
    query = request.query
    platforms = [from_json(text) for text in query.all("platforms")]
    users = users_of(engine)
    done = await in_thread(
        lambda: engine.images.remove(
            request.params["name"], query.flag("force"), query.flag("noprune"), users, platforms
        )
    )
    return json_response([{action: text} for action, text in done])


@routes.post("/images/prune")
async def prune_images(request: Request) -> Response:
    """Remove dangling images, or with `dangling=false` all that no container uses."""
    engine: Engine = request.engine
    given = request.query.filters()
    filters.check(given, filters.PRUNE | {"dangling"})
    only_dangling = filters.boolean(given, "dangling", True)
    until_ns = filters.until_ns(given)
    users = users_of(engine)

    def wanted(image: Image) -> bool:
        if until_ns is not None and listing.created_ns(image) > until_ns:
            return False
        return filters.keeps_labels(given, image.config.labels or {})

    def work() -> dict[str, Any]:
        before = _layers(engine)
        deleted: list[dict[str, str]] = []
        for image in engine.images.list():  # the newest first, and so children before their parents
            if users(image.id) or (only_dangling and image.repo_tags) or engine.images.children(image.id):
                continue
            if wanted(image):
                for reference in [name.familiar for name in image.names] or [image.id]:
                    try:
                        done = engine.images.remove(reference, False, False, users)
                    except (Conflict, NotFound):
                        continue  # somebody else needed or removed it in the meantime
                    deleted.extend({action: text} for action, text in done)
        after = _layers(engine)
        freed_bytes = sum(size for layer, size in before.items() if layer not in after)
        return {"ImagesDeleted": deleted or None, "SpaceReclaimed": freed_bytes}

    with filters.one_prune(engine, "images"):
        result = await in_thread(work)
    engine.events.publish("image", "prune", "", {"reclaimed": str(result["SpaceReclaimed"])})
    return json_response(result)


def _layers(engine: Engine) -> dict[str, int]:
    layers = {layer for image in engine.images.list() for layer in image.document.chain_ids}
    return {layer: engine.images.layer_size(layer) for layer in layers}


# --- archives ---


@routes.post("/images/load")
async def load_images(request: Request) -> Response:
    """Load an archive that the body is."""
    engine: Engine = request.engine
    platform = platform_of(request)
    quiet = request.query.flag("quiet")
    body = request.body_stream()

    def work(tell: Progress) -> None:
        def select(message: dict[str, Any]) -> None:
            if not quiet or "stream" in message:
                tell(message)

        engine.images.load(body, select, platform)

    return await progress_response(work)


@routes.get("/images/get")
async def save_images(request: Request) -> Response:
    """Several images as one archive."""
    names = [name for text in request.query.all("names") for name in text.split(",") if name]
    if not names:
        raise InvalidParameter("names: at least one image is needed")
    return _save(request, names)


@routes.get("/images/{name:path}/get")
async def save_image(request: Request) -> Response:
    """One image as an archive."""
    return _save(request, [request.params["name"]])


def _save(request: Request, names: list[str]) -> Response:
    engine: Engine = request.engine
    platform = platform_of(request)

    def write(out: BinaryIO) -> None:
        engine.images.save(names, out, platform)

    return thread_stream(write)


@routes.post("/images/create")
async def create_image(request: Request) -> Response:
    """Pull an image (`fromImage`), or import a root file system from the body (`fromSrc`)."""
    engine: Engine = request.engine
    query = request.query
    source = query.get("fromSrc")
    if query.get("fromImage"):
        return await _pull(request)
    if not source:
        raise InvalidParameter("fromSrc or fromImage is needed")
    body = request.body_stream()
    target, changes = _target(request), query.all("changes")
    message, platform = query.get("message") or f"Imported from {source}", query.get("platform")

    def work(tell: Progress) -> None:
        if source == "-":
            tell({"status": engine.images.import_(body, target or None, changes, message, platform)})
            return
        file = engine.images.registries.fetch(source)
        try:
            tell({"status": f"Downloading from {source}"})
            stream = Watched(file, file.length, lambda detail: tell({"status": "Importing", **detail}))
            tell({"status": engine.images.import_(stream, target or None, changes, message, platform)})
        finally:
            file.close()

    return await progress_response(work)


async def _pull(request: Request) -> Response:
    engine: Engine = request.engine
    query = request.query
    reference = parse(query.get("fromImage").removesuffix(":"))
    tag = query.get("tag")
    if is_digest(tag):
        reference = reference.with_digest(tag)
    elif tag:
        reference = reference.with_tag(tag)
    platform = from_text(query.get("platform")) if query.get("platform") else None
    credentials = Credentials.from_header(request.headers.get("x-registry-auth", ""))
    cancellation = Cancellation()

    def work(tell: Progress) -> None:
        engine.images.pull(reference, credentials, platform, tell, cancellation)

    return await progress_response(work, request, cancellation.set)
