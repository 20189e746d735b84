"""Published ports: taken in the port table, written down, put into the firewall's maps or given to a proxy.

A container's ports go to its address in one network, that of its default route, as with Docker.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sampan.errors import Unavailable
from sampan.linux import nftmaps
from sampan.linux.nftables import absence_allowed
from sampan.network import flows
from sampan.network.firewall import Firewall
from sampan.network.ports import ANY, ANY6, Addresses, Binding, PortTable, Published
from sampan.network.proxying import Proxies
from sampan.network.store import NetworkStore

log = logging.getLogger("sampan.network")


class Publisher:
    """Who publishes what. Thread-safe.

    Args:
        store: where it is written down.
        firewall: where it is put.
        directory: where proxies are found again.
        trusted: by which interfaces of the host's ports at a container's address are reached as they are.
    """

    def __init__(
        self,
        store: NetworkStore,
        firewall: Firewall,
        directory: Path,
        trusted: Callable[[str], tuple[str, ...]],
    ) -> None:
        self._store = store
        self._firewall = firewall
        self._trusted = trusted
        self._ports = PortTable()
        self._proxies = Proxies(directory, lambda container_id: self._ports.sockets(container_id))

    def recall(self, keep: set[str]) -> None:
        """Know again what an earlier daemon has published for containers that live; forget the others'."""
        self._ports.close()
        self._ports = PortTable()
        proxied = {}
        for container_id, (addresses, published) in self._store.published().items():
            if container_id not in keep:
                self._store.forget_published(container_id)
                continue
            self._ports.restore(container_id, published)
            if any(one.proxied for one in published):
                proxied[container_id] = addresses
        alive = self._proxies.recall(proxied)
        for container_id in proxied.keys() - alive:
            try:
                self._proxies.open(container_id, proxied[container_id], self._ports.sockets(container_id))
            except OSError as error:
                log.error("ports of container %s are not published: %s", container_id[:12], error)

    def close(self) -> None:
        """Hold no port any more; what is published stays so."""
        self._proxies.leave()
        self._ports.close()

    def proxies(self, container_id: str) -> bool:
        """Whether any of a container's ports is published by proxy."""
        return any(one.proxied for one in self._ports.of(container_id))

    def lives(self, container_id: str, pidfd: int) -> None:
        """A container has a process: without a daemon, what is published by proxy ends with that.

        Args:
            pidfd: of its process; it is closed in the end.
        """
        self._proxies.lives(container_id, pidfd)

    def publish(
        self,
        container_id: str,
        addresses: Addresses,
        bindings: Sequence[Binding],
        host_ip: str,
        modes: Mapping[int, str],
        repair: Callable[[], None],
    ) -> tuple[Published, ...]:
        """Publish ports, all or none.

        Args:
            addresses: the container's.
            host_ip: where those are published that name no address of the host's.
            modes: the gateway modes of the networks that the addresses are of, by IP version.
            repair: puts back a table that somebody has taken away since it was last looked at.

        Raises:
            InvalidParameter, PortTaken: a binding is wrong, a port in use.
            Unavailable: there is no firewall table, or nothing to forward with.
        """
        if host_ip != ANY:
            bindings = [one if one.host_ip else replace(one, host_ip=host_ip) for one in bindings]
        families = [6 if ":" in address else 4 for address in addresses]
        published = tuple(self._ports.claim(container_id, bindings, families, modes))
        try:
            if not self._firewall.in_place and not all(one.proxied for one in published):
                raise Unavailable(
                    "ports cannot be published: that takes our nftables table, which is switched off "
                    "(--iptables=false) or which this kernel does not take; see the warnings of `info`, or "
                    "publish them by proxy (--publish-mode proxy)"
                )
            self._store.keep_published(container_id, addresses, published)
            self._lead(container_id, addresses, published, repair)
        except BaseException as error:
            self._ports.free(self._ports.disown(container_id))
            self._store.forget_published(container_id)
            if isinstance(error, OSError) and any(one.proxied for one in published):
                raise Unavailable(f"ports cannot be published by proxy: {error}") from error
            raise
        if any(one.protocol == "udp" and not one.proxied and not one.routed for one in published):
            for address in addresses:
                flows.lead_udp_anew(address, published)
        return published

    def _lead(
        self,
        container_id: str,
        addresses: Addresses,
        published: Sequence[Published],
        repair: Callable[[], None] | None = None,
    ) -> None:
        if redirections := self._entries(addresses, published):
            try:
                self._firewall.publish(redirections)
            except OSError as error:
                if repair is None or error.errno != errno.ENOENT:
                    raise
                repair()  # with all that is written down by now, if it was not another's repair before that
                with absence_allowed():  # taken away once more: it is put back with all again
                    self._firewall.publish(redirections)
        if any(one.proxied for one in published):
            try:
                self._proxies.open(container_id, addresses, self._ports.sockets(container_id))
            except BaseException:
                self._firewall.withdraw(redirections)
                raise

    def move(self, container_id: str, addresses: Addresses) -> None:
        """Let a container's published ports go to others of its addresses; those of no family it has rest."""
        published = self._ports.of(container_id)
        before = self._store.published_addresses(container_id)
        if not published or before in ((), addresses):
            return
        self._store.keep_published(container_id, addresses, published)
        if redirections := self._entries(before, published):
            self._firewall.withdraw(redirections)
        self._lead(container_id, addresses, published)

    def withdraw(self, container_id: str) -> None:
        """Publish nothing of a container any more, before its address can be another's."""
        published = self._ports.disown(container_id)
        if not published:  # then nothing is written down either
            return
        try:
            self._proxies.close(container_id)
            if addresses := self._store.published_addresses(container_id):
                self._firewall.withdraw(self._entries(addresses, published))
            self._store.forget_published(container_id)
        finally:  # not before: the next one's elements would collide with these, or be taken out as these
            self._ports.free(published)

    def of(self, container_id: str) -> tuple[Published, ...]:
        """What a container publishes."""
        return tuple(self._ports.of(container_id))

    def redirections(self) -> list[nftmaps.Entry]:
        """All that is published, as the firewall's elements."""
        addresses = {container_id: theirs for container_id, (theirs, _) in self._store.published().items()}
        return [
            redirection
            for container_id, published in self._ports.all().items()
            if container_id in addresses
            for redirection in self._entries(addresses[container_id], published)
        ]

    def _entries(self, addresses: Addresses, published: Iterable[Published]) -> list[nftmaps.Entry]:
        trusted = {address: found for address in addresses if (found := self._trusted(address))}
        return _redirections(addresses, published, trusted)


def _redirections(
    addresses: Addresses, published: Iterable[Published], trusted: Mapping[str, Sequence[str]]
) -> list[nftmaps.Entry]:
    targets = {target.version: target for target in map(ipaddress.ip_address, addresses)}
    found: list[nftmaps.Entry] = []
    for one in published:
        if not one.proxied and (target := targets.get(6 if ":" in one.host_ip else 4)) is not None:
            if one.routed:
                found.append(nftmaps.Admission(one.protocol, target, one.port))
                continue
            place = None if one.host_ip in (ANY, ANY6) else ipaddress.ip_address(one.host_ip)
            found.append(nftmaps.Redirection(one.protocol, place, one.host_port, target, one.port))
            for interface in trusted.get(str(target), ()):
                found.append(nftmaps.Admission(one.protocol, target, one.port, interface))
    return list(dict.fromkeys(found))  # a port may be asked for twice, at several of the host's
