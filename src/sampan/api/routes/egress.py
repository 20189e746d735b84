"""`/containers/{id}/egress` and `/networks/{id}/egress`, not Docker's: policies, and what they refused."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from sampan.api.shapes.times import rfc3339
from sampan.dataclasses import dataclass
from sampan.engine import Engine, egress, networks
from sampan.engine.core import in_thread
from sampan.errors import InvalidParameter
from sampan.http import Request, Response, Routes, dump_json, empty, json_response, stream
from sampan.network.egress import Refusal
from sampan.network.settings import EGRESS
from sampan.oci.records import decode

routes = Routes()


@dataclass(slots=True)
class _Set:
    policy: str = ""


async def _asked(request: Request) -> str:
    policy = decode(_Set, await request.json()).policy
    if not policy:
        raise InvalidParameter('Policy: must be an egress policy, or "none"')
    return policy


# --- containers ---


@routes.get("/containers/{id}/egress")
async def container_policy(request: Request) -> Response:
    """A container's own policy, what holds in each of its networks, and what is open to it by name."""
    engine: Engine = request.engine
    live = engine.get(request.params["id"])
    now, now_ns = time.monotonic(), time.time_ns()
    return json_response(
        {
            "Policy": live.container.host_config.egress or egress.NONE,
            "Networks": {
                one.network: {"Policy": one.policy or egress.NONE, "Own": one.own}
                for one in egress.applied(engine, live)
            },
            "Open": [
                {
                    "Names": names,
                    "Address": str(opening.destination),
                    "Port": (opening.ports or (0, 0))[0],
                    "LastPort": (opening.ports or (0, 0))[1],
                    "Until": rfc3339(now_ns + round((until - now) * 1e9)),
                }
                for opening, until, names in egress.openings(engine, live)
            ],
        }
    )


@routes.put("/containers/{id}/egress")
async def set_container_policy(request: Request) -> Response:
    """Give a container another policy, running or not."""
    engine: Engine = request.engine
    policy = await _asked(request)
    await egress.set_container(engine, engine.get(request.params["id"]), policy)
    return empty()


@routes.get("/containers/{id}/egress/log")
async def container_log(request: Request) -> Response:
    """What was refused to a container; with `follow` also what will be."""
    engine: Engine = request.engine
    live = engine.get(request.params["id"])
    return await _log(request, lambda: [live.id])


# --- networks ---


@routes.get("/networks/{id}/egress")
async def network_policy(request: Request) -> Response:
    """The policy of containers in a network that have none of their own."""
    engine: Engine = request.engine
    network = engine.networks.get(request.params["id"])
    return json_response({"Policy": network.options.get(EGRESS, egress.NONE)})


@routes.put("/networks/{id}/egress")
async def set_network_policy(request: Request) -> Response:
    """Give a network another policy."""
    engine: Engine = request.engine
    policy = await _asked(request)
    await egress.set_network(engine, engine.networks.get(request.params["id"]), policy)
    return empty()


@routes.get("/networks/{id}/egress/log")
async def network_log(request: Request) -> Response:
    """What was refused to the containers that are in a network."""
    engine: Engine = request.engine
    network = engine.networks.get(request.params["id"])
    return await _log(request, lambda: [live.id for live in networks.members(engine, network)])


# --- what was refused ---


async def _log(request: Request, container_ids: Callable[[], list[str]]) -> Response:
    engine: Engine = request.engine
    ids = container_ids()
    if not request.query.flag("follow"):
        found = await in_thread(lambda: engine.refusals.read(ids))
        return stream(_lines(engine, found))
    source = engine.refusals.follow(lambda container_id: container_id in container_ids(), ids)

    async def lines() -> AsyncIterator[bytes]:
        yield b""  # the head at once: clients wait for it
        async with contextlib.aclosing(source):
            async for refusal in source:
                yield dump_json(_shape(engine, refusal))

    return stream(lines())


async def _lines(engine: Engine, refusals: list[Refusal]) -> AsyncIterator[bytes]:
    yield b"".join(dump_json(_shape(engine, refusal)) for refusal in refusals)


def _shape(engine: Engine, refusal: Refusal) -> dict[str, Any]:
    live = engine.containers.get(refusal.container_id)
    return {
        "Time": rfc3339(refusal.time_ns),
        "ContainerID": refusal.container_id,
        "Container": live.container.name if live is not None else "",
        "Kind": refusal.kind,
        "Name": refusal.name,
        "Address": refusal.destination,
        "Protocol": refusal.protocol,
        "Port": refusal.port,
    }
