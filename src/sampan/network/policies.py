"""Egress policies as containers and networks have them: a container's own, or that of each network it is in.

`sampan.network.egress` knows only endpoints with policies; which those are is settled here.
"""

from __future__ import annotations

import hashlib
import ipaddress
import threading
from collections.abc import Sequence
from dataclasses import replace

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter, Unavailable
from sampan.network.egress import Guard, Lane, Policy
from sampan.network.ground import Ground
from sampan.network.grounds import Grounds
from sampan.network.model import Network
from sampan.network.store import EndpointRecord, NetworkStore


@dataclass(frozen=True, slots=True)
class Gated:
    """What the resolver is to know of a container's policies.

    Attributes:
        names: whose addresses it may reach only since it was answered with them, as patterns.
        restricted: it has no way out but by a policy.
        ipv6: it has an IPv6 address.
    """

    names: tuple[str, ...]
    restricted: bool
    ipv6: bool


class Policies:
    """Who has which policy. Thread-safe.

    Args:
        guard: keeps the kernel to them.
    """

    def __init__(self, guard: Guard, store: NetworkStore, grounds: Grounds) -> None:
        self._guard = guard
        self._store = store
        self._grounds = grounds
        self._lock = threading.Lock()  # a new endpoint has the policy that its network has in the end

    def admit(self, record: EndpointRecord, one: Ground, own: Policy | None) -> None:
        """Let a new endpoint have its policy, if it has one.

        Args:
            own: the container's own.

        Raises:
            Unavailable: it cannot be enforced.
        """
        if one.lan is not None and own is not None:
            raise InvalidParameter(not_at_a_bridge(one.network))
        if own is None and one.settings.egress is None:
            return  # `set_network` finds the endpoint, should that change in this moment
        with self._lock:
            policy = own or one.settings.egress
            if policy is not None:
                self._admit(record, one, policy, own=own is not None, fresh=True)

    def _admit(self, record: EndpointRecord, one: Ground, policy: Policy, *, own: bool, fresh: bool) -> None:
        if one.network.driver != "bridge":
            raise Unavailable(not_at_a_bridge(one.network))
        self._guard.admit(
            Lane(
                endpoint_id=record.id,
                container_id=record.container_id,
                network_id=record.network_id,
                places=tuple(
                    ipaddress.ip_interface(f"{address}/{part.subnet.prefixlen}")
                    for address in record.addresses
                    if (part := one.part_of(address)) is not None
                ),
                mac=record.mac or mac_of(record.addresses[0]),
                veth=record.veth,
                policy=policy,
                own=own,
            ),
            fresh=fresh,
        )

    def dismiss(self, endpoint_id: str) -> None:
        """An endpoint has no policy any more, or is gone."""
        self._guard.dismiss(endpoint_id)

    def set_network(self, network: Network, policy: Policy | None) -> None:
        """A network has another policy, or none any more.

        Raises:
            Unavailable: it cannot be enforced.
        """
        one = self._grounds.find(network.id)
        if one is None:
            return
        with self._lock:
            one.network, one.settings = network, replace(one.settings, egress=policy)
            for record in self._store.members(network.id):
                lane = self._guard.lane(record.id)
                if lane is None or not lane.own:
                    self._set(record, one, policy, own=False)

    def set_container(self, records: Sequence[EndpointRecord], policy: Policy | None) -> None:
        """A running container has another policy of its own, or none any more.

        Raises:
            Unavailable: it cannot be enforced.
        """
        with self._lock:
            for record in records:
                one = self._grounds.find(record.network_id)
                if one is not None and one.lan is not None and policy is not None:
                    raise InvalidParameter(not_at_a_bridge(one.network))
            for record in records:
                one = self._grounds.find(record.network_id)
                if one is not None:
                    self._set(record, one, policy or one.settings.egress, own=policy is not None)

    def _set(self, record: EndpointRecord, one: Ground, policy: Policy | None, *, own: bool) -> None:
        if policy is None:
            self._guard.dismiss(record.id)
        elif self._guard.lane(record.id) is None:
            self._admit(record, one, policy, own=own, fresh=False)
        else:
            self._guard.change(record.id, policy, own=own)

    def gated(self, container_id: str, records: Sequence[EndpointRecord]) -> Gated:
        """What the resolver is to know of a container that has a policy.

        Args:
            records: its endpoints.
        """
        lanes = self._guard.lanes(container_id)
        policed = {lane.endpoint_id for lane in lanes}
        names = dict.fromkeys(name.pattern for lane in lanes for name in lane.policy.names)
        restricted = all(one.id in policed or self._inside(one) for one in records)
        return Gated(tuple(names), restricted, any(one.address6 for one in records))

    def _inside(self, record: EndpointRecord) -> bool:
        one = self._grounds.find(record.network_id)
        return one is not None and one.network.internal


def mac_of(text: str) -> str:
    """The MAC address of an endpoint that was given none, from its address, which nobody else has."""
    address = ipaddress.ip_address(text)
    if address.version == 4:
        return "02:42:" + address.packed.hex(":")
    return "02:" + hashlib.blake2s(address.packed, digest_size=5).digest().hex(":")


def not_at_a_bridge(network: Network) -> str:
    """Why a policy cannot hold in a network of another driver."""
    return (
        f"network {network.name} is of driver {network.driver}: an egress policy is kept at the ports of a "
        "bridge, and holds in networks of driver bridge alone"
    )
