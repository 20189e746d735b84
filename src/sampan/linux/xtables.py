"""The older packet filter of iptables-legacy, where it is in use beside nf_tables: read, never changed.

Its structures are those of Linux `include/uapi/linux/netfilter_ipv4/ip_tables.h`, and of
`netfilter_ipv6/ip6_tables.h`, which differ in the part of an entry that is compared with packets. To ask for
a table makes it, so only one that is there is asked for.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from pathlib import Path

from sampan.dataclasses import dataclass
from sampan.linux.syscalls import libc

_GET_INFO, _GET_ENTRIES = 64, 65
_INFO_BYTES = 84
_ENTRIES_OFFSET = 40
_VERDICT_AT = 32
_FORWARD = 2
_NF_DROP = 0
_IPPROTO_RAW, _SOL_IPV6 = 255, 41


@dataclass(frozen=True, slots=True)
class _Kind:
    """Where a table of one IP version is asked for, and where an entry says how far off its target is."""

    names: Path
    family: int
    protocol: int
    level: int
    target_offset_at: int


_KINDS = {
    4: _Kind(Path("/proc/net/ip_tables_names"), socket.AF_INET, _IPPROTO_RAW, socket.IPPROTO_IP, 88),
    6: _Kind(Path("/proc/net/ip6_tables_names"), socket.AF_INET6, _IPPROTO_RAW, _SOL_IPV6, 140),
}


@dataclass(frozen=True, slots=True)
class LegacyForward:
    """The chain FORWARD of iptables-legacy's table filter, or of ip6tables-legacy's.

    Attributes:
        drops: its policy is to drop.
        content: all of the table's entries, as the kernel has them.
    """

    drops: bool
    content: bytes

    def mentions(self, text: str) -> bool:
        """Whether an interface or a chain of this name is in it."""
        return text.encode() + b"\0" in self.content


def legacy_forward(version: int) -> LegacyForward | None:
    """The chain FORWARD; None when iptables-legacy is not in use in this network namespace.

    Args:
        version: 4, or 6 for ip6tables-legacy.

    Raises:
        OSError: the kernel's refusal.
    """
    kind = _KINDS[version]
    try:
        if "filter" not in kind.names.read_text().split():
            return None
    except OSError:
        return None
    with socket.socket(kind.family, socket.SOCK_RAW, kind.protocol) as asked:
        info = _get(asked, kind.level, _GET_INFO, struct.pack("32s", b"filter"), _INFO_BYTES)
        underflows, size = struct.unpack_from("=5I", info, 56), struct.unpack_from("=I", info, 80)[0]
        request = struct.pack("=32sI", b"filter", size)
        entries = _get(asked, kind.level, _GET_ENTRIES, request, _ENTRIES_OFFSET + size)[_ENTRIES_OFFSET:]
    policy = underflows[_FORWARD]
    target = policy + struct.unpack_from("=H", entries, policy + kind.target_offset_at)[0]
    (verdict,) = struct.unpack_from("=i", entries, target + _VERDICT_AT)
    return LegacyForward(verdict == -_NF_DROP - 1, entries)


def _get(asked: socket.socket, level: int, option: int, request: bytes, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(request, size)
    length = ctypes.c_uint32(size)
    if libc.getsockopt(asked.fileno(), level, option, buffer, ctypes.byref(length)):
        number = ctypes.get_errno()
        raise OSError(number, f"iptables-legacy's table cannot be read: {os.strerror(number)}")
    return buffer.raw
