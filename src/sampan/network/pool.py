"""Which address a container gets in a subnet, and the default bridge's own (`--bip`)."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterable

from sampan.errors import Conflict, InvalidParameter, Unavailable

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


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

    Args:
        gateway: nobody's address; None for a subnet without one.
        within: the part of the subnet that addresses are chosen from; any other can be claimed.
        reserved: addresses that are nobody's.
    """

    def __init__(
        self,
        subnet: IPNetwork,
        gateway: IPAddress | None,
        within: IPNetwork | None = None,
        reserved: Iterable[IPAddress] = (),
    ) -> None:
        self.subnet = subnet
        self._kind = type(subnet.network_address)
        within = within or subnet
        self._lowest = int(subnet.network_address) + 1
        self._highest = int(subnet.broadcast_address) - 1
        self._first = max(self._lowest, int(within.network_address))
        self._last = min(self._highest, int(within.broadcast_address))
        self._reserved = {*map(int, reserved), *([int(gateway)] if gateway is not None else ())}
        self._used = set(self._reserved)
        self._free = self._last - self._first + 1 - sum(map(self._counts, self._used))
        self._next = self._first
        self._lock = threading.Lock()

    def allocate(self) -> IPAddress:
        """A free address.

        Raises:
            Unavailable: when there is none.
        """
        with self._lock:
            if self._free > 0:
                candidate = self._next
                while candidate in self._used:
                    candidate = candidate + 1 if candidate < self._last else self._first
                self._take(candidate)
                return self._kind(candidate)
        raise Unavailable(
            f"no free address is left in subnet {self.subnet}: remove containers or take a wider subnet"
        )

    def claim(self, address: IPAddress, *, move_on: bool = True) -> None:
        """Take a known address.

        Args:
            move_on: go on choosing behind it, as after a restart.

        Raises:
            Conflict: when it is taken already or is none of this subnet's host addresses.
        """
        number = int(address)
        with self._lock:
            if number in self._used or not self._lowest <= number <= self._highest:
                raise Conflict(f"address {address} cannot be had from {self.subnet}")
            self._take(number, move_on)

    def release(self, address: IPAddress) -> None:
        """Give an address back; giving it twice is fine."""
        with self._lock:
            number = int(address)
            if number in self._used and number not in self._reserved:
                self._used.discard(number)
                self._free += self._counts(number)

    def _counts(self, number: int) -> bool:
        return self._first <= number <= self._last

    def _take(self, number: int, move_on: bool = True) -> None:
        self._used.add(number)
        if self._counts(number):
            self._free -= 1
            if move_on and number >= self._next:
                self._next = number + 1 if number < self._last else self._first

    def __len__(self) -> int:
        """How many addresses containers hold."""
        return len(self._used) - len(self._reserved)
