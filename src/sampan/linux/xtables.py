"""The older packet filter of iptables-legacy, where it is in use beside nf_tables: read, never changed.

Its structures are those of Linux `include/uapi/linux/netfilter_ipv4/ip_tables.h`. To ask for a table makes
it, so only one that is there is asked for.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from sampan.linux.syscalls import libc

_TABLES = Path("/proc/net/ip_tables_names")
_GET_INFO, _GET_ENTRIES = 64, 65
_INFO_BYTES = 84
_ENTRIES_OFFSET = 40
_TARGET_OFFSET_AT = 88
_VERDICT_AT = 32
_FORWARD = 2
_NF_DROP = 0


@dataclass(frozen=True, slots=True)
class LegacyForward:
    """The chain FORWARD of iptables-legacy's table filter.

    Attributes:
        drops: its policy is to drop.
        content: all of the table's entries, as the kernel has them.
    """

    drops: bool
    content: bytes

    def mentions(self, text: str) -> bool:
        """Whether an interface or a chain of this name is in it."""
        return text.encode() + b"\0" in self.content


def legacy_forward() -> LegacyForward | None:
    """The chain FORWARD; None when iptables-legacy is not in use in this network namespace.

    Raises:
        OSError: the kernel's refusal.
    """
    try:
        if "filter" not in _TABLES.read_text().split():
            return None
    except OSError:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as asked:
        info = _get(asked, _GET_INFO, struct.pack("32s", b"filter"), _INFO_BYTES)
        underflows, size = struct.unpack_from("=5I", info, 56), struct.unpack_from("=I", info, 80)[0]
        request = struct.pack("=32sI", b"filter", size)
        entries = _get(asked, _GET_ENTRIES, request, _ENTRIES_OFFSET + size)[_ENTRIES_OFFSET:]
    policy = underflows[_FORWARD]
    target = policy + struct.unpack_from("=H", entries, policy + _TARGET_OFFSET_AT)[0]
    (verdict,) = struct.unpack_from("=i", entries, target + _VERDICT_AT)
    return LegacyForward(verdict == -_NF_DROP - 1, entries)


def _get(asked: socket.socket, option: int, request: bytes, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(request, size)
    length = ctypes.c_uint32(size)
    if libc.getsockopt(asked.fileno(), socket.IPPROTO_IP, option, buffer, ctypes.byref(length)):
        number = ctypes.get_errno()
        raise OSError(number, f"iptables-legacy's table cannot be read: {os.strerror(number)}")
    return buffer.raw
