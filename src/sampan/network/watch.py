"""Notices at a start that somebody has taken away what bridge networks stand on.

A bridge (`ip link delete`), its name or address, our firewall table (`nft flush ruleset`) and the forwarding
switch can be changed by anybody with the rights while the daemon runs. Asking costs a few system calls, none
of which grows with the machine: netdevice(7) ioctls by name, a read of the switch, and the number that
nf_tables counts up with every change of any rule. Only when that has moved is our table itself looked at.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Sequence

from sampan.linux import nftables
from sampan.linux.netlink import NETLINK_NETFILTER, Netlink
from sampan.network.bridge import IP6_FORWARD, IP_FORWARD

_SIOCGIFFLAGS = 0x8913
_SIOCGIFADDR = 0x8915
_SIOCGIFINDEX = 0x8933
_IFF_UP = 1
_IFREQ = struct.Struct("=16s24s")


class Watch:
    """What bridge networks stood on when they were put in place. Not thread-safe.

    Args:
        table: the name of our firewall tables.
        families: of those that are in place.
        forwarding, forwarding6: whether the forwarding switches are to be on.
    """

    def __init__(
        self, table: str, families: Sequence[int], *, forwarding: bool, forwarding6: bool = False
    ) -> None:
        self._families = families
        self._table = table
        self._stack = contextlib.ExitStack()
        self._socket = self._stack.enter_context(
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        )
        self._switches: dict[str, int] = {}
        self._netlink: Netlink | None = None
        self._generation = 0
        self._content: list[nftables.Fingerprint] = []
        for version, file, wanted in (("4", IP_FORWARD, forwarding), ("6", IP6_FORWARD, forwarding6)):
            if wanted:
                self._switches[version] = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
                self._stack.callback(os.close, self._switches[version])
        if families:
            self._netlink = self._stack.enter_context(Netlink(NETLINK_NETFILTER))
            self._generation = nftables.generation(self._netlink)
            self._content = self._fingerprints(self._netlink)

    def close(self) -> None:
        """Give the descriptors back."""
        self._stack.close()

    def amiss(self) -> list[str]:
        """What of that which all networks share is not as it was, in words; empty when all is well."""
        found = [
            f"IPv{version} forwarding was switched off"
            for version, switch in self._switches.items()
            if os.pread(switch, 1, 0) != b"1"
        ]
        if self._netlink is not None and self._firewall_changed():
            found.append(f"nftables table {self._table} was removed or changed")
        return found

    def bridge_problem(self, name: str, index: int, address: ipaddress.IPv4Address | None) -> str:
        """What is not as it was with a bridge that had this index and address; "" when all is well."""
        try:
            (now,) = struct.unpack_from("=i", self._ask(name, _SIOCGIFINDEX))
            if now != index:
                return f"bridge {name} was replaced"
            (flags,) = struct.unpack_from("=h", self._ask(name, _SIOCGIFFLAGS))
            if not flags & _IFF_UP:
                return f"bridge {name} was taken down"
        except OSError:
            return f"bridge {name} was removed or renamed"
        if address is None:
            return ""
        try:  # asked for this address, the kernel names it if the interface has it
            wanted = struct.pack("=HH4s", socket.AF_INET, 0, address.packed)
            if self._ask(name, _SIOCGIFADDR, wanted)[4:8] == address.packed:
                return ""
        except OSError:
            pass  # EADDRNOTAVAIL: it has none at all
        return f"bridge {name} lost its address"

    def parent_problem(self, name: str, index: int) -> str:
        """What is not as it was with the parent of a macvlan or ipvlan network; "" when all is well."""
        try:
            (now,) = struct.unpack_from("=i", self._ask(name, _SIOCGIFINDEX))
        except OSError:
            return f"interface {name} was removed or renamed"
        return "" if now == index else f"interface {name} was replaced"

    def address_problem(self, name: str, index: int, address: ipaddress.IPv6Address) -> str:
        """Whether a bridge has lost its IPv6 address, as `bridge_problem`."""
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asker:
            try:
                asker.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
                asker.bind((str(address), 0, 0, index))
            except OSError:
                return f"bridge {name} lost its IPv6 address"
        return ""

    def _ask(self, name: str, request: int, payload: bytes = b"") -> bytes:
        return fcntl.ioctl(self._socket, request, _IFREQ.pack(name.encode(), payload))[16:]

    def _firewall_changed(self) -> bool:
        assert self._netlink is not None
        if not all(self._content):
            return True  # it was taken away between being put in place and being looked at
        generation = nftables.generation(self._netlink)
        if generation == self._generation:
            return False
        if self._fingerprints(self._netlink) != self._content:
            return True
        self._generation = generation  # somebody else's rules, which are none of our business
        return False

    def _fingerprints(self, netlink: Netlink) -> list[nftables.Fingerprint]:
        return [nftables.fingerprint(netlink, self._table, family) for family in self._families]
