"""`/networks`: list and inspect what there is; making and joining networks is refused by name."""

from __future__ import annotations

from collections.abc import Callable

from sampan.api import filters
from sampan.engine import Engine
from sampan.engine.core import in_thread
from sampan.errors import Forbidden, InvalidParameter, Unsupported
from sampan.http import Request, Response, Routes, json_response
from sampan.network import Endpoint, Network, describe

routes = Routes()

PREDEFINED = ("bridge", "host", "none")


def _members(engine: Engine, network: Network) -> dict[str, tuple[str, Endpoint]]:
    """The running containers of a network: id to name and endpoint."""
    members = {}
    for live in engine.containers.values():
        settings = live.container.networks.get(network.name)
        if settings is not None and live.container.state.running:
            members[live.id] = (
                live.container.name,
                Endpoint(
                    network.id,
                    settings.endpoint_id,
                    settings.mac_address,
                    settings.ip_address,
                    settings.ip_prefix_len,
                    settings.gateway,
                ),
            )
    return members


@routes.get("/networks")
async def list_networks(request: Request) -> Response:
    """The networks."""
    engine: Engine = request.engine
    given = request.query.filters()
    wanted = _wanted(engine, given)
    networks = await in_thread(engine.networks.networks)
    return json_response([describe(network, {}) for network in networks if wanted(network)])


_FILTERS = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))
_KINDS = {"builtin": True, "custom": False}


def _wanted(engine: Engine, given: filters.Filters) -> Callable[[Network], bool]:
    """Which networks the filters of a list let through.

    Raises:
        InvalidParameter: an unknown filter, or a value that it cannot have.
    """
    filters.check(given, _FILTERS)
    for kind in given.get("type", ()):
        if kind not in _KINDS:
            raise InvalidParameter(f"invalid filter: 'type'='{kind}'")
    dangling = filters.boolean(given, "dangling", False) if "dangling" in given else None

    def test(network: Network) -> bool:
        builtin = network.name in PREDEFINED
        return (
            ("name" not in given or filters.matches(given["name"], network.name))
            and ("id" not in given or filters.matches(given["id"], network.id))
            and ("driver" not in given or network.driver in given["driver"])
            and ("scope" not in given or "local" in given["scope"])
            and ("type" not in given or any(_KINDS[kind] == builtin for kind in given["type"]))
            and filters.labelled(given.get("label", ()), network.labels)
            and (dangling is None or dangling == (not builtin and not _members(engine, network)))
        )

    return test


@routes.get("/networks/{id:path}")
async def inspect_network(request: Request) -> Response:
    """One network, with its running containers."""
    engine: Engine = request.engine
    network = await in_thread(lambda: engine.networks.get(request.params["id"]))
    return json_response(describe(network, _members(engine, network)))


@routes.post("/networks/create")
async def create_network(_: Request) -> Response:
    """Refused."""
    raise Unsupported("network create: user-defined networks are not offered yet; use bridge, host or none")


@routes.post("/networks/prune")
async def prune_networks(request: Request) -> Response:
    """Remove what no container is in; those that are built in stay, and there are no others yet."""
    engine: Engine = request.engine
    given = request.query.filters()
    with filters.one_prune(engine, "containers and networks"):
        filters.check(given, filters.PRUNE)
        filters.until_ns(given)
    engine.events.publish("network", "prune", "", {"reclaimed": "0"})
    return json_response({"NetworksDeleted": None})


@routes.post("/networks/{id}/connect")
async def connect(_: Request) -> Response:
    """Refused."""
    raise Unsupported("network connect is not offered yet")


@routes.post("/networks/{id}/disconnect")
async def disconnect(_: Request) -> Response:
    """Refused."""
    raise Unsupported("network disconnect is not offered yet")


@routes.delete("/networks/{id:path}")
async def remove_network(request: Request) -> Response:
    """Refused: the built-in networks stay."""
    engine: Engine = request.engine
    network = await in_thread(lambda: engine.networks.get(request.params["id"]))
    raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
