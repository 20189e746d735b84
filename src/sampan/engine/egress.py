"""Egress policies of containers and networks: checked at create, shown, changed while they run."""

from __future__ import annotations

from sampan.dataclasses import dataclass
from sampan.engine import endpoints, resolution
from sampan.engine.core import Core, Live, in_thread
from sampan.engine.model import ContainerConfig, HostConfig
from sampan.errors import Conflict, InvalidParameter
from sampan.network import Network
from sampan.network.egress import Opening, parse
from sampan.network.settings import EGRESS as LABEL

NONE = "none"


@dataclass(frozen=True, slots=True)
class Applied:
    """What holds for a container in one network.

    Attributes:
        policy: "" for none.
        own: it is the container's own, and not the network's.
    """

    network: str
    policy: str
    own: bool


def take_label(config: ContainerConfig, host_config: HostConfig) -> None:
    """Take the policy from a label, for clients that have no other way to say it; never from an image's.

    Raises:
        InvalidParameter: label and member contradict each other.
    """
    label = config.labels.get(LABEL)
    if label is None:
        return
    if host_config.egress and host_config.egress != label:
        raise InvalidParameter(f"HostConfig.Egress is {host_config.egress!r}, and label {LABEL} is {label!r}")
    host_config.egress = label


def check(host_config: HostConfig) -> None:
    """Check a new container's policy, and write it as `parse` does.

    Raises:
        InvalidParameter: it is none, or the network mode leaves no room for one.
    """
    host_config.egress = _text(host_config.egress or NONE) or None
    if host_config.egress is not None:
        _check_mode(host_config.network_mode)


def _text(given: str) -> str:
    return "" if given.strip() == NONE else parse(given).text


def _check_mode(mode: str) -> None:
    if mode == "host":
        raise InvalidParameter(
            "conflicting options: an egress policy and --network host, where a container sends as the host"
        )
    if mode.startswith("container:"):
        raise InvalidParameter(
            "conflicting options: an egress policy and the network mode; give the policy to the container "
            "whose network it is"
        )


async def set_container(core: Core, live: Live, text: str) -> None:
    """Give a container another policy, at once where it runs.

    Args:
        text: the policy, or "none" for that of its networks.

    Raises:
        InvalidParameter: it is none, or the network mode leaves no room for one.
        Conflict: the container is being removed.
        Unavailable: it cannot be enforced; the policy is the old one.
    """
    policy = _text(text)
    async with live.lock:
        if live.removing:
            raise Conflict(f"container {live.id} is marked for removal: its policy cannot be changed")
        container = live.container
        if policy:
            _check_mode(container.host_config.network_mode)
            endpoints.check_drivers(core, container)
        before, container.host_config.egress = container.host_config.egress, policy or None
        core.store.save(container)
        try:
            if live.process is not None and container.networks:
                await in_thread(lambda: core.networks.set_container_policy(container.id, policy))
                await in_thread(lambda: resolution.follow(core, container))
        except BaseException:
            container.host_config.egress = before
            core.store.save(container)
            raise
    core.publish(live, "update")


async def set_network(core: Core, network: Network, text: str) -> None:
    """Give a network of the user's another policy; at once for those in it that have none of their own.

    Raises:
        Forbidden: the network is predefined.
        InvalidParameter: it is no policy.
        Unavailable: it cannot be enforced.
    """
    policy = _text(text)
    await in_thread(lambda: core.networks.set_policy(network, policy))
    for live in list(core.containers.values()):
        if network.name in endpoints.of(live.container):
            async with live.lock:  # one that starts has asked the resolver for what was so before
                if live.process is not None:
                    container = live.container
                    await in_thread(lambda container=container: resolution.follow(core, container))  # type: ignore[misc]


def applied(core: Core, live: Live) -> list[Applied]:
    """What holds for a container at present, by network; nothing for one that does not run."""
    lanes = {lane.network_id: lane for lane in core.networks.guard.lanes(live.id)}
    found = []
    for name, settings in live.container.networks.items():
        if settings.ip_address or settings.global_ipv6_address:
            lane = lanes.get(settings.network_id)
            found.append(Applied(name, lane.policy.text if lane else "", lane.own if lane else False))
    return found


def openings(core: Core, live: Live) -> list[tuple[Opening, float, list[str]]]:
    """What a container may reach at present by name: addresses, until when (monotonic), and the names."""
    found = core.networks.guard.openings(live.id)
    return [(opening, held.until, sorted(held.names)) for opening, held in found]
