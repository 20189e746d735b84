"""How a container's names are resolved: its resolv.conf, and on user-defined networks the resolver's orders.

As with Docker: in a user-defined network /etc/resolv.conf names 127.0.0.11, which knows the container's peers
and asks the host's name servers or those of `--dns`; elsewhere it names those themselves. Beyond Docker, a
container with an egress policy has the resolver in any network, as its policy is kept there too. Whoever
shares another container's network has a copy of its file, and in its namespace the same resolver.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypedDict

from sampan.engine import endpoints
from sampan.engine.core import Core
from sampan.engine.model import Container
from sampan.errors import NotFound
from sampan.network import (
    Gated,
    Resolution,
    change_resolv_conf,
    plan_resolution,
    resolv_conf,
    write_resolution,
    write_resolv_conf,
)
from sampan.resolver.protocol import AskerOptions
from sampan.runtime import Process


class _Given(TypedDict):
    servers: list[str]
    search: list[str]
    options: list[str]


def write(core: Core, container: Container) -> None:
    """Write the file for a start, and have the resolver serve the container if it is to.

    Raises:
        OSError, SampanError: it cannot.
    """
    path = core.directory(container.id) / "resolv.conf"
    given, on_host = _given(core, container), container.host_config.network_mode == "host"
    gated = core.networks.gated(container.id)
    if on_host or not (gated or _in_network_with_names(core, container)):
        write_resolv_conf(path, **given, host_mode=on_host)
        return
    resolution = plan_resolution(**given)
    write_resolution(path, resolution)
    _serve(core, container, resolution, gated)


def follow(core: Core, container: Container) -> None:
    """The networks of a running container have changed, or an earlier daemon has started it.

    One that had no resolver before, and has not changed its file, is led to it.

    Raises:
        OSError, SampanError: it cannot be served.
    """
    served = core.resolving.serves(container.id)
    gated = core.networks.gated(container.id)
    if not (served or gated or _in_network_with_names(core, container)):
        return
    given = _given(core, container)
    resolution = plan_resolution(**given)
    _serve(core, container, resolution, gated)
    if not served:
        path = core.directory(container.id) / "resolv.conf"
        change_resolv_conf(path, resolv_conf(**given), resolution.content)


def telling_life(core: Core, container: Container, process: Process) -> Callable[[], None] | None:
    """Tells resolver and port proxy of the container's process, should no daemon be there when that ends.

    Returns:
        What does so, and may wait for either; None where neither needs to know.
    """
    tellers = []
    if core.networks.proxies(container.id) and process.alive:
        tellers.append(partial(core.networks.lives, container.id, os.dup(process.pidfd)))
    if core.resolving.serves(container.id) and process.alive:
        tellers.append(partial(core.resolving.lives, container.id, os.dup(process.pidfd)))
    if not tellers:
        return None

    def tell() -> None:
        for one in tellers:
            one()

    return tell


def _serve(core: Core, container: Container, resolution: Resolution, gated: Gated | None) -> None:
    outside = "bridge" in container.networks
    options = AskerOptions(container.id, resolution.upstreams, resolution.ndots_set, outside)
    no_ipv4 = not any(settings.ip_address for settings in container.networks.values())
    if gated is not None or no_ipv4:  # from the host, as the container itself may not reach its name servers
        upstreams = tuple(replace(one, from_host=True) for one in options.upstreams)
        options = replace(options, upstreams=upstreams)
    if gated is not None:
        options = replace(options, gated=gated.names, restricted=gated.restricted, ipv6=gated.ipv6)
    core.resolving.serve(options, container.sandbox_key)


def _given(core: Core, container: Container) -> _Given:
    """What the container or else the daemon was told to have in the file."""
    host_config, options = container.host_config, core.options
    on_host = host_config.network_mode == "host"
    return _Given(
        servers=host_config.dns or ([] if on_host else options.dns),
        search=host_config.dns_search or ([] if on_host else options.dns_search),
        options=host_config.dns_options or ([] if on_host else options.dns_opts),
    )


def _in_network_with_names(core: Core, container: Container) -> bool:
    for name, settings in endpoints.of(container).items():
        try:
            there = settings.ip_address or settings.global_ipv6_address
            if there and not core.networks.get(settings.network_id or name).predefined:
                return True
        except NotFound:  # removed by force
            continue
    return False
