"""Notices at a start that somebody has taken away what the bridge network stands on.

The bridge (`ip link delete`), its address, our firewall table (`nft flush ruleset`) and the forwarding
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

from sampan.linux import nftables
from sampan.linux.netlink import NETLINK_NETFILTER, Netlink
from sampan.network.bridge import IP_FORWARD, table_name

_SIOCGIFFLAGS = 0x8913
_SIOCGIFADDR = 0x8915
_SIOCGIFINDEX = 0x8933
_IFF_UP = 1
_IFREQ = struct.Struct("=16s24s")


class BridgeWatch:
    """What a bridge network stood on when it was put in place. Not thread-safe.

    Args:
        name: the bridge.
        index: its interface index; a bridge made anew has another.
        address: one of its addresses.
        forwarding: whether the forwarding switch is to be on.
        firewall: whether our table is in place.
    """

    def __init__(
        self, name: str, index: int, address: ipaddress.IPv4Address, *, forwarding: bool, firewall: bool
    ) -> None:
        self._name = name
        self._index = index
        self._address = address
        self._stack = contextlib.ExitStack()
        self._socket = self._stack.enter_context(
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        )
        self._switch = -1
        self._netlink: Netlink | None = None
        self._generation = 0
        self._table: nftables.Fingerprint = ()
        if forwarding:
            self._switch = os.open(IP_FORWARD, os.O_RDONLY | os.O_CLOEXEC)
            self._stack.callback(os.close, self._switch)
        if firewall:
            self._netlink = self._stack.enter_context(Netlink(NETLINK_NETFILTER))
            self._generation = nftables.generation(self._netlink)
            self._table = nftables.fingerprint(self._netlink, table_name(name))

    def close(self) -> None:
        """Give the descriptors back."""
        self._stack.close()

    def amiss(self) -> list[str]:
        """What is not as it was, in words; empty when all is well."""
        found = []
        if problem := self._bridge_problem():
            found.append(problem)
        if self._switch >= 0 and os.pread(self._switch, 1, 0) != b"1":
            found.append("IPv4 forwarding was switched off")
        if self._netlink is not None and self._firewall_changed():
            found.append(f"nftables table {table_name(self._name)} was removed or changed")
        return found

    def _bridge_problem(self) -> str:
        try:
            (index,) = struct.unpack_from("=i", self._ask(_SIOCGIFINDEX))
        except OSError:
            index = 0
        if index != self._index:
            return f"bridge {self._name} was removed"
        (flags,) = struct.unpack_from("=h", self._ask(_SIOCGIFFLAGS))
        if not flags & _IFF_UP:
            return f"bridge {self._name} was taken down"
        try:  # asked for this address, the kernel names it if the interface has it
            wanted = struct.pack("=HH4s", socket.AF_INET, 0, self._address.packed)
            if self._ask(_SIOCGIFADDR, wanted)[4:8] == self._address.packed:
                return ""
        except OSError:
            pass  # EADDRNOTAVAIL: it has none at all
        return f"bridge {self._name} lost its address"

    def _ask(self, request: int, payload: bytes = b"") -> bytes:
        return fcntl.ioctl(self._socket, request, _IFREQ.pack(self._name.encode(), payload))[16:]

    def _firewall_changed(self) -> bool:
        assert self._netlink is not None
        generation = nftables.generation(self._netlink)
        if generation == self._generation:
            return False
        if nftables.fingerprint(self._netlink, table_name(self._name)) != self._table:
            return True
        self._generation = generation  # somebody else's rules, which are none of our business
        return False
