"""Which ports a container publishes: what the user asked for, checked at create and completed at start."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sampan.engine.core import Core
from sampan.engine.model import Container, ContainerConfig, HostConfig, PortBinding
from sampan.errors import InvalidParameter
from sampan.network import Binding, Published
from sampan.network.ports import MODES, PROTOCOLS

LABEL = "sampan.publish-mode"
DISCARDED = "Published ports are discarded when using host network mode"


def check(config: ContainerConfig, host_config: HostConfig) -> list[str]:
    """Check what is to be published and exposed; warnings for the user.

    Raises:
        InvalidParameter: a port, protocol, address or mode is wrong.
    """
    mode = config.labels.get(LABEL, "nat")
    if mode not in MODES:
        raise InvalidParameter(f"label {LABEL}: {mode!r} is none of {', '.join(MODES)}")
    for text in config.exposed_ports or ():
        split(text)
    for binding in _bindings(config, host_config):
        binding.choices()
        binding.address()
    wanted = host_config.publish_all_ports or any((host_config.port_bindings or {}).values())
    return [DISCARDED] if wanted and host_config.network_mode == "host" else []


def bindings(core: Core, container: Container) -> list[Binding]:
    """What is to be published when the container starts."""
    mode = container.config.labels.get(LABEL, core.networks.options.publish_mode)
    found = _bindings(container.config, container.host_config)
    return [replace(one, proxied=mode == "proxy") for one in found]


def record(container: Container, published: Iterable[Published]) -> None:
    """Note where the container's ports are published now."""
    container.ports = {}
    for one in published:
        found = container.ports.setdefault(f"{one.port}/{one.protocol}", [])
        found.append(PortBinding(one.host_ip, str(one.host_port) if not one.routed else ""))


def exposed(config: ContainerConfig, host_config: HostConfig) -> set[tuple[int, str]]:
    """The ports, with their protocols, that a container says it listens at."""
    return set(map(split, [*(config.exposed_ports or ()), *(host_config.port_bindings or ())]))


def _bindings(config: ContainerConfig, host_config: HostConfig) -> Iterable[Binding]:
    bound = host_config.port_bindings or {}
    for text, places in bound.items():
        port, protocol = split(text)
        for place in places or ():
            yield Binding(protocol, port, place.host_ip, place.host_port)
    if host_config.publish_all_ports:
        taken = {split(text) for text, places in bound.items() if places}
        for text in config.exposed_ports or ():
            port, protocol = split(text)
            if (port, protocol) not in taken:
                yield Binding(protocol, port)


def split(text: str) -> tuple[int, str]:
    """Port and protocol of `80/tcp`, or of `80`, which is tcp's.

    Raises:
        InvalidParameter: it is none.
    """
    number, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if not number.isdecimal() or not 0 < int(number) <= 65535:
        raise InvalidParameter(f'invalid port specification: "{text}"')
    if protocol not in PROTOCOLS:
        raise InvalidParameter(f"invalid protocol in port specification {text!r}: tcp, udp or sctp")
    return int(number), protocol
