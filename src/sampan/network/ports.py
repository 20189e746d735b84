"""Which of the host's ports are published for which container, and which are free.

A port is taken by us, or by a program of the host's that listens there: `holding` sees to those.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter, SampanError
from sampan.network import holding

ANY = "0.0.0.0"
ANY6 = "::"
Addresses = tuple[str, ...]  # of a container: that of IPv4, and that of IPv6 if it has one
PROTOCOLS = ("tcp", "udp", "sctp")
MODES = ("nat", "proxy")
ROUTED = "routed"  # the gateway mode of networks whose containers are reached at their own addresses
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_EPHEMERAL_DEFAULT = (32768, 60999)
_HAS_IPV6 = Path("/proc/net/if_inet6")


class PortTaken(SampanError):
    """500: a host port is in use; Docker's words and status."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a port is to be published.

    Attributes:
        address: of the host's.
        proxied: a process listens there and forwards.
        routed: at the container's own address and port instead, as its network has that.
    """

    address: str
    proxied: bool = False
    routed: bool = False


@dataclass(frozen=True, slots=True)
class Binding:
    """A port that is to be published.

    Attributes:
        protocol, port: the container's.
        host_ip: at which of the host's addresses; 0.0.0.0 for all of IPv4, :: for all of IPv6, "" for all.
        host_port: a port, a range of which any will do (`8000-8010`), or "" for any at all.
        proxied: a process of the host's listens there and forwards.
    """

    protocol: str
    port: int
    host_ip: str = ""
    host_port: str = ""
    proxied: bool = False

    def choices(self) -> range | None:
        """The host ports that will do; None for any at all.

        Raises:
            InvalidParameter: it is no port or range.
        """
        if self.host_port in ("", "0"):
            return None
        first, dash, last = self.host_port.partition("-")
        try:
            low, high = int(first), int(last if dash else first)
        except ValueError:
            low, high = 0, -1
        if not 0 < low <= high <= 65535:
            raise InvalidParameter(f"invalid port specification: {self.host_port!r}")
        return range(low, high + 1)

    def address(self) -> str:
        """The host's address in the usual spelling, 0.0.0.0 for all.

        Raises:
            InvalidParameter: it is none, or one that nothing can be published at.
        """
        if self.host_ip in ("", ANY):
            return ANY
        try:
            address = ipaddress.ip_address(self.host_ip.removeprefix("[").removesuffix("]"))
        except ValueError:
            raise InvalidParameter(f"invalid IP address: {self.host_ip}") from None
        if address.version == 6 and address.is_link_local:
            raise InvalidParameter(
                f"cannot publish at {self.host_ip}: a link-local address is one of each interface's; name "
                "another address of the host's, or none"
            )
        return str(address)

    def places(self, families: Container[int], modes: Mapping[int, str]) -> tuple[Place, ...]:
        """Where it is to be published: at one address of the host's, or at all of each family.

        The kernel leads nothing from ::1 to a container, nor from IPv6 to IPv4: there a process does.

        Args:
            families: 4, 6 or both: what the container has addresses of.
            modes: its network's gateway modes, by family.

        Raises:
            InvalidParameter: as `address`, or the container cannot be reached from there.
        """
        if self.host_ip:
            wanted = [self.address()]
        else:
            there = (4, 6) if self.proxied and _HAS_IPV6.exists() else families
            wanted = [address for family, address in ((4, ANY), (6, ANY6)) if family in there]
        return tuple(self._place(address, families, modes) for address in wanted)

    def _place(self, address: str, families: Container[int], modes: Mapping[int, str]) -> Place:
        family = 6 if ":" in address else 4
        if family in families and modes.get(family) == ROUTED:
            return Place(ANY6 if family == 6 else ANY, routed=True)
        beyond = family == 6 and (6 not in families or ipaddress.ip_address(address).is_loopback)
        if not self.proxied and not beyond:
            if family not in families:
                raise InvalidParameter(
                    f"cannot publish at {self.host_ip}: the container's network has no IPv{family}; name an "
                    f"IPv{10 - family} address or none"
                )
            return Place(address)
        if self.protocol == "sctp":
            what = (
                f"at {self.host_ip}, where that takes a proxy" if beyond and not self.proxied else "by proxy"
            )
            raise InvalidParameter(
                f"port {self.port}/sctp cannot be published {what}: publish it by NAT (label "
                "sampan.publish-mode=nat) at other addresses, or publish tcp and udp alone"
            )
        return Place(address, proxied=True)


@dataclass(frozen=True, slots=True)
class Published:
    """A port that is published: the container's, and where at the host; and if by proxy rather than NAT.

    Attributes:
        routed: nowhere at the host, but at the container's own address; then `host_port` is 0.
    """

    protocol: str
    port: int
    host_ip: str
    host_port: int
    proxied: bool = False
    routed: bool = False


class PortTable:
    """What is published, by host port. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[tuple[str, int], dict[str, str]] = {}  # owner by address
        self._owned: dict[str, list[Published]] = {}
        self._holding = holding.Holding()
        self._next = 0

    def close(self) -> None:
        """Hold no port any more; what is published stays so."""
        with self._lock:
            self._holding.close()

    def claim(
        self,
        owner: str,
        wanted: Sequence[Binding],
        families: Container[int] = (4,),
        modes: Mapping[int, str] = MappingProxyType({}),
    ) -> list[Published]:
        """Take host ports, all that are wanted or none.

        Args:
            families: the IP versions that the container has addresses of.
            modes: the gateway modes of its networks, by IP version.

        Raises:
            InvalidParameter: a binding is wrong.
            PortTaken: a port is in use, or all that would do.
        """
        with self._lock:
            claimed: list[Published] = []
            try:
                # Those that must have one port come before those that take what is left.
                for binding in sorted(wanted, key=lambda one: one.choices() is None):
                    claimed += self._claim_one(owner, binding, binding.places(families, modes))
            except BaseException:
                self._drop(claimed)
                raise
            self._owned.setdefault(owner, []).extend(claimed)
            return claimed

    def restore(self, owner: str, published: Iterable[Published]) -> None:
        """Note what an earlier daemon has published for a container that lives."""
        with self._lock:
            for one in published:
                if one.routed:
                    self._owned.setdefault(owner, []).append(one)
                    continue
                self._taken.setdefault((one.protocol, one.host_port), {})[one.host_ip] = owner
                self._owned.setdefault(owner, []).append(one)
                if not one.proxied:
                    self._holding.take_again(owner, one.protocol, one.host_ip, one.host_port)

    def sockets(self, owner: str) -> list[tuple[Published, socket.socket]]:
        """The listening sockets of those of a container's ports that are published by proxy.

        Raises:
            OSError: one has to be bound again, and somebody else has the port.
        """
        with self._lock:
            found = []
            for one in self._owned.get(owner, ()):
                if not one.proxied:
                    continue
                place = (one.protocol, one.host_ip, one.host_port)
                if self._holding.get(*place) is None:
                    self._holding.listen(owner, *place)
                held = self._holding.get(*place)
                assert held is not None
                found.append((one, held))
            return found

    def disown(self, owner: str) -> list[Published]:
        """What a container had, and has no more; it is nobody else's until it is told to be `free`."""
        with self._lock:
            return self._owned.pop(owner, [])

    def free(self, published: Iterable[Published]) -> None:
        """Let others have what was disowned."""
        with self._lock:
            self._drop(published)

    def of(self, owner: str) -> list[Published]:
        """What a container has."""
        with self._lock:
            return list(self._owned.get(owner, ()))

    def all(self) -> dict[str, list[Published]]:
        """What is published, by owner."""
        with self._lock:
            return {owner: list(published) for owner, published in self._owned.items()}

    def _claim_one(self, owner: str, binding: Binding, places: Sequence[Place]) -> list[Published]:
        """Take one port, the same at each of the places; what is routed takes none of the host's."""
        routed = [
            Published(binding.protocol, binding.port, place.address, 0, routed=True)
            for place in places
            if place.routed
        ]
        places = [place for place in places if not place.routed]
        if not places:
            return routed
        choices = binding.choices()
        failure = "all ports are allocated"
        for port in self._ephemeral() if choices is None else choices:
            taken: list[Published] = []
            for place in places:
                problem = self._take(owner, binding.protocol, place, port)
                if problem:
                    break
                self._taken.setdefault((binding.protocol, port), {})[place.address] = owner
                taken.append(Published(binding.protocol, binding.port, place.address, port, place.proxied))
            else:
                if choices is None:
                    self._next = port + 1
                return taken + routed
            self._drop(taken)
            if choices is not None and len(choices) == 1:
                shown = f"[{place.address}]" if ":" in place.address else place.address
                failure = f"Bind for {shown}:{port} failed: {problem}"
        raise PortTaken(f"driver failed programming external connectivity: {failure}")

    def _take(self, owner: str, protocol: str, place: Place, port: int) -> str:
        """Take a port that is free; why it is not, or ""."""
        holders, address = self._taken.get((protocol, port), {}), place.address
        wild = ANY6 if ":" in address else ANY
        rivals = [one for one in holders if (":" in one) == (":" in address)]
        if rivals and (address in rivals or address == wild or wild in rivals):
            return "port is already allocated"
        try:
            take = self._holding.listen if place.proxied else self._holding.take
            take(owner, protocol, address, port)
        except OSError as error:
            return holding.problem(error, port)
        return ""

    def _drop(self, published: Iterable[Published]) -> None:
        for one in published:
            holders = self._taken.get((one.protocol, one.host_port), {})
            holders.pop(one.host_ip, None)
            self._holding.let_go(one.protocol, one.host_ip, one.host_port)
            if not holders:
                self._taken.pop((one.protocol, one.host_port), None)

    def _ephemeral(self) -> Iterator[int]:
        """The ports that are given to who asks for none, in turn, so that none comes back soon."""
        low, high = _EPHEMERAL_DEFAULT
        try:
            low, high = map(int, _EPHEMERAL.read_text().split())
        except (OSError, ValueError):
            pass
        start = self._next if low <= self._next <= high else low
        yield from range(start, high + 1)
        yield from range(low, start)
