"""`/networks`: list and inspect what there is; making and joining networks is refused by name."""

from __future__ import annotations

from collections.abc import Callable

from sampan.engine import Engine
from sampan.engine.core import in_thread
from sampan.errors import Forbidden, InvalidParameter, Unsupported
from sampan.http import Request, Response, Routes, json_response
from sampan.network import Endpoint, Network, describe

routes = Routes()


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
    tests = [_test(engine, name, values) for name, values in request.query.filters().items()]
    networks = await in_thread(engine.networks.networks)
    return json_response(
        [describe(network, {}) for network in networks if all(test(network) for test in tests)]
    )


def _test(engine: Engine, name: str, values: list[str]) -> Callable[[Network], bool]:
    if name == "name":
        return lambda network: any(value in network.name for value in values)
    if name == "id":
        return lambda network: any(network.id.startswith(value) for value in values)
    if name == "driver":
        return lambda network: network.driver in values
    if name == "scope":
        return lambda network: "local" in values
    if name == "type":
        if not set(values) <= {"builtin", "custom"}:
            raise InvalidParameter(f"invalid filter 'type={values[0]}'")
        return lambda network: "builtin" in values
    if name == "label":
        return lambda network: all(_has_label(network, value) for value in values)
    if name == "dangling":
        wanted = {value.lower() in ("1", "true") for value in values}
        return lambda network: False in wanted  # the built-in ones are never dangling
    raise InvalidParameter(f"invalid filter '{name}'")


def _has_label(network: Network, wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in network.labels and (not equals or network.labels[key] == value)


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
async def prune_networks(_: Request) -> Response:
    """Every network here is built in, so none is ever removed."""
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
