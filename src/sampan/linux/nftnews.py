"""What nf_tables tells of changes of tables as they are made, as `nft monitor` shows it.

Numbers are those of Linux `include/uapi/linux/netfilter/nf_tables.h` and `linux/filter.h`.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Collection

from sampan.linux.netlink import NETLINK_NETFILTER, Netlink, attributes
from sampan.linux.nftables import SUBSYSTEM

_NFNLGRP_NFTABLES = 7
_NEWSETELEM, _DELSETELEM, _NEWGEN = SUBSYSTEM | 12, SUBSYSTEM | 14, SUBSYSTEM | 15
_SO_ATTACH_FILTER = 26
_KIND_AT = 4  # in struct nlmsghdr
_LOAD_HALF_AT, _EQUAL, _RETURN = 0x28, 0x15, 0x06  # classic BPF
_ALL, _NOTHING = 0xFFFFFFFF, 0


class TableNews:
    """Changes of the tables of one name, made by anybody in this network namespace.

    Args:
        families: those that the tables may be of.
        elements: also changes that begin with a set's elements; without, we are not woken for them.

    Raises:
        OSError: the kernel has no such notices.
    """

    def __init__(self, table: str, families: Collection[int], *, elements: bool = True) -> None:
        self._table = table.encode() + b"\0"
        self._families = families
        self._netlink = Netlink(NETLINK_NETFILTER)
        try:
            if not elements:
                _pass_over(self._netlink.socket, (_NEWSETELEM, _DELSETELEM, _NEWGEN))
            self._netlink.join(_NFNLGRP_NFTABLES)
        except BaseException:
            self._netlink.close()
            raise

    def fileno(self) -> int:
        """For poll(2)."""
        return self._netlink.socket.fileno()

    def close(self) -> None:
        """Be told no more."""
        self._netlink.close()

    def changed(self, ours: int = -1) -> bool:
        """Whether one has been changed since this was last asked; True also when that cannot be known.

        Args:
            ours: the port of the netlink socket whose changes do not count.
        """
        found = False
        try:
            for kind, asker, body in self._netlink.news():
                if kind & 0xFF00 == SUBSYSTEM and asker != ours and body[0] in self._families:
                    found |= dict(attributes(body[4:])).get(1) == self._table
        except OSError:  # more than the socket's buffer held
            return True
        return found


def _pass_over(end: socket.socket, kinds: Collection[int]) -> None:
    """Let no packet in whose first message is of one of these kinds."""
    program = struct.pack("=HBBI", _LOAD_HALF_AT, 0, 0, _KIND_AT)
    for left, kind in zip(range(len(kinds), 0, -1), kinds, strict=True):
        as_loaded = int.from_bytes(struct.pack("=H", kind), "big")
        program += struct.pack("=HBBI", _EQUAL, left, 0, as_loaded)
    program += struct.pack("=HBBI", _RETURN, 0, 0, _ALL) + struct.pack("=HBBI", _RETURN, 0, 0, _NOTHING)
    code = ctypes.create_string_buffer(program, len(program))
    end.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    )
