"""A container's places in networks: checked at create and connect, asked for at the start, noted, cleared.

Docker's words for what is wrong (its `validateEndpointSettings`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from sampan.engine import links, ports
from sampan.engine.core import Core
from sampan.engine.model import Container, EndpointSettings
from sampan.errors import InvalidParameter, Unsupported
from sampan.network import Network, Pool, Request, Sandbox, check_mac, not_at_a_bridge
from sampan.network.egress import parse
from sampan.network.settings import check_interface, foreign

_INTERFACE = "com.docker.network.endpoint.ifname"
_POLICED = ("bridge", "null")  # drivers that leave no way around a policy
_SYSCTLS = "com.docker.network.endpoint.sysctls"
_NO_IPV6 = "net.ipv6.conf.all.disable_ipv6"
_SYSCTL = re.compile(r"net\.(ipv4|ipv6|mpls)\.(conf|neigh)\.(?i:IFNAME)\.[a-z0-9_]+")
_REAL_OPTIONS = ("com.docker.network.endpoint.exposedports",)
HOST_CONNECT = "cannot connect container to host network - container must be created in host network mode"
HOST_DISCONNECT = "cannot disconnect container from host network - container was created in host network mode"
_PRIVATE = (
    "container cannot be connected to multiple networks with one of the networks in private (none) mode"
)
SHARED = (
    "container sharing network namespace with another container or host cannot be connected to any other "
    "network"
)


# --- what is asked for ---


def complete(core: Core, container: Container, given: dict[str, EndpointSettings]) -> None:
    """Give a new container its places in networks: those that are given, or the one of its network mode.

    Args:
        given: by network name or id; "default" is the mode's.

    Raises:
        InvalidParameter, Unsupported: in Docker's words.
        NotFound: there is no such network.
    """
    config, mode = container.config, container.host_config.network_mode
    container.networks_chosen = True
    if mode.startswith("container:"):
        if any(settings.mac_address for settings in given.values()):
            raise InvalidParameter("conflicting options: mac-address and the network mode")
        if any(settings != EndpointSettings() for settings in given.values()):
            raise InvalidParameter(SHARED)
        return
    chosen: dict[str, EndpointSettings] = {}
    for reference, settings in given.items():
        network = core.networks.get(mode if reference in ("default", "") else reference)
        if network.name in chosen:
            raise InvalidParameter(f"network {network.name} is given twice")
        chosen[network.name] = settings
    chosen = chosen or {mode: EndpointSettings()}
    for name, settings in chosen.items():
        settings.mac_address, settings.desired_mac_address = "", settings.mac_address
        check(core.networks.get(name), settings)
        clear(settings)
        settings.network_id = ""
    _check_together(mode, list(chosen))
    links.take(core, container, chosen)
    if config.mac_address and mode in chosen:
        theirs = chosen[mode].desired_mac_address
        if theirs and check_mac(theirs) != check_mac(config.mac_address):
            raise InvalidParameter(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main "
                "network, or be left empty"
            )
        chosen[mode].desired_mac_address = check_mac(config.mac_address)
    container.networks = chosen
    if container.host_config.egress:
        check_drivers(core, container)


def _check_together(mode: str, names: list[str]) -> None:
    together = {mode, *names}
    if len(together) > 1 and "host" in together:
        raise InvalidParameter(HOST_CONNECT)
    if len(together) > 1 and "none" in together:
        raise InvalidParameter(_PRIVATE)


def check(network: Network, settings: EndpointSettings) -> None:
    """Check what is asked for in a network.

    Raises:
        InvalidParameter: what is wrong, in Docker's words.
        Unsupported: something that is not offered.
    """
    if network.config_only:
        raise InvalidParameter("cannot create endpoint on configuration-only network")
    problems = []
    wanted = settings.ipam_config
    if wanted is not None:
        problems += _link_local_problems(network, wanted.link_local_ips or ())
        if network.predefined and (wanted.ipv4_address or wanted.ipv6_address):
            problems.append("user specified IP address is supported on user defined networks only")
        else:
            if wanted.ipv4_address:
                problems += _address_problems(wanted.ipv4_address, network.chosen_pools(4), 4)
            if wanted.ipv6_address:
                problems += _address_problems(wanted.ipv6_address, network.chosen_pools(6), 6)
    if network.predefined and settings.aliases:
        problems.append("network-scoped alias is supported only for containers in user defined networks")
    if settings.desired_mac_address:
        if network.name == "host":
            raise InvalidParameter("conflicting options: mac-address and the network mode")
        check_mac(settings.desired_mac_address)
    _check_options(settings.driver_opts or {})
    for link in settings.links or ():
        links.parse(link)
    if problems:
        raise InvalidParameter("invalid endpoint settings:\n" + "\n".join(problems))


def _address_problems(text: str, pools: list[Pool], version: int) -> list[str]:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != version:
        return [f"invalid IPv{version} address: {text}"]
    if not pools:
        return [
            "user specified IP address is supported only when connecting to networks with user configured "
            "subnets"
        ]
    subnets = [ipaddress.ip_network(pool.subnet, strict=False) for pool in pools]
    subnet = next((one for one in subnets if address in one), None)
    if subnet is None:
        return [f"no configured subnet or ip-range contain the IP address {address}"]
    if address in (subnet.network_address, subnet.broadcast_address):
        return [f"invalid IPv{version} address: {address} is not a host's in {subnet}"]
    return []


def _link_local_problems(network: Network, addresses: Iterable[str]) -> list[str]:
    problems = []
    for text in addresses:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            problems.append(f"invalid link-local IP address: {text}")
            continue
        if address.version == 6 and network.ipv6 is None:
            problems.append(f"invalid link-local IP address: {text}: network {network.name} has no IPv6")
        elif not address.is_link_local:
            problems.append(f"invalid link-local IP address: {text}")
    return problems


def _check_options(options: dict[str, str]) -> None:
    for name, value in options.items():
        if name == _INTERFACE:
            check_interface(name, value)
            if value == "lo":
                raise InvalidParameter(f"{name}: lo is the loopback's name")
        elif name == _SYSCTLS:
            sysctls(value, "eth0")
        elif name in _REAL_OPTIONS:
            raise Unsupported(f"driver option {name} is not offered")
        elif not foreign(name):
            raise InvalidParameter(f"driver option {name!r} is none of an endpoint")


def sysctls(text: str, interface: str) -> tuple[tuple[str, str], ...]:
    """The files below /proc/sys that an endpoint's option names, as `net.ipv4.conf.IFNAME.log_martians=1`.

    Args:
        text: some of those, with commas between.
        interface: what stands for IFNAME.

    Raises:
        InvalidParameter: one is none of an interface's.
    """
    found = []
    for one in text.split(","):
        name, equals, value = one.partition("=")
        if not equals or not _SYSCTL.fullmatch(name):
            raise InvalidParameter(
                f"{_SYSCTLS}: {one!r} must be like net.ipv4.conf.IFNAME.log_martians=1, with IFNAME as it is"
            )
        # Docker's client writes the name in small letters where it stands in `--network`.
        parts = [interface if part.upper() == "IFNAME" else part for part in name.split(".")]
        found.append(("/".join(parts), value))
    return tuple(found)


# --- what it comes to ---


def of(container: Container) -> dict[str, EndpointSettings]:
    """The networks that a container is in, or will be in when it runs."""
    mode = container.host_config.network_mode
    if container.networks or container.networks_chosen or mode.startswith("container:"):
        return container.networks
    return {mode: EndpointSettings()}


def requests(core: Core, container: Container) -> list[Request]:
    """What the network service is to make for a start, the main network first.

    Raises:
        NotFound: a network is not there any more.
    """
    mode = container.host_config.network_mode
    container.networks = dict(of(container))
    names = sorted(container.networks, key=lambda name: name != mode)
    return [request(core, container, name, container.networks[name]) for name in names]


def without_ipv6(container: Container) -> bool:
    """Whether a container's own switches leave it no IPv6."""
    return (container.host_config.sysctls or {}).get(_NO_IPV6, "0").strip() not in ("", "0")


def request(core: Core, container: Container, name: str, settings: EndpointSettings) -> Request:
    """What the network service is to make for one place in a network.

    Raises:
        NotFound: the network is not there any more.
    """
    network = core.networks.get(name)
    if settings.network_id and not network.predefined:
        network = core.networks.get(settings.network_id)  # another one of its name is not the one meant
    if container.host_config.egress and network.driver not in _POLICED:
        raise InvalidParameter(not_at_a_bridge(network))
    mac, options = settings.desired_mac_address, settings.driver_opts or {}
    if name == container.host_config.network_mode:
        mac = mac or container.config.mac_address or ""
    aliases = {}
    if not network.predefined:
        settings.dns_names = dns_names(container, settings)
        for target, alias in map(links.parse, settings.links or ()):
            found = core.find(target)
            aliases[alias] = found.container.name if found is not None else target
    return Request(
        network_id=network.id,
        address=settings.ipam_config.ipv4_address if settings.ipam_config is not None else "",
        address6=settings.ipam_config.ipv6_address if settings.ipam_config is not None else "",
        mac=mac,
        interface=options.get(_INTERFACE, ""),
        gw_priority=settings.gw_priority,
        link_local=tuple((settings.ipam_config.link_local_ips if settings.ipam_config else None) or ()),
        sysctls=sysctls(chosen, "IFNAME") if (chosen := options.get(_SYSCTLS)) else (),
        no_ipv6=without_ipv6(container),
        names=tuple(settings.dns_names or ()),
        links=aliases,
        egress=parse(container.host_config.egress) if container.host_config.egress else None,
    )


def check_drivers(core: Core, container: Container) -> None:
    """Check that a container may have an egress policy in the networks that it is in.

    Raises:
        InvalidParameter: in one it would not hold.
    """
    for name, settings in of(container).items():
        network = core.networks.get(settings.network_id or name)
        if network.driver not in _POLICED:
            raise InvalidParameter(not_at_a_bridge(network))


def dns_names(container: Container, settings: EndpointSettings) -> list[str]:
    """What its peers in a user-defined network may call a container."""
    names = [container.name, *(settings.aliases or ()), container.id[:12], container.config.hostname]
    return list(dict.fromkeys(name for name in names if name))


def note(container: Container, sandbox: Sandbox) -> None:
    """Note what a running container has in its networks, and where its ports are published."""
    container.sandbox_key = sandbox.path
    ports.record(container, sandbox.published)
    for name, endpoint in sandbox.endpoints.items():
        settings = container.networks.setdefault(name, EndpointSettings())
        settings.network_id = endpoint.network_id
        settings.endpoint_id = endpoint.endpoint_id
        settings.gateway = endpoint.gateway
        settings.ip_address = endpoint.ip_address
        settings.ip_prefix_len = endpoint.prefix_len
        settings.mac_address = endpoint.mac_address
        settings.global_ipv6_address = endpoint.ipv6_address
        settings.global_ipv6_prefix_len = endpoint.ipv6_prefix_len
        settings.ipv6_gateway = endpoint.ipv6_gateway


def clear(settings: EndpointSettings) -> None:
    """Forget what only a running container has in a network."""
    settings.endpoint_id = settings.gateway = settings.ip_address = settings.mac_address = ""
    settings.global_ipv6_address = settings.ipv6_gateway = ""
    settings.ip_prefix_len = settings.global_ipv6_prefix_len = 0


def clear_all(container: Container) -> None:
    """Forget what only a running container has."""
    container.sandbox_key, container.ports = "", {}
    for settings in container.networks.values():
        clear(settings)
