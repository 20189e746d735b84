"""Connections that the kernel must not track any more, as the container that they led to has ended.

The kernel decides with the first packet of a flow where it goes, and for UDP, which knows no end of one, a
flow lasts as long as somebody sends. Without this a client that never stops would reach whoever has the
address of a container that has ended, and would not reach the container that publishes the port it sends to.
"""

from __future__ import annotations

import ipaddress
import logging
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sampan.linux import conntrack, rtnetlink
from sampan.linux.netlink import Netlink
from sampan.network.ports import ANY, ANY6, Published

log = logging.getLogger("sampan.network")
_ADDRESSES6 = Path("/proc/net/if_inet6")
_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")
_UDP = 17


def forget(addresses: Iterable[str]) -> None:
    """Let no flow lead to these addresses, or come from them, any more: before they are given to others.

    A kernel that tracks nothing is fine.
    """
    theirs = {ipaddress.ip_address(address) for address in addresses}

    def chosen(flow: conntrack.Flow) -> bool:
        return not theirs.isdisjoint((flow.source, flow.destination, flow.answered_from))

    _delete([address.packed for address in theirs], chosen)


def lead_udp_anew(address: str, published: Sequence[Published]) -> None:
    """Let what is sent to UDP ports that have just been published go where they lead to now; in a while.

    What began before, when the port was nobody's or another container's, would go there for ever. Nothing
    depends on that but how soon it gets here, so a thread does it.

    Args:
        address: the container's.
    """
    threading.Thread(target=_lead_udp_anew, args=(address, published), name="flows", daemon=True).start()


def _lead_udp_anew(address: str, published: Sequence[Published]) -> None:
    target = ipaddress.ip_address(address)
    ports = {(one.host_ip, one.host_port) for one in published if one.protocol == "udp"}
    try:
        with Netlink() as netlink:
            local = {str(found.interface.ip) for found in rtnetlink.addresses(netlink)}
        local |= _local6()
    except OSError as error:
        log.warning("the addresses of this machine cannot be listed: %s", error.strerror)
        return

    def chosen(flow: conntrack.Flow) -> bool:
        if flow.protocol != _UDP or flow.answered_from == target:
            return False
        if flow.destination.version != target.version:
            return False
        if (str(flow.destination), flow.destination_port) in ports:
            return True
        here = str(flow.destination) in local or flow.destination.is_loopback
        return here and (ANY if target.version == 4 else ANY6, flow.destination_port) in ports

    _delete([struct.pack(">H", port) for _, port in ports], chosen)


def _local6() -> set[str]:
    """The IPv6 addresses of this machine; none on one without IPv6."""
    try:
        lines = _ADDRESSES6.read_text().splitlines()
    except OSError:
        return set()
    return {str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))) for line in lines}


def _delete(mentioning: Sequence[bytes], chosen: Callable[[conntrack.Flow], bool]) -> None:
    try:
        if not int(_COUNT.read_text()):
            return
    except (OSError, ValueError):
        return  # nothing is tracked: the module is not there
    try:
        conntrack.delete(conntrack.flows(mentioning, chosen))
    except OSError as error:
        log.warning("connections of containers that have ended may go on: %s", error)
