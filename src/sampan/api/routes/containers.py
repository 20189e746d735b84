"""`/containers/…`: create, list, inspect, the lifecycle verbs, logs, resize. Streams are in `attaching`."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

from sampan.api import filters, versions
from sampan.api.routes.listing import choose, list_as_json, list_with_sizes, sizes_of
from sampan.api.routes.networks import endpoint_settings
from sampan.api.shapes import containers as shapes
from sampan.engine import (
    Engine,
    LogQuery,
    create,
    ending,
    explaining,
    links,
    log_config,
    pausing,
    removal,
    starting,
    stream_logs,
)
from sampan.engine.core import in_thread
from sampan.engine.model import ContainerConfig, EndpointSettings, HostConfig
from sampan.errors import Conflict, InvalidParameter, Unsupported
from sampan.http import ApiVersion, Request, Response, Routes, dump_json, empty, json_response, stream
from sampan.oci.platforms import from_text
from sampan.oci.records import decode

routes = Routes()


@routes.post("/containers/create")
async def create_container(request: Request) -> Response:
    """Make a container from a config, a host config and a networking config."""
    engine: Engine = request.engine
    body = await request.json()
    if not isinstance(body, dict):
        raise InvalidParameter("config cannot be empty in order to create a container")
    body = dict(body)
    host = dict(_member(body, "HostConfig"))
    networking = _member(body, "NetworkingConfig")
    dropped = [name for name in ("KernelMemory", "KernelMemoryTCP") if host.pop(name, None)]
    config = decode(ContainerConfig, body)
    host_config = decode(HostConfig, host, "HostConfig")
    networks = _endpoints(networking, request.api_version)
    versions.defaults(request.api_version, host_config)
    text = request.query.get("platform") if request.api_version >= (1, 41) else ""
    platform = from_text(text) if text else None
    if platform is not None and platform.os != "linux":
        raise InvalidParameter(f"operating system is not supported: {text}")
    wanted_name = request.query.get("name") or None
    live, warnings = await create.create(
        engine, wanted_name, config, host_config, platform, request.caller, networks
    )
    if dropped:  # gone from the kernel
        warnings.append("Your kernel does not support kernel memory limits. Limitation discarded.")
    return json_response({"Id": live.id, "Warnings": warnings}, 201)


def _member(body: dict[str, Any], name: str) -> dict[str, Any]:
    """Take an object out of the body; Go matches members without regard to case."""
    found = next((key for key in body if key.lower() == name.lower()), name)
    value = body.pop(found, None)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidParameter(f"{name}: expected an object")
    return value


def _endpoints(networking: dict[str, Any], version: ApiVersion) -> dict[str, EndpointSettings]:
    """The networks to be in, by name or id, of a networking config.

    What only a running container has in a network (its address, gateway, …) is let pass, as clients send back
    what inspect has shown.
    """
    for name, value in networking.items():
        if name.lower() != "endpointsconfig" and value:
            raise InvalidParameter(f"NetworkingConfig.{name}: unknown field")
    given = _member(dict(networking), "EndpointsConfig")
    if len(given) > 1 and version < (1, 44):
        raise InvalidParameter(
            f"Container cannot be created with multiple network endpoints: {', '.join(given)}"
        )
    return {
        network: endpoint_settings(_member({network: value}, network), network)
        for network, value in given.items()
    }


@routes.get("/containers/json")
async def list_(request: Request) -> Response:
    """The containers that match."""
    query = request.query
    engine: Engine = request.engine
    chosen = choose(engine, query.flag("all"), query.integer("limit"), query.filters())
    if query.flag("size"):
        return json_response(await list_with_sizes(engine, chosen))
    return Response(200, list_as_json(engine, chosen), "application/json")


@routes.get("/containers/{id}/json")
async def inspect(request: Request) -> Response:
    """All that is known of one container."""
    engine: Engine = request.engine
    live = engine.get(request.params["id"])
    size = await in_thread(lambda: sizes_of(engine, live)) if request.query.flag("size") else None
    shape = shapes.inspect(engine, live, size)
    versions.aliases(request.api_version, live.container, shape)
    return json_response(shape)


@routes.post("/containers/{id}/start")
async def start(request: Request) -> Response:
    """Start; 304 when it runs. With our own `explain`, a header tells the steps and their times."""
    engine: Engine = request.engine
    for name in ("checkpoint", "checkpoint-dir"):
        if request.query.get(name):
            raise Unsupported(f"{name}: checkpoints are not offered")
    if len(await request.read()) > len("null") + 3:  # as dockerd counts an empty object
        raise InvalidParameter(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in "
            "v1.24"
        )
    live = engine.get(request.params["id"])
    if not request.query.flag("explain"):
        await starting.start(engine, live)
        return empty()
    explanation = explaining.Explanation()
    await starting.start(engine, live, explanation)
    await in_thread(lambda: explaining.look_closer(engine, live.container, explanation))
    return Response(204, headers={"Sampan-Explanation": json.dumps(explanation.encoded())})


def _timeout(request: Request) -> int | None:
    return request.query.integer("t") if request.query.get("t") else None


@routes.post("/containers/{id}/stop")
async def stop(request: Request) -> Response:
    """Stop; 304 when it does not run."""
    engine: Engine = request.engine
    live = engine.get(request.params["id"])
    await ending.stop(engine, live, _timeout(request), request.query.get("signal"))
    return empty()


@routes.post("/containers/{id}/restart")
async def restart(request: Request) -> Response:
    """Stop if need be, and start."""
    engine: Engine = request.engine
    live = engine.get(request.params["id"])
    await ending.restart(engine, live, _timeout(request), request.query.get("signal"))
    return empty()


@routes.post("/containers/{id}/kill")
async def kill(request: Request) -> Response:
    """Send a signal."""
    engine: Engine = request.engine
    await ending.kill(engine, engine.get(request.params["id"]), request.query.get("signal"))
    return empty()


@routes.post("/containers/{id}/pause")
async def pause(request: Request) -> Response:
    """Freeze all processes."""
    engine: Engine = request.engine
    await pausing.pause(engine, engine.get(request.params["id"]))
    return empty()


@routes.post("/containers/{id}/unpause")
async def unpause(request: Request) -> Response:
    """Let them go on."""
    engine: Engine = request.engine
    await pausing.unpause(engine, engine.get(request.params["id"]))
    return empty()


@routes.post("/containers/{id}/rename")
async def rename(request: Request) -> Response:
    """Another name."""
    engine: Engine = request.engine
    name = request.query.get("name")
    if not name:
        raise InvalidParameter("Neither old nor new names may be empty")
    await ending.rename(engine, engine.get(request.params["id"]), name)
    return empty()


@routes.post("/containers/prune")
async def prune(request: Request) -> Response:
    """Remove every container that does not run and that the filters let through."""
    engine: Engine = request.engine
    given = request.query.filters()
    with filters.one_prune(engine, "containers and networks"):
        filters.check(given, filters.PRUNE)
        until_ns = filters.until_ns(given)
        removed: list[str] = []
        freed = 0
        for live in list(engine.containers.values()):
            container = live.container
            if live.status not in ("created", "exited", "dead"):
                continue
            if until_ns is not None and container.created_at_ns > until_ns:
                continue
            if not filters.keeps_labels(given, container.config.labels):
                continue
            size = await in_thread(lambda live=live: engine.driver.container_size(live.id))  # type: ignore[misc]
            try:
                await removal.remove(engine, live)
            except Conflict:
                continue  # started, or removed by somebody else, meanwhile
            removed.append(live.id)
            freed += size
    engine.events.publish("container", "prune", "", {"reclaimed": str(freed)})
    return json_response({"ContainersDeleted": removed or None, "SpaceReclaimed": freed})


@routes.delete("/containers/{id}")
async def remove(request: Request) -> Response:
    """Remove, with `force` also a running one, with `v` its anonymous volumes."""
    engine: Engine = request.engine
    query = request.query
    if query.flag("link"):
        await links.unlink(engine, request.params["id"])
        return empty()
    live = engine.get(request.params["id"])
    await removal.remove(engine, live, force=query.flag("force"), volumes=query.flag("v"))
    return empty()


@routes.post("/containers/{id}/wait")
async def wait(request: Request) -> Response:
    """The exit code, once there is one; the head goes out at once, so that clients know that we wait."""
    engine: Engine = request.engine
    live = engine.get(request.params["id"])
    asked = request.query.get("condition") if request.api_version >= (1, 30) else ""
    condition = asked or "not-running"
    if condition not in ("not-running", "next-exit", "removed"):
        raise InvalidParameter(f'invalid condition: "{condition}"')
    waiting = ending.wait(live, condition)

    async def answer() -> AsyncIterator[bytes]:
        yield b""
        yield dump_json({"StatusCode": await waiting})

    return stream(answer())


@routes.post("/containers/{id}/resize")
async def resize(request: Request) -> Response:
    """Change the terminal's size."""
    engine: Engine = request.engine
    live = engine.get(request.params["id"])
    rows, columns = request.query.integer("h"), request.query.integer("w")
    starting.require_running(live)
    assert live.process is not None
    await live.process.resize(rows, columns)
    return empty(200)


@routes.get("/containers/{id}/logs")
async def logs(request: Request) -> Response:
    """What the container has written, and with `follow` what it will."""
    engine: Engine = request.engine
    query = request.query
    live = engine.get(request.params["id"])
    container = live.container
    if not (query.flag("stdout") or query.flag("stderr")):
        raise InvalidParameter("Bad parameters: you must choose at least one stream")
    if not log_config.readable(container.host_config.log_config):
        raise Unsupported("configured logging driver does not support reading")
    tail = query.get("tail", "all")
    wanted = LogQuery(
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        since_ns=timestamp_ns(query.get("since")),
        until_ns=timestamp_ns(query.get("until")),
        tail=int(tail) if tail.isdecimal() else None,
        timestamps=query.flag("timestamps"),
        details=query.flag("details"),
        follow=query.flag("follow"),
        framed=not container.config.tty,
    )
    ended = live.ended if container.state.running else None
    pieces = stream_logs(engine.log_path(container), wanted, ended)
    return stream(pieces, versions.stream_type(request.api_version, container.config.tty))


def timestamp_ns(text: str) -> int:
    """Nanoseconds since 1970 of `seconds[.fraction]`; 0 when there is none.

    Raises:
        InvalidParameter: not a number.
    """
    if not text:
        return 0
    seconds, _, fraction = text.partition(".")
    try:
        value = int(seconds) * 1_000_000_000 + int((fraction + "0" * 9)[:9])
    except ValueError as error:
        raise InvalidParameter(f"invalid timestamp: {text}") from error
    return value if value >= 0 else time.time_ns() + value
