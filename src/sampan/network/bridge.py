"""The host's side of bridge networks: the bridges themselves, and forwarding."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter, Unavailable
from sampan.linux import features, rtnetlink
from sampan.linux.netlink import Message, Netlink

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
IP6_FORWARD = Path("/proc/sys/net/ipv6/conf/all/forwarding")
_IP6_FORWARD_NEW = Path("/proc/sys/net/ipv6/conf/default/forwarding")
_LINK_LOCAL = ipaddress.IPv6Interface("fe80::1/64")  # of every bridge with IPv6, as Docker's
_ALREADY = frozenset({errno.EEXIST})
_BATCH = 64
_FEW = 16


@dataclass(frozen=True, slots=True)
class Wanted:
    """A bridge as it is to be.

    Attributes:
        address, address6: None for none of that version.
        was: the interface index that it had last, 0 for none.
        isolated: the host is not in the network by IPv4.
    """

    name: str
    address: ipaddress.IPv4Interface | None
    mtu: int
    was: int = 0
    address6: ipaddress.IPv6Interface | None = None
    isolated: bool = False

    @property
    def mac_address(self) -> str:
        """The same one each time, so that containers that live through its loss need not ask for it again."""
        if self.address is not None:
            return "02:42:" + self.address.packed.hex(":")
        return "02:42:" + zlib.crc32(self.name.encode()).to_bytes(4, "big").hex(":")


def supports(kind: str) -> bool:
    """Whether the kernel can make links of a kind, as "veth"; nothing is made.

    Raises:
        OSError: it refuses to say, for want of rights.
    """
    try:
        with Netlink() as netlink:
            netlink.transact([rtnetlink.probe_kind(kind)])
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return False
        if error.errno in (errno.EPERM, errno.EACCES):
            raise
    return True


def missing_support() -> list[str]:
    """What stands in the way of any bridge network on this machine, one line each."""
    lines = []
    for kind in ("veth", "bridge"):
        try:
            if supports(kind):
                continue
            what = features.lacking(kind)
        except OSError:
            what = "network interfaces may not be made here (CAP_NET_ADMIN is missing)"
        lines.append(f"{what}; containers can run with --network none or host")
    return list(dict.fromkeys(lines))


@contextlib.contextmanager
def choosing() -> Iterator[None]:
    """Let one process of this network namespace at a time choose a subnet.

    Two daemons that start together would otherwise both find the same one free. An abstract socket's name is
    taken by one socket of a network namespace at a time, and given back however its owner ends (unix(7)).
    """
    deadline = time.monotonic() + 5
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        while True:
            try:
                lock.bind("\0sampan-choosing-a-subnet")
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                    raise Unavailable(f"cannot lock the choice of a subnet: {error}") from error
                time.sleep(0.01)
        yield


def find(netlink: Netlink, name: str) -> tuple[rtnetlink.Link | None, list[ipaddress.IPv4Interface]]:
    """The bridge of that name, if there is one, and its IPv4 addresses.

    Raises:
        InvalidParameter: when the interface is no bridge.
    """
    link = rtnetlink.link_named(netlink, name)
    if link is None:
        return None, []
    if link.kind != "bridge":
        raise InvalidParameter(f"bridge: interface {name} exists and is not a bridge; choose another name")
    return link, [found.interface for found in rtnetlink.addresses(netlink) if found.index == link.index]


def used_networks(netlink: Netlink) -> list[ipaddress.IPv4Network]:
    """What a new subnet must not overlap: the host's addresses and routes."""
    own = [found.interface.network for found in rtnetlink.addresses(netlink)]
    return own + rtnetlink.routes(netlink)


def has_ipv6() -> bool:
    """Whether this kernel has IPv6, and it is not switched off as a whole (`ipv6.disable=1`)."""
    return IP6_FORWARD.exists()


def raise_bridges(netlink: Netlink, wanted: Sequence[Wanted]) -> dict[str, int]:
    """Make the bridges that are missing, see that each has its address and is up; their indices by name.

    One that somebody has renamed is known by its index and MAC address, and gets its name back. The requests
    go in batches, however many bridges there are.

    Raises:
        InvalidParameter: an interface of such a name is no bridge.
        OSError: the kernel's refusal.
    """
    present = _links(netlink, wanted)
    for one in wanted:
        if (found := present.get(one.name)) is not None and found.kind != "bridge":
            raise InvalidParameter(
                f"bridge: interface {one.name} exists and is not a bridge; choose another name"
            )
    missing = [one for one in wanted if one.name not in present]
    if missing:
        _make(netlink, missing)
        present = _links(netlink, wanted)
    indices = {one.name: present[one.name].index for one in wanted}
    with_ipv4 = [
        rtnetlink.add_address(indices[one.name], one.address) for one in wanted if one.address is not None
    ]
    _send(netlink, with_ipv4, _ALREADY)
    for one in wanted:
        if one.address6 is not None:
            _raise_ipv6(netlink, one.name, indices[one.name], one.address6)
    down = [one for one in wanted if not present[one.name].up]
    _send(netlink, [rtnetlink.set_up(index=indices[one.name]) for one in down])
    return indices


def _raise_ipv6(netlink: Netlink, name: str, index: int, address: ipaddress.IPv6Interface) -> None:
    """Let a bridge have IPv6 addresses, and take none of what routers or containers announce.

    Raises:
        OSError: the kernel's refusal.
    """
    for switch in ("accept_ra", "disable_ipv6"):
        with contextlib.suppress(OSError):  # /proc/sys is read-only: then the addresses tell
            Path(f"/proc/sys/net/ipv6/conf/{name}/{switch}").write_text("0")
    addresses = (address, _LINK_LOCAL)
    netlink.transact([rtnetlink.add_address(index, one) for one in addresses], tolerate=_ALREADY)


def _links(netlink: Netlink, wanted: Sequence[Wanted]) -> dict[str, rtnetlink.Link]:
    """The links of these names, each asked for, or all there are where many are wanted."""
    if len(wanted) > _FEW:
        found: Iterable[rtnetlink.Link | None] = rtnetlink.links(netlink)
    else:
        found = (rtnetlink.link_named(netlink, one.name) for one in wanted)
    return {link.name: link for link in found if link is not None}


def _send(netlink: Netlink, messages: Sequence[Message], tolerate: frozenset[int] = frozenset()) -> None:
    """Send many requests: as many at a time as the socket's buffer has room for acknowledgements of."""
    for start in range(0, len(messages), _BATCH):
        netlink.transact(messages[start : start + _BATCH], tolerate=tolerate)


def _make(netlink: Netlink, missing: Sequence[Wanted]) -> None:
    known = any(one.was for one in missing)
    bridges = (
        {link.index: link for link in rtnetlink.links(netlink) if link.kind == "bridge"} if known else {}
    )
    requests = []
    for one in missing:
        renamed = bridges.get(one.was)
        if renamed is not None and renamed.mac_address == one.mac_address:
            requests += [rtnetlink.set_down(renamed.index), rtnetlink.rename_link(renamed.index, one.name)]
        else:
            requests.append(rtnetlink.create_bridge(one.name, one.mac_address, one.mtu))
    _send(netlink, requests)
    for one in missing:
        with contextlib.suppress(OSError):  # a kernel without IPv6 refuses this
            netlink.transact([rtnetlink.set_no_ipv6_address(one.name)])
        if one.isolated:
            _take_no_ipv4(one.name)
        if one.address6 is None:
            disable_ipv6(one.name)


def _take_no_ipv4(name: str) -> None:
    """Let a bridge without an address lead to none of the host's others: neither packets nor answers to ARP.

    The kernel takes what is for any of its addresses on every interface (ip-sysctl.rst). It tells where
    packets come from (`rp_filter`) by routes, of which none leads to such a bridge.
    """
    for switch, value in (("rp_filter", "1"), ("arp_ignore", "8")):
        with contextlib.suppress(OSError):  # /proc/sys is read-only
            Path(f"/proc/sys/net/ipv4/conf/{name}/{switch}").write_text(value)


def disable_ipv6(name: str) -> None:
    """Have no IPv6 on a bridge: what a container writes in raw IPv6 frames is not to be routed."""
    with contextlib.suppress(OSError):  # no such bridge, no IPv6, or /proc/sys is read-only
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")


def delete_bridge(netlink: Netlink, name: str) -> None:
    """Delete a bridge; one that is not there is fine."""
    netlink.transact([rtnetlink.delete_link(name)], tolerate=frozenset({errno.ENODEV}))


def enable_loopback(name: str) -> str | None:
    """Let ports be published at 127.0.0.1 (`route_localnet`, ip-sysctl.rst); a warning when that fails.

    Only once the table is in place, which keeps containers from 127.0.0.0/8.
    """
    try:
        Path(f"/proc/sys/net/ipv4/conf/{name}/route_localnet").write_text("1")
    except OSError as error:
        return f"published ports do not answer at 127.0.0.1 (route_localnet of {name}: {error.strerror})"
    return None


def disable_loopback(name: str) -> None:
    """Let ports be published at 127.0.0.1 no more, before the table that keeps containers from it goes."""
    with contextlib.suppress(OSError):  # the bridge is gone
        Path(f"/proc/sys/net/ipv4/conf/{name}/route_localnet").write_text("0")


def answer_for_neighbours(name: str, wanted: bool) -> None:
    """Let a bridge answer the ARP questions of its isolated ports for one another with its own MAC address.

    `proxy_arp_pvlan` (ip-sysctl.rst) and `proxy_delay` (arp(7)). With /proc/sys read-only, it does not.
    """
    switch = Path(f"/proc/sys/net/ipv4/conf/{name}/proxy_arp_pvlan")
    with contextlib.suppress(OSError):
        if switch.read_text().strip() != str(int(wanted)):
            Path(f"/proc/sys/net/ipv4/neigh/{name}/proxy_delay").write_text("0")  # else up to 0.8 s
            switch.write_text(str(int(wanted)))


def enable_forwarding() -> str | None:
    """Switch IPv4 forwarding on when it is off; a warning when that is not possible."""
    try:
        if IP_FORWARD.read_text().strip() == "1":
            return None
        IP_FORWARD.write_text("1")
    except OSError as error:
        return (
            f"IPv4 forwarding is disabled and cannot be enabled ({error.strerror}): "
            "containers reach the host only"
        )
    return None


def enable_forwarding6() -> str | None:
    """Switch IPv6 forwarding on when it is off; a warning when that is not possible.

    The kernel then takes no more router advertisements on interfaces whose `accept_ra` is 1; those that the
    host has its own default route from get 2, so that it is not cut off.
    """
    try:
        if IP6_FORWARD.read_text().strip() == "1":
            return None
        for switch in IP6_FORWARD.parent.parent.glob("*/accept_ra"):
            if switch.parent.name not in ("all", "default", "lo") and switch.read_text().strip() == "1":
                switch.write_text("2")
        _IP6_FORWARD_NEW.write_text("1")
        IP6_FORWARD.write_text("1")
    except OSError as error:
        return (
            f"IPv6 forwarding is disabled and cannot be enabled ({error.strerror}): "
            "containers reach the host only by IPv6"
        )
    return None
