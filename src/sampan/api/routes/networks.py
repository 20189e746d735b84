"""`/networks`: make, list, inspect and remove networks, and put containers into them and out of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any

from sampan.api import filters
from sampan.dataclasses import dataclass
from sampan.engine import Engine, networks
from sampan.engine.model import EndpointSettings
from sampan.errors import InvalidParameter, NotFound, Unsupported
from sampan.http import Request, Response, Routes, empty, json_response
from sampan.network import Endpoint, Network, NetworkSpec, Pool, describe, has_version
from sampan.oci.records import decode

routes = Routes()


# --- what there is ---


def _members(engine: Engine, network: Network) -> dict[str, tuple[str, Endpoint]]:
    """The running containers of a network: id to name and endpoint."""
    members = {}
    for live in networks.members(engine, network):
        settings = live.container.networks[network.name]
        members[live.id] = (
            live.container.name,
            Endpoint(
                network.id,
                settings.endpoint_id,
                settings.mac_address,
                settings.ip_address,
                settings.ip_prefix_len,
                settings.gateway,
                settings.global_ipv6_address,
                settings.global_ipv6_prefix_len,
                settings.ipv6_gateway,
            ),
        )
    return members


@routes.get("/networks")
async def list_networks(request: Request) -> Response:
    """The networks."""
    engine: Engine = request.engine
    wanted = _wanted(engine, request.query.filters())
    found = engine.networks.networks()
    return json_response([describe(network, {}) for network in found if wanted(network)])


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
    used = {
        name
        for live in engine.containers.values()
        if dangling is not None and live.container.state.running
        for name in live.container.networks
    }

    def test(network: Network) -> bool:
        return (
            ("name" not in given or filters.matches(given["name"], network.name))
            and ("id" not in given or filters.matches(given["id"], network.id))
            and ("driver" not in given or network.driver in given["driver"])
            and ("scope" not in given or "local" in given["scope"])
            and ("type" not in given or any(_KINDS[kind] == network.predefined for kind in given["type"]))
            and filters.labelled(given.get("label", ()), network.labels)
            and (dangling is None or dangling == (not network.predefined and network.name not in used))
        )

    return test


@routes.get("/networks/{id:path}")
async def inspect_network(request: Request) -> Response:
    """One network, with its running containers."""
    engine: Engine = request.engine
    network = engine.networks.get(request.params["id"])
    if request.query.get("scope") not in ("", "local"):
        raise NotFound(f"network {request.params['id']} not found")
    return json_response(describe(network, _members(engine, network)))


# --- making and removing ---


@dataclass(slots=True)
class _Pool:
    subnet: str = ""
    ip_range: str = field(default="", metadata={"json": "IPRange"})
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


@dataclass(slots=True)
class _Ipam:
    driver: str = ""
    config: list[_Pool] | None = None
    options: dict[str, str] | None = None


@dataclass(slots=True)
class _Create:
    name: str = ""
    check_duplicate: bool = False  # said nothing since API 1.44: no two networks have a name
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: dict[str, Any] | None = None
    ipam: _Ipam | None = field(default=None, metadata={"json": "IPAM"})
    enable_ipv4: bool | None = field(default=None, metadata={"json": "EnableIPv4"})
    enable_ipv6: bool | None = field(default=None, metadata={"json": "EnableIPv6"})
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


@routes.post("/networks/create")
async def create_network(request: Request) -> Response:
    """Make a network."""
    engine: Engine = request.engine
    asked = decode(_Create, await request.json())
    for given, what in (
        (asked.scope not in ("", "local"), f"scope {asked.scope}"),
        (asked.ingress, "ingress networks"),
    ):
        if given:
            raise Unsupported(f"network create: {what}: not offered")
    ipam = asked.ipam or _Ipam()
    if ipam.driver not in ("", "default"):
        raise NotFound(f'plugin "{ipam.driver}" not found')
    for name in ipam.options or ():
        raise InvalidParameter(f"IPAM option {name!r} is none of the default driver's")
    pools = [
        Pool(one.subnet, one.ip_range, one.gateway, one.auxiliary_addresses or {})
        for one in ipam.config or ()
    ]
    options = dict(asked.options or {})
    enabled = {
        version: has_version(options, version, wanted)
        for version, wanted in ((4, asked.enable_ipv4), (6, asked.enable_ipv6))
    }
    used: dict[int, list[Pool]] = {4: [], 6: []}
    for one in pools:
        if enabled[one.version]:
            used[one.version].append(one)
    first, *more = used[4] or [Pool()]
    first6, *more6 = used[6] or [Pool()]
    spec = NetworkSpec(
        name=asked.name,
        driver=asked.driver or "bridge",
        subnet=first.subnet,
        ip_range=first.ip_range,
        gateway=first.gateway,
        aux_addresses=first.aux_addresses,
        internal=asked.internal,
        attachable=asked.attachable,
        options=options,
        labels=asked.labels or {},
        ipam_options=ipam.options,
        ipv6=first6 if enabled[6] else None,
        more=more + more6,
        unused=[one for one in pools if not enabled[one.version]],
        enable_ipv4=enabled[4],
        config_only=asked.config_only,
        config_from=str((asked.config_from or {}).get("Network") or ""),
    )
    network = await networks.create(engine, spec)
    warnings = [
        f"subnet {one.subnet} is not used: the network has no IPv{one.version} (--ipv{one.version})"
        for one in network.unused
    ]
    return json_response({"Id": network.id, "Warning": "; ".join(warnings)}, 201)


@routes.delete("/networks/{id:path}")
async def remove_network(request: Request) -> Response:
    """Remove one that nobody is in."""
    engine: Engine = request.engine
    await networks.remove(engine, request.params["id"])
    return empty()


@routes.post("/networks/prune")
async def prune_networks(request: Request) -> Response:
    """Remove what no container is in; those that are built in stay."""
    engine: Engine = request.engine
    given = request.query.filters()
    with filters.one_prune(engine, "containers and networks"):
        filters.check(given, filters.PRUNE)
        until_ns = filters.until_ns(given)
        removed = await networks.prune(
            engine,
            [
                network
                for network in engine.networks.networks()
                if (until_ns is None or network.created_ns <= until_ns)
                and filters.keeps_labels(given, network.labels)
            ],
        )
    engine.events.publish("network", "prune", "", {"reclaimed": "0"})
    return json_response({"NetworksDeleted": removed or None})


# --- containers ---


def endpoint_settings(body: dict[str, Any], where: str) -> EndpointSettings:
    """What is asked for in a network, of its JSON.

    Raises:
        InvalidParameter: it is no such thing.
    """
    known = {key: value for key, value in body.items() if key.lower() not in _SHOWN}
    if any(key.lower() == "desiredmacaddress" for key in known):
        raise InvalidParameter(f"{where}.DesiredMacAddress: unknown field")
    return decode(EndpointSettings, known, where)


_SHOWN = frozenset(("ipv6gateway", "globalipv6address", "globalipv6prefixlen"))


@dataclass(slots=True)
class _Connect:
    container: str = ""
    endpoint_config: dict[str, Any] | None = None


@dataclass(slots=True)
class _Disconnect:
    container: str = ""
    force: bool = False


@routes.post("/networks/{id}/connect")
async def connect(request: Request) -> Response:
    """Put a container into a network."""
    engine: Engine = request.engine
    asked = decode(_Connect, await request.json())
    settings = endpoint_settings(asked.endpoint_config or {}, "EndpointConfig")
    await networks.connect(engine, request.params["id"], engine.get(asked.container), settings)
    return empty(200)


@routes.post("/networks/{id}/disconnect")
async def disconnect(request: Request) -> Response:
    """Take a container out of a network."""
    engine: Engine = request.engine
    asked = decode(_Disconnect, await request.json())
    await networks.disconnect(engine, request.params["id"], engine.get(asked.container), asked.force)
    return empty(200)
