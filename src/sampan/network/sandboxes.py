"""Containers' network namespaces and their endpoints in bridge networks: made, changed live, removed.

What an endpoint needs does not grow with the number of containers or networks: an address from a pool in
memory, one row, one veth pair, one element of a firewall map for a published port.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from sampan.dataclasses import dataclass
from sampan.errors import Conflict, Forbidden, InvalidParameter, NotFound, Unavailable
from sampan.linux.netlink import Netlink
from sampan.network import bridge, lans, namespace
from sampan.network.ground import Ground, Part
from sampan.network.grounds import Grounds
from sampan.network.leaving import Leaving, delete_veth
from sampan.network.model import Endpoint, Request, Sandbox
from sampan.network.names import Member, Names
from sampan.network.policies import Policies, mac_of
from sampan.network.pool import IPAddress
from sampan.network.ports import Addresses, Binding
from sampan.network.publishing import Publisher
from sampan.network.store import EndpointRecord, NetworkStore

_LINK_LOCAL_BITS = 16
_PATIENCE_S = 5.0  # with the kernel, which lets a veth go some 20 ms after its namespace
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


class Sandboxes:
    """The namespaces of one daemon's containers. Thread-safe.

    Args:
        netns_dir: directory of the namespace files, one a container.
        names: is told of members of user-defined networks, if there is somebody to tell.
    """

    def __init__(
        self,
        netns_dir: Path,
        store: NetworkStore,
        grounds: Grounds,
        publisher: Publisher,
        policies: Policies,
        names: Names | None,
    ) -> None:
        self.leaving = Leaving(store, self._release)
        self._netns_dir = netns_dir
        self._store = store
        self._grounds = grounds
        self._publisher = publisher
        self._policies = policies
        self._names = names

    def path(self, container_id: str) -> Path:
        """The file of a container's namespace, whether it is there or not."""
        return self._netns_dir / container_id

    # --- all of a container's ---

    def create(
        self, container_id: str, requests: Sequence[Request], bindings: Sequence[Binding] = ()
    ) -> Sandbox:
        """Make a namespace with an interface in each network; with the loopback alone for none.

        Raises:
            SampanError, OSError: as `NetworkService.create_sandbox`; nothing is left behind.
        """
        path = self.path(container_id)
        if path.exists():
            self.remove(container_id)
        if not requests:
            namespace.create(path)
            return Sandbox(str(path), {})
        grounds = [self._grounds.get(request.network_id) for request in requests]
        self._grounds.put_back(grounds)
        with ExitStack() as undo:
            records: list[EndpointRecord] = []
            for request, one in zip(requests, grounds, strict=True):
                taken = [record.interface for record in records]
                records.append(self._allocate(container_id, request, one, taken, undo))
            self._store.add_endpoints(records, self._grounds.default.id)
            undo.callback(self._store.delete_endpoints, [record.id for record in records])
            for request, record, one in zip(requests, records, grounds, strict=True):
                self._police(request, record, one, undo)
                undo.callback(delete_veth, record.veth)
            ports = [
                _port(record, request, one, bool(bindings))
                for record, request, one in zip(records, requests, grounds, strict=True)
            ]
            ways = self._ways(records)
            with _lack_named():
                namespace.create(path, ports, self._gateways(ways))
            undo.callback(namespace.remove, path)
            if bindings and ways.addresses:
                self._publish(container_id, ways, bindings)
                undo.callback(self._publisher.withdraw, container_id)
            for request, record, one in zip(requests, records, grounds, strict=True):
                self._tell(request, record, one, undo)
            undo.pop_all()
        return self._sandbox(container_id, records)

    def recall(self, container_id: str, requests: Sequence[Request]) -> Sandbox | None:
        """The sandbox that an earlier daemon has made for a running container, if it is in any network.

        Args:
            requests: what is to be told of its names.
        """
        records = [
            record
            for record in self._store.endpoints(container_id)
            if self._grounds.find(record.network_id) is not None
        ]
        if not records:
            return None
        self.announce(container_id, requests)
        return self._sandbox(container_id, records)

    def announce(self, container_id: str, requests: Sequence[Request]) -> None:
        """Tell what the container's peers may call it now."""
        if self._names is None:
            return
        wanted = {request.network_id: request for request in requests}
        for record in self.present(container_id):
            request, one = wanted.get(record.network_id), self._grounds.find(record.network_id)
            if request is not None and one is not None:
                self._tell(request, record, one, None)

    def remove(self, container_id: str) -> None:
        """Let a container's namespace go; idempotent and quick, the links follow."""
        self._publisher.withdraw(container_id)
        records = self._store.endpoints(container_id)
        for record in records:
            self._forget_names(record)
            if not record.veth:  # else its MAC address would be in use for a moment yet
                with suppress(OSError):
                    namespace.unplug(self.path(container_id), record.interface)
        if self._names is not None:
            self._names.released(container_id)
        namespace.remove(self.path(container_id))
        self.leaving.add(container_id, records)

    def expect_removal(self, container_id: str) -> None:
        """A container has ended; `remove` follows in a moment."""
        self.leaving.expect(container_id)

    # --- one of a running container's ---

    def connect(self, container_id: str, request: Request, bindings: Sequence[Binding] = ()) -> Sandbox:
        """Give a running container an interface in one more network.

        Raises:
            SampanError, OSError: as `NetworkService.connect`; nothing is left behind.
        """
        path = self.path(container_id)
        one = self._grounds.get(request.network_id)
        present = self.present(container_id)
        self._grounds.put_back([one])
        with ExitStack() as undo:
            taken = [record.interface for record in present]
            record = self._allocate(container_id, request, one, taken, undo)
            self._store.add_endpoints([record], self._grounds.default.id)
            undo.callback(self._store.delete_endpoints, [record.id])
            self._police(request, record, one, undo)
            undo.callback(self._delete_link, record)
            with _lack_named():
                namespace.plug(path, _port(record, request, one, bool(bindings)))
            self._route(container_id, present, [*present, record], bindings, undo)
            self._tell(request, record, one, undo)
            undo.pop_all()
        return self._sandbox(container_id, [*present, record])

    def disconnect(self, container_id: str, network_id: str, bindings: Sequence[Binding] = ()) -> Sandbox:
        """Take a running container's interface in a network away.

        Raises:
            NotFound: it has none there.
            OSError: the kernel's refusal.
        """
        present = self.present(container_id)
        record = next((one for one in present if one.network_id == network_id), None)
        if record is None:
            raise NotFound(f"container {container_id} is not connected to the network {network_id}")
        rest = [one for one in present if one is not record]
        with ExitStack() as undo:
            self._route(container_id, present, rest, bindings, undo)
            undo.pop_all()
        self._forget_names(record)
        self._delete_link(record)
        self.leaving.add(container_id, [record])  # its address is another's when that is through
        return self._sandbox(container_id, rest)

    def _route(
        self,
        container_id: str,
        before: Sequence[EndpointRecord],
        after: Sequence[EndpointRecord],
        bindings: Sequence[Binding],
        undo: ExitStack,
    ) -> None:
        """Let default route and published ports follow a change of the endpoints."""
        old, new = self._ways(before), self._ways(after)
        if old == new:
            return
        path = self.path(container_id)
        changed = [
            version for version, was, now in ((4, old.ipv4, new.ipv4), (6, old.ipv6, new.ipv6)) if was != now
        ]
        namespace.set_gateways(path, self._gateways(new), changed)
        undo.callback(namespace.set_gateways, path, self._gateways(old), changed)
        published = self._publisher.of(container_id)
        if published and self._manner(old) == self._manner(new):
            self._publisher.move(container_id, new.addresses)
            undo.callback(self._publisher.move, container_id, old.addresses)
            return
        if published:
            self._publisher.withdraw(container_id)
            undo.callback(self._publish, container_id, old, bindings)
        if bindings and new.addresses:
            self._publish(container_id, new, bindings)
            undo.callback(self._publisher.withdraw, container_id)

    def _manner(self, ways: _Ways) -> list[tuple[int, str, str]]:
        """How ports are published there: by IP version, gateway mode and the address of the host's."""
        return [
            (version, one.settings.gateway_mode(version), one.settings.host_binding)
            for version, one in self._by_version(ways)
            if one.lan is None
        ]

    # --- the pieces ---

    def present(self, container_id: str) -> list[EndpointRecord]:
        """A container's endpoints, without those of its last run whose links have still to go."""
        records = self._store.endpoints(container_id)
        return [record for record in records if not self.leaving.left(record)]

    def _allocate(
        self, container_id: str, request: Request, one: Ground, taken: Iterable[str], undo: ExitStack
    ) -> EndpointRecord:
        mac = check_mac(request.mac) if request.mac else ""
        if one.lan is not None and one.lan.inherits:
            if mac:
                raise InvalidParameter(
                    f"a MAC address cannot be chosen in {one.lan.kind} network {one.network.name}: all "
                    f"have that of {one.lan.parent}"
                )
            with Netlink() as netlink:
                mac = lans.parent_mac(netlink, one.lan)
        interface = request.interface or _next_name(one.settings.prefix, taken)
        if interface in taken:
            raise Conflict(f"interface {interface} exists in the container already; choose another name")
        chosen = {4: "", 6: ""}
        for version, asked in ((4, request.address), (6, request.address6)):
            if one.parts_of(version) and not (version == 6 and request.no_ipv6):
                part, address = self._address_for(asked, one, version)
                undo.callback(part.pool.release, address)
                chosen[version] = str(address)
        if request.no_ipv6 and one.parts and not chosen[4]:
            raise InvalidParameter(
                f"network {one.network.name} has IPv6 alone, which the container switches off "
                "(--sysctl net.ipv6.conf.all.disable_ipv6=1)"
            )
        return EndpointRecord(
            id=secrets.token_hex(32),
            container_id=container_id,
            network_id=one.network.id,
            address=chosen[4],
            mac=mac or mac_of(chosen[4] or chosen[6]),
            veth="" if one.lan is not None else "veth" + secrets.token_hex(4)[:7],
            interface=interface,
            gw_priority=request.gw_priority,
            address6=chosen[6],
        )

    def _address_for(self, asked: str, one: Ground, version: int) -> tuple[Part, IPAddress]:
        """The address that is asked for, or any, and its subnet; one that is about to be free is waited for.

        Raises:
            Forbidden: it is in use; in Docker's words.
            Unavailable: none is free.
        """

        parts = one.parts_of(version)

        def take() -> tuple[Part, IPAddress]:
            if asked:
                wanted, part = ipaddress.ip_address(asked), one.part_of(asked) or parts[0]
                part.pool.claim(wanted, move_on=False)
                return part, wanted
            for part in parts[:-1]:
                with suppress(Unavailable):
                    return part, part.pool.allocate()
            return parts[-1], parts[-1].pool.allocate()

        try:
            return take()
        except (Conflict, Unavailable):
            self.leaving.wait(lambda: not self.leaving.ending(one.network.id, asked), _PATIENCE_S)
        try:
            return take()
        except Conflict:
            raise Forbidden("Address already in use") from None

    def _ways(self, records: Sequence[EndpointRecord]) -> _Ways:
        ipv4 = self._gateway(record for record in records if record.address)
        ipv6 = self._gateway(record for record in records if record.address6)
        addresses = (
            ipv4.address if ipv4 is not None and ipv4.veth else "",
            ipv6.address6 if ipv6 is not None and ipv6.veth else "",
        )
        return _Ways(ipv4, ipv6, tuple(filter(None, addresses)))

    def _gateway(self, records: Iterable[EndpointRecord]) -> EndpointRecord | None:
        """Whose network a default route goes by: the highest priority, then the first name."""
        best: tuple[tuple[int, str], EndpointRecord] | None = None
        for record in records:
            one = self._grounds.find(record.network_id)
            if one is None or one.network.internal:
                continue
            key = (-record.gw_priority, one.network.name)
            if best is None or key < best[0]:
                best = key, record
        return best[1] if best else None

    def _gateways(self, ways: _Ways) -> list[namespace.Gateway]:
        """The bridges' addresses that the default routes go to, or the interfaces that they go by."""
        found: list[namespace.Gateway] = []
        for version, record, address in (
            (4, ways.ipv4, ways.ipv4.address if ways.ipv4 else ""),
            (6, ways.ipv6, ways.ipv6.address6 if ways.ipv6 else ""),
        ):
            one = self._grounds.get(record.network_id) if record is not None else None
            if record is not None and one is not None and one.lan is not None and one.lan.routed:
                found.append(namespace.Direct(record.interface, version))
                continue
            part = one.part_of(address) if one is not None else None
            found += [part.gateway] if part is not None and part.gateway is not None else []
        return found

    def _publish(self, container_id: str, ways: _Ways, bindings: Sequence[Binding]) -> None:
        grounds = [self._grounds.get(way.network_id) for way in (ways.ipv4, ways.ipv6) if way is not None]
        repair = partial(self._grounds.put_back, grounds)
        modes = {version: one.settings.gateway_mode(version) for version, one in self._by_version(ways)}
        host_ip = grounds[0].settings.host_binding
        self._publisher.publish(container_id, ways.addresses, bindings, host_ip, modes, repair)

    def _by_version(self, ways: _Ways) -> Iterator[tuple[int, Ground]]:
        for version, way in ((4, ways.ipv4), (6, ways.ipv6)):
            if way is not None:
                yield version, self._grounds.get(way.network_id)

    def _police(self, request: Request, record: EndpointRecord, one: Ground, undo: ExitStack) -> None:
        """Have the endpoint's policy in place before it can send, and until it no more can."""
        undo.callback(self._policies.dismiss, record.id)
        self._policies.admit(record, one, request.egress)

    def _delete_link(self, record: EndpointRecord) -> None:
        """Delete an endpoint's interface while its namespace stays."""
        if record.veth:
            delete_veth(record.veth)
        else:
            namespace.unplug(self.path(record.container_id), record.interface)

    def _release(self, record: EndpointRecord) -> None:
        self._policies.dismiss(record.id)
        one = self._grounds.find(record.network_id)
        for address in record.addresses if one is not None else ():
            if one is not None and (part := one.part_of(address)) is not None:
                part.pool.release(ipaddress.ip_address(address))

    def _tell(self, request: Request, record: EndpointRecord, one: Ground, undo: ExitStack | None) -> None:
        if self._names is None or one.network.predefined:
            return
        member = Member(
            container_id=record.container_id,
            sandbox=str(self.path(record.container_id)),
            network_id=one.network.id,
            network=one.network.name,
            names=request.names,
            addresses=record.addresses,
            links=request.links,
            internal=one.network.internal,
        )
        self._names.attached(member)
        if undo is not None:
            undo.callback(self._names.detached, one.network.id, record.container_id)

    def _forget_names(self, record: EndpointRecord) -> None:
        if self._names is not None and record.network_id != self._grounds.default.id:
            self._names.detached(record.network_id, record.container_id)

    def _sandbox(self, container_id: str, records: Iterable[EndpointRecord]) -> Sandbox:
        endpoints = {}
        for record in records:
            one = self._grounds.get(record.network_id)
            part, part6 = _part(record.address, one), _part(record.address6, one)
            endpoints[one.network.name] = Endpoint(
                network_id=record.network_id,
                endpoint_id=record.id,
                mac_address=record.mac or mac_of(record.addresses[0]),
                ip_address=record.address,
                prefix_len=part.subnet.prefixlen if part is not None else 0,
                gateway=_shown_gateway(part, one),
                ipv6_address=record.address6 if part6 is not None else "",
                ipv6_prefix_len=part6.subnet.prefixlen if part6 is not None else 0,
                ipv6_gateway=_shown_gateway(part6, one),
            )
        return Sandbox(str(self.path(container_id)), endpoints, self._publisher.of(container_id))


@dataclass(frozen=True, slots=True)
class _Ways:
    """By which of its endpoints a container's default routes go.

    Attributes:
        addresses: its own there that published ports lead to; none in networks that have no host between.
    """

    ipv4: EndpointRecord | None
    ipv6: EndpointRecord | None
    addresses: Addresses


def _part(address: str, one: Ground) -> Part | None:
    return one.part_of(address) if address else None


def _shown_gateway(part: Part | None, one: Ground) -> str:
    if part is None or part.gateway is None or one.network.internal or (one.lan and one.lan.routed):
        return ""
    return str(part.gateway)


@contextmanager
def _lack_named() -> Iterator[None]:
    """Name the kernel's option where a link cannot be made for want of it."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP and (missing := bridge.missing_support()):
            raise Unavailable(missing[0]) from error
        raise


def check_mac(mac: str) -> str:
    """A MAC address in the kernel's spelling.

    Raises:
        InvalidParameter: when it is none, or not that of a single station.
    """
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or not int(re.sub("[:-]", "", mac), 16):
        raise InvalidParameter(f"invalid MAC address: {mac}")
    return mac.replace("-", ":").lower()


def _next_name(prefix: str, taken: Iterable[str]) -> str:
    number = 0
    while f"{prefix}{number}" in taken:
        number += 1
    return f"{prefix}{number}"


def _port(record: EndpointRecord, request: Request, one: Ground, hairpin: bool) -> namespace.Port:
    part, part6 = _part(record.address, one), _part(record.address6, one)
    return namespace.Port(
        veth=record.veth,
        interface=record.interface,
        bridge_index=one.index,
        mtu=one.settings.mtu,
        mac_address=record.mac,
        address=ipaddress.IPv4Interface((record.address, part.subnet.prefixlen))
        if part is not None
        else None,
        isolated=not one.settings.icc,
        hairpin=hairpin,
        more_addresses=tuple(
            ipaddress.ip_interface(f"{address}/{64 if ':' in address else _LINK_LOCAL_BITS}")
            for address in request.link_local
        ),
        address6=(
            ipaddress.IPv6Interface((record.address6, part6.subnet.prefixlen)) if part6 is not None else None
        ),
        sysctls=request.sysctls,
        lan=one.lan,
    )
