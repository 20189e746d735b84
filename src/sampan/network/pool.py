"""Which subnet a bridge gets and which address a container gets.

Subnets come from RFC 1918; the order tries the wide, rarely used ranges of 172.16/12 first, and leaves
172.17.0.0/16 to Docker's own default bridge.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterable, Iterator

from sampan.errors import Conflict, InvalidParameter, Unavailable

IPv4Address = ipaddress.IPv4Address
IPv4Network = ipaddress.IPv4Network


def candidates() -> Iterator[IPv4Network]:
    """The subnets to try, in order."""
    for second in range(18, 32):
        yield IPv4Network(f"172.{second}.0.0/16")
    for third in range(0, 256, 16):
        yield IPv4Network(f"192.168.{third}.0/20")
    for second in range(64, 256):
        yield IPv4Network(f"10.{second}.0.0/24")


def choose_subnet(used: Iterable[IPv4Network]) -> IPv4Network:
    """The first candidate that overlaps nothing in `used`.

    Routes as wide as half of all addresses (VPNs set 0.0.0.0/1 and 128.0.0.0/1) stand for a default route
    and do not count.

    Raises:
        Unavailable: when every candidate is taken.
    """
    taken = [network for network in used if network.prefixlen > 1]
    for candidate in candidates():
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise Unavailable(
        "no private IPv4 range is free of this machine's own addresses and routes; choose one with --bip"
    )


def parse_bip(bip: str) -> ipaddress.IPv4Interface:
    """The bridge's address with its prefix, from `--bip 10.1.2.1/24`.

    Raises:
        InvalidParameter: when it is not an IPv4 address in CIDR form with room for containers.
    """
    try:
        interface = ipaddress.IPv4Interface(bip)
    except ValueError as error:
        raise InvalidParameter(f"bip: {bip!r} is not an IPv4 address in CIDR form ({error})") from error
    network = interface.network
    if "/" not in bip or not 8 <= network.prefixlen <= 30:
        raise InvalidParameter(f"bip: {bip!r} needs a prefix length from /8 to /30, as in 10.1.2.1/24")
    if interface.ip in (network.network_address, network.broadcast_address):
        raise InvalidParameter(f"bip: {interface.ip} is not a host address of {network}")
    return interface


class AddressPool:
    """The addresses of one subnet. Thread-safe.

    Next-fit: an address given back is used again only when the search has come round, so that peers which
    remember an address do not find another container behind it at once.
    """

    def __init__(self, subnet: IPv4Network, gateway: IPv4Address) -> None:
        self.subnet = subnet
        self._first = int(subnet.network_address) + 1
        self._last = int(subnet.broadcast_address) - 1
        self._gateway = int(gateway)
        self._used: set[int] = {self._gateway}
        self._next = self._first
        self._lock = threading.Lock()

    def allocate(self) -> IPv4Address:
        """A free address.

        Raises:
            Unavailable: when there is none.
        """
        with self._lock:
            size = self._last - self._first + 1
            if len(self._used) < size:
                candidate = self._next
                while candidate in self._used:
                    candidate = candidate + 1 if candidate < self._last else self._first
                self._used.add(candidate)
                self._next = candidate + 1 if candidate < self._last else self._first
                return IPv4Address(candidate)
        raise Unavailable(
            f"no free address is left in subnet {self.subnet}: remove containers or widen --bip"
        )

    def claim(self, address: IPv4Address) -> None:
        """Take a known address, as after a restart.

        Raises:
            Conflict: when it is taken already or is none of this subnet's host addresses.
        """
        number = int(address)
        with self._lock:
            if number in self._used or not self._first <= number <= self._last:
                raise Conflict(f"address {address} cannot be had from {self.subnet}")
            self._used.add(number)
            if number >= self._next:
                self._next = number + 1 if number < self._last else self._first

    def release(self, address: IPv4Address) -> None:
        """Give an address back; giving it twice is fine."""
        with self._lock:
            if int(address) != self._gateway:
                self._used.discard(int(address))

    def __len__(self) -> int:
        """How many addresses containers hold."""
        return len(self._used) - 1
