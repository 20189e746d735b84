"""`docker network`: make and remove networks, and put containers into them and out of them, live or not."""

from __future__ import annotations

import asyncio
import contextlib

from sampan.engine import endpoints, links, ports, resolution
from sampan.engine.core import Core, Live, in_thread
from sampan.engine.model import Container, EndpointSettings
from sampan.errors import Conflict, Forbidden, InvalidParameter, NotFound, SampanError
from sampan.network import Network, NetworkSpec, change_hosts, own_names


def publish(core: Core, network: Network, action: str, **attributes: str) -> None:
    """A network's event, with what Docker always tells of it."""
    known = {"name": network.name, "type": network.driver}
    core.events.publish("network", action, network.id, {**attributes, **known})


def tell(core: Core, container: Container, action: str) -> None:
    """The events of a container that starts or ends, one for each network."""
    for name, settings in container.networks.items():
        with contextlib.suppress(SampanError):  # removed meanwhile
            network = core.networks.get(settings.network_id or name)
            publish(core, network, action, container=container.id)


async def create(core: Core, spec: NetworkSpec) -> Network:
    """Make a network.

    Raises:
        SampanError: as `NetworkService.create`.
    """
    network = await in_thread(lambda: core.networks.create(spec))
    publish(core, network, "create")
    return network


async def remove(core: Core, reference: str) -> None:
    """Remove a network that nobody is in.

    Raises:
        NotFound, Forbidden: there is none, it is predefined or in use.
    """
    network = core.networks.get(reference)
    running = {live.id: live.container.name for live in members(core, network)}
    await in_thread(lambda: core.networks.remove(network, running))
    publish(core, network, "destroy")


def members(core: Core, network: Network) -> list[Live]:
    """The running containers in a network."""
    return [
        live
        for live in core.containers.values()
        if live.container.state.running and network.name in live.container.networks
    ]


# --- containers ---


async def connect(core: Core, reference: str, live: Live, settings: EndpointSettings) -> None:
    """Put a container into a network, at once if it runs.

    Raises:
        NotFound: there is no such network.
        InvalidParameter, Unsupported: what is asked for is wrong or not offered.
        Forbidden: it is in it already, or an address that is asked for is in use.
        Conflict: it is being removed.
    """
    async with live.lock:
        container = live.container
        network = core.networks.get(reference)
        mode = container.host_config.network_mode
        _check_not_removing(live)
        if mode.startswith("container:"):
            raise InvalidParameter(endpoints.SHARED)
        if "host" in (network.name, mode):
            raise InvalidParameter(endpoints.HOST_CONNECT)
        present = endpoints.of(container)
        others = [name for name in present if name != network.name]
        if others and "none" in (network.name, *others):
            raise InvalidParameter(
                "container cannot be connected to multiple networks with one of the networks in private "
                "(none) mode"
            )
        settings.mac_address, settings.desired_mac_address = "", settings.mac_address
        settings.network_id = ""
        endpoints.clear(settings)
        endpoints.check(network, settings)
        if network.name in present and container.state.running:
            raise Forbidden(f"endpoint with name {container.name} already exists in network {network.name}")
        container.networks, container.networks_chosen = dict(present), True
        if container.state.running and network.name != "none":
            await in_thread(lambda: _plug(core, container, network, settings))
            publish(core, network, "connect", container=container.id)
            await _let_go_of_ended(core, live)
        else:
            container.networks[network.name] = settings
        core.write_down(container)


def _plug(core: Core, container: Container, network: Network, settings: EndpointSettings) -> None:
    wanted = endpoints.request(core, container, network.name, settings)
    sandbox = core.networks.connect(container.id, wanted, ports.bindings(core, container))
    container.networks[network.name] = settings
    endpoints.note(container, sandbox)
    try:
        resolution.follow(core, container)
        links.follow(core, container)
    except BaseException:
        with contextlib.suppress(NotFound):  # it ends, and so do all its endpoints
            core.networks.disconnect(container.id, network.id, ports.bindings(core, container))
        del container.networks[network.name]
        raise
    _change_hosts(core, container, add=(settings.ip_address, settings.global_ipv6_address))


async def disconnect(core: Core, reference: str, live: Live, force: bool = False) -> None:
    """Take a container out of a network, at once if it runs.

    Args:
        force: also out of one that is not there any more.

    Raises:
        NotFound: there is no such network.
        Conflict: it is being removed.
        SampanError: the container is not in it.
    """
    async with live.lock:
        container = live.container
        _check_not_removing(live)
        network: Network | None = None
        try:
            network = core.networks.get(reference)
        except NotFound:
            if not force and container.state.running:
                raise
        name = network.name if network is not None else reference
        mode = container.host_config.network_mode
        if container.state.running and name == "host" and mode == "host":
            raise InvalidParameter(endpoints.HOST_DISCONNECT)
        present = endpoints.of(container)
        if name not in present:
            raise SampanError(f"container {container.id} is not connected to the network {name}")
        if container.state.running and network is not None and name != "none":
            address = (present[name].ip_address, present[name].global_ipv6_address)
            await in_thread(lambda: _unplug(core, container, network, address))
            publish(core, network, "disconnect", container=container.id)
        container.networks = {other: settings for other, settings in present.items() if other != name}
        container.networks_chosen = True
        if container.state.running:
            await in_thread(lambda: resolution.follow(core, container))
        core.write_down(container)


def _unplug(core: Core, container: Container, network: Network, addresses: tuple[str, ...]) -> None:
    try:
        sandbox = core.networks.disconnect(container.id, network.id, ports.bindings(core, container))
    except NotFound as error:
        raise SampanError(
            f"container {container.id} is not connected to the network {network.name}"
        ) from error
    ports.record(container, sandbox.published)
    _change_hosts(core, container, drop=addresses)


def _change_hosts(
    core: Core, container: Container, *, add: tuple[str, ...] = (), drop: tuple[str, ...] = ()
) -> None:
    names = own_names(container.config.hostname, container.config.domainname)
    with contextlib.suppress(OSError):  # its names in its own file: nothing else depends on them
        change_hosts(
            core.directory(container.id) / "hosts",
            add=[(address, names) for address in add if address and names],
            drop=[address for address in drop if address],
        )


def _check_not_removing(live: Live) -> None:
    if live.removing:
        raise Conflict(
            f"Container {live.id} is marked for removal and cannot be connected or disconnected to the "
            "network"
        )


async def renamed(core: Core, live: Live) -> None:
    """Tell a running container's peers its new name; for callers that hold its lock."""
    container = live.container
    if container.state.running and container.networks and live.process is not None:
        wanted = endpoints.requests(core, container)
        await in_thread(lambda: core.networks.announce(container.id, wanted))
        await _let_go_of_ended(core, live)


async def _let_go_of_ended(core: Core, live: Live) -> None:
    """Take out what a container was given while it ended, if its clean-up came too early to see that."""
    if live.process is not None:
        return
    if live.settled is not None:
        await live.settled
    await in_thread(lambda: core.networks.remove_sandbox(live.id))
    endpoints.clear_all(live.container)


async def prune(core: Core, wanted: list[Network]) -> list[str]:
    """Remove those of the networks that nobody is in, running or not; their names."""
    removed = []
    for network in wanted:
        used = any(network.name in endpoints.of(live.container) for live in core.containers.values())
        if network.predefined or network.config_only or used:
            continue
        with contextlib.suppress(Forbidden, NotFound):  # somebody has come, or removed it, meanwhile
            await remove(core, network.id)
            removed.append(network.name)
        await asyncio.sleep(0)
    return removed
