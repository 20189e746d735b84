"""Packets that a rule's `log group` has copied: nfnetlink_log.

Numbers are those of Linux `include/uapi/linux/netfilter/nfnetlink_log.h`.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

from sampan.dataclasses import dataclass
from sampan.linux.netlink import NETLINK_NETFILTER, NLM_F_ACK, Message, Netlink, attribute, attributes
from sampan.linux.nftables import head

_SUBSYSTEM = 4 << 8
_PACKET, _CONFIG = _SUBSYSTEM | 0, _SUBSYSTEM | 1
_BIND = 1
_COPY_PACKET = 2
_PAYLOAD = 9
_WAIT_HUNDREDTHS = 5  # of a second, until packets are handed on, together
_RECEIVE_BYTES = 1 << 16
_NO_ERRORS_LOST = 5  # NETLINK_NO_ENOBUFS
_SOL_NETLINK = 270
_IP_MINIMUM, _IP6_HEADER = 20, 40


@dataclass(frozen=True, slots=True)
class Logged:
    """What was logged of a packet.

    Attributes:
        protocol: its number.
        port: the destination's; 0 where the protocol has none, or stands behind a header of IPv6's own.
    """

    source: ipaddress.IPv4Address | ipaddress.IPv6Address
    destination: ipaddress.IPv4Address | ipaddress.IPv6Address
    protocol: int
    port: int


class LogGroup:
    """Listens to one group of this network namespace.

    Args:
        number: of the group.
        snap_bytes: how much of each packet is wanted.

    Raises:
        OSError: EBUSY when somebody else listens to it; EPROTONOSUPPORT, EINVAL where the kernel has none.
    """

    def __init__(self, number: int, snap_bytes: int) -> None:
        self._netlink = Netlink(NETLINK_NETFILTER)
        try:
            ours = head(socket.AF_UNSPEC, number)
            mode = struct.pack(">IBx", snap_bytes, _COPY_PACKET)
            soon = struct.pack(">I", _WAIT_HUNDREDTHS)
            self._netlink.transact(
                [
                    Message(_CONFIG, NLM_F_ACK, ours + attribute(1, bytes([_BIND])), "bind to a log group"),
                    Message(_CONFIG, NLM_F_ACK, ours + attribute(2, mode), "ask a log group for packets"),
                    Message(_CONFIG, NLM_F_ACK, ours + attribute(4, soon), "ask a log group to be quick"),
                ]
            )
            with suppress(OSError):  # when more comes than is read, the rest is lost and nothing else
                self._netlink.socket.setsockopt(_SOL_NETLINK, _NO_ERRORS_LOST, 1)
        except BaseException:
            self._netlink.close()
            raise

    def fileno(self) -> int:
        """For poll(2)."""
        return self._netlink.socket.fileno()

    def close(self) -> None:
        """Listen no more."""
        self._netlink.close()

    def read(self) -> Iterator[Logged]:
        """What has come, without waiting."""
        for kind, _, body in self._netlink.news(_RECEIVE_BYTES):
            if kind == _PACKET:
                found = _logged(dict(attributes(body[4:])).get(_PAYLOAD, b""))
                if found is not None:
                    yield found


def _logged(packet: bytes) -> Logged | None:
    if len(packet) >= _IP_MINIMUM and packet[0] >> 4 == 4:
        protocol, start = packet[9], 4 * (packet[0] & 15)
        ends = packet[12:16], packet[16:20]
    elif len(packet) >= _IP6_HEADER and packet[0] >> 4 == 6:
        protocol, start = packet[6], _IP6_HEADER
        ends = packet[8:24], packet[24:40]
    else:
        return None
    ports = protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_SCTP)
    port = int.from_bytes(packet[start + 2 : start + 4], "big") if ports else 0
    return Logged(ipaddress.ip_address(ends[0]), ipaddress.ip_address(ends[1]), protocol, port)
