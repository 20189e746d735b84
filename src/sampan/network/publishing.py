"""Published ports: taken in the port table, written down, and put into the firewall's maps.

A container's ports go to its address in one network, that of its default route, as with Docker.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sampan.errors import Unavailable
from sampan.linux import nftmaps
from sampan.network import flows
from sampan.network.firewall import Firewall
from sampan.network.ports import ANY, Binding, PortTable, Published
from sampan.network.store import NetworkStore


class Publisher:
    """Who publishes what. Thread-safe.

    Args:
        store: where it is written down.
        firewall: where it is put.
    """

    def __init__(self, store: NetworkStore, firewall: Firewall) -> None:
        self._store = store
        self._firewall = firewall
        self._ports = PortTable()

    def recall(self, keep: set[str]) -> None:
        """Know again what an earlier daemon has published for containers that live; forget the others'."""
        self._ports.close()
        self._ports = PortTable()
        for container_id, (_, published) in self._store.published().items():
            if container_id in keep:
                self._ports.restore(container_id, published)
            else:
                self._store.forget_published(container_id)

    def close(self) -> None:
        """Hold no port any more; what is published stays so."""
        self._ports.close()

    def publish(
        self, container_id: str, address: str, bindings: Sequence[Binding], host_ip: str = ANY
    ) -> tuple[Published, ...]:
        """Publish ports, all or none.

        Args:
            address: the container's.
            host_ip: where those are published that name no address of the host's.

        Raises:
            InvalidParameter, PortTaken: a binding is wrong, a port in use.
            Unavailable: there is no firewall table.
        """
        if not self._firewall.in_place:
            raise Unavailable(
                "ports cannot be published: that takes our nftables table, which is switched off "
                "(--iptables=false) or which this kernel does not take; see the warnings of `info`"
            )
        if host_ip != ANY:
            bindings = [one if one.host_ip else replace(one, host_ip=host_ip) for one in bindings]
        published = tuple(self._ports.claim(container_id, bindings))
        try:
            self._store.keep_published(container_id, address, published)
            self._firewall.publish(_redirections(address, published))
        except BaseException:
            self._ports.free(self._ports.disown(container_id))
            self._store.forget_published(container_id)
            raise
        if any(one.protocol == "udp" for one in published):
            flows.lead_udp_anew(address, published)
        return published

    def move(self, container_id: str, address: str) -> None:
        """Let a container's published ports go to another of its addresses."""
        published = self._ports.of(container_id)
        before = self._store.published_address(container_id)
        if not published or before in ("", address):
            return
        self._store.keep_published(container_id, address, published)
        self._firewall.withdraw(_redirections(before, published))
        self._firewall.publish(_redirections(address, published))

    def withdraw(self, container_id: str) -> None:
        """Publish nothing of a container any more, before its address can be another's."""
        published = self._ports.disown(container_id)
        if not published:  # then nothing is written down either
            return
        try:
            if address := self._store.published_address(container_id):
                self._firewall.withdraw(_redirections(address, published))
            self._store.forget_published(container_id)
        finally:  # not before: the next one's elements would collide with these, or be taken out as these
            self._ports.free(published)

    def of(self, container_id: str) -> tuple[Published, ...]:
        """What a container publishes."""
        return tuple(self._ports.of(container_id))

    def redirections(self) -> list[nftmaps.Redirection]:
        """All that is published, as the firewall's elements."""
        addresses = {container_id: address for container_id, (address, _) in self._store.published().items()}
        return [
            redirection
            for container_id, published in self._ports.all().items()
            if container_id in addresses
            for redirection in _redirections(addresses[container_id], published)
        ]


def _redirections(address: str, published: Iterable[Published]) -> list[nftmaps.Redirection]:
    target = ipaddress.IPv4Address(address)
    return [
        nftmaps.Redirection(
            one.protocol,
            None if one.host_ip == ANY else ipaddress.IPv4Address(one.host_ip),
            one.host_port,
            target,
            one.port,
        )
        for one in published
    ]
