"""`/images/…`: list, inspect, history, tag, remove, prune, load, save, import."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from sampan.api.routes.progress import Progress, progress_response
from sampan.api.shapes import images as shapes
from sampan.engine import Engine
from sampan.engine.core import in_thread
from sampan.errors import Conflict, InvalidParameter, NotFound, Unsupported
from sampan.http import Request, Response, Routes, empty, json_response, thread_stream
from sampan.images import Image

routes = Routes()

Test = Callable[[Image], bool]


def _users(engine: Engine) -> Callable[[str], list[tuple[str, bool]]]:
    """Who uses an image; looked up in a copy, as threads may ask."""
    known = [
        (live.container.image_id, live.id, live.container.state.running)
        for live in engine.containers.values()
    ]
    return lambda image_id: [(owner, running) for image, owner, running in known if image == image_id]


def _no_platform(request: Request) -> None:
    if request.query.get("platform"):
        raise Unsupported("platform: choosing a platform is not offered yet")


# --- looking ---


@routes.get("/images/json")
async def list_images(request: Request) -> Response:
    """The images: named ones and dangling ones, with `all` also those that others were made from."""
    engine: Engine = request.engine
    query = request.query
    filters = query.filters()
    if query.get("filter"):  # before 1.41
        filters.setdefault("reference", []).append(query.get("filter"))
    users = _users(engine)

    def work() -> list[dict[str, Any]]:
        images = engine.images
        found = images.list()
        tests = [_test(engine, name, values) for name, values in filters.items()]
        counting = request.query.flag("shared-size")
        shared = _shared_sizes(engine, found) if counting else {}
        return [
            shapes.summary(
                image,
                request.api_version,
                len(users(image.id)) if counting else -1,
                shared.get(image.id, -1),
                _tags_shown(image, filters.get("reference")),
            )
            for image in found
            if (query.flag("all") or image.names or not images.children(image.id))
            and all(test(image) for test in tests)
        ]

    return json_response(await in_thread(work))


def _tags_shown(image: Image, patterns: list[str] | None) -> list[str] | None:
    """With a reference filter only the names that match are shown; None for all."""
    if patterns is None:
        return None
    globs = [_glob(pattern) for pattern in patterns]
    return [
        name.familiar
        for name in image.names
        if name.familiar in image.repo_tags
        and any(glob.fullmatch(text) for glob in globs for text in (name.familiar, name.familiar_name))
    ]


def _shared_sizes(engine: Engine, images: list[Image]) -> dict[str, int]:
    uses: dict[str, int] = {}
    for image in images:
        for layer in image.document.chain_ids:
            uses[layer] = uses.get(layer, 0) + 1
    size = engine.driver.layer_size
    return {
        image.id: sum(size(layer) for layer in image.document.chain_ids if uses[layer] > 1)
        for image in images
    }


def _test(engine: Engine, name: str, values: list[str]) -> Test:
    """One filter; values of the same filter are alternatives, but labels must all be there."""
    if name == "dangling":
        wanted = {_boolean(name, value) for value in values}
        return lambda image: (not image.repo_tags and not image.repo_digests) in wanted
    if name == "label":
        return lambda image: all(_has_label(image, value) for value in values)
    if name == "label!":
        return lambda image: not any(_has_label(image, value) for value in values)
    if name == "reference":
        patterns = [_glob(value) for value in values]
        return lambda image: any(
            pattern.fullmatch(text)
            for reference in image.names
            for text in (reference.familiar, reference.familiar_name)
            for pattern in patterns
        )
    if name in ("before", "since"):
        limits = [shapes.unix_time(engine.images.resolve(value).created) for value in values]
        if name == "before":
            return lambda image: all(shapes.unix_time(image.created) < limit for limit in limits)
        return lambda image: all(shapes.unix_time(image.created) > limit for limit in limits)
    if name == "until":
        limit = min(_moment(value) for value in values)
        return lambda image: shapes.unix_time(image.created) < limit
    raise InvalidParameter(f"invalid filter '{name}'")


def _boolean(name: str, value: str) -> bool:
    if value.lower() in ("1", "true", "t"):
        return True
    if value.lower() in ("0", "false", "f"):
        return False
    raise InvalidParameter(f"invalid filter '{name}={value}'")


def _has_label(image: Image, wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    labels = image.config.labels or {}
    return key in labels and (not equals or labels[key] == value)


def _glob(pattern: str) -> re.Pattern[str]:
    """A pattern by the rules of Go's path.Match: `*` and `?` stop at a slash."""
    parts = []
    position = 0
    while position < len(pattern):
        letter = pattern[position]
        close = pattern.find("]", position + 2) if letter == "[" else -1
        if letter == "*":
            parts.append("[^/]*")
        elif letter == "?":
            parts.append("[^/]")
        elif close > 0:
            inner = pattern[position + 1 : close].replace("\\", "\\\\").replace("[", "\\[")
            parts.append(f"[{inner}]")
            position = close
        else:
            parts.append(re.escape(letter))
        position += 1
    try:
        return re.compile("".join(parts))
    except re.error:
        raise InvalidParameter(f"invalid filter 'reference={pattern}'") from None


def _moment(text: str) -> float:
    """`until`: seconds since 1970, a time, or an age such as 24h."""
    age = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if text and age is not None:
        hours, minutes, seconds = (int(part or 0) for part in age.groups())
        return time.time() - hours * 3600 - minutes * 60 - seconds
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    moment = shapes.unix_time(text)
    if not moment:
        raise InvalidParameter(f"invalid filter 'until={text}'")
    return moment


@routes.get("/images/{name:path}/json")
async def inspect_image(request: Request) -> Response:
    """Everything about one image."""
    _no_platform(request)
    engine: Engine = request.engine
    image = await in_thread(lambda: engine.images.resolve(request.params["name"]))
    return json_response(shapes.inspect(image, request.api_version, engine.driver.name))


@routes.get("/images/{name:path}/history")
async def image_history(request: Request) -> Response:
    """How an image came about."""
    _no_platform(request)
    engine: Engine = request.engine
    return json_response(
        shapes.history(await in_thread(lambda: engine.images.history(request.params["name"])))
    )


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
    if query.all("platforms"):
        raise Unsupported("platforms: choosing a platform is not offered yet")
    users = _users(engine)
    done = await in_thread(
        lambda: engine.images.remove(
            request.params["name"], query.flag("force"), query.flag("noprune"), users
        )
    )
    return json_response([{action: text} for action, text in done])


@routes.post("/images/prune")
async def prune_images(request: Request) -> Response:
    """Remove dangling images, or with `dangling=false` all that no container uses."""
    engine: Engine = request.engine
    filters = request.query.filters()
    only_dangling = all(_boolean("dangling", value) for value in filters.pop("dangling", ["true"]))
    for name in filters:
        if name not in ("until", "label", "label!"):
            raise InvalidParameter(f"invalid filter '{name}'")
    users = _users(engine)

    def work() -> dict[str, Any]:
        tests = [_test(engine, name, values) for name, values in filters.items()]
        before = _layers(engine)
        deleted: list[dict[str, str]] = []
        for image in engine.images.list():
            if users(image.id) or (only_dangling and image.names) or engine.images.children(image.id):
                continue
            if all(test(image) for test in tests):
                for reference in [name.familiar for name in image.names] or [image.id]:
                    try:
                        done = engine.images.remove(reference, False, False, users)
                    except (Conflict, NotFound):
                        continue  # somebody else needed or removed it in the meantime
                    deleted.extend({action: text} for action, text in done)
        after = _layers(engine)
        freed_bytes = sum(size for layer, size in before.items() if layer not in after)
        return {"ImagesDeleted": deleted or None, "SpaceReclaimed": freed_bytes}

    result = await in_thread(work)
    engine.events.publish("image", "prune", "", {"reclaimed": str(result["SpaceReclaimed"])})
    return json_response(result)


def _layers(engine: Engine) -> dict[str, int]:
    layers = {layer for image in engine.images.list() for layer in image.document.chain_ids}
    return {layer: engine.driver.layer_size(layer) for layer in layers}


# --- archives ---


@routes.post("/images/load")
async def load_images(request: Request) -> Response:
    """Load an archive that the body is."""
    _no_platform(request)
    engine: Engine = request.engine
    quiet = request.query.flag("quiet")
    body = request.body_stream()

    def work(tell: Progress) -> None:
        def select(message: dict[str, Any]) -> None:
            if not quiet or "stream" in message:
                tell(message)

        engine.images.load(body, select)

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
    _no_platform(request)
    engine: Engine = request.engine

    def write(out: BinaryIO) -> None:
        engine.images.save(names, out)

    return thread_stream(write)


@routes.post("/images/create")
async def create_image(request: Request) -> Response:
    """Import a root file system from the body; pulling is refused."""
    engine: Engine = request.engine
    query = request.query
    source = query.get("fromSrc")
    if query.get("fromImage"):
        name, tag = query.get("fromImage"), query.get("tag")
        if tag:
            name += f"@{tag}" if tag.startswith("sha256:") else f":{tag}"
        name = name.removeprefix("docker.io/library/").removeprefix("docker.io/")
        raise Unsupported(
            f"pulling is not available yet: load or import the image {name} (docker load -i FILE)"
        )
    if not source:
        raise InvalidParameter("fromSrc or fromImage is needed")
    if source != "-":
        raise Unsupported("fromSrc: importing from a URL is not offered; send the archive (docker import -)")
    body = request.body_stream()
    target, changes = _target(request), query.all("changes")
    message, platform = query.get("message"), query.get("platform")

    def work(tell: Progress) -> None:
        tell({"status": engine.images.import_(body, target or None, changes, message, platform)})

    return await progress_response(work)
