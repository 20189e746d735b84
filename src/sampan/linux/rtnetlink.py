"""Links, addresses and routes (rtnetlink(7), Linux `include/uapi/linux/{rtnetlink,if_link,if_addr}.h`).

Functions named after what they ask for return a `Message` for `Netlink.transact`; `links`, `addresses` and
`routes` list what there is.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

from sampan.dataclasses import dataclass
from sampan.linux.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    Message,
    Netlink,
    attribute,
    attributes,
    nested,
    text,
    u8,
    u32,
)

_RTM_NEWLINK = 16
_RTM_DELLINK = 17
_RTM_GETLINK = 18
_RTM_SETLINK = 19
_RTM_NEWADDR = 20
_RTM_GETADDR = 22
_RTM_NEWROUTE = 24
_RTM_DELROUTE = 25
_RTM_GETROUTE = 26

_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_LINK = 5
_IFLA_MASTER = 10
_IFLA_PROTINFO = 12
_IFLA_LINKINFO = 18
_IFLA_AF_SPEC = 26
_IFLA_NET_NS_FD = 28
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2
_IFLA_INET6_ADDR_GEN_MODE = 8
_IN6_ADDR_GEN_MODE_NONE = 1
_IFLA_BRPORT_MODE = 4
_IFLA_BRPORT_ISOLATED = 33
_VETH_INFO_PEER = 1
_VLAN_ID = 1
_MACVLAN_MODE = 1
_IPVLAN_MODE, _IPVLAN_FLAGS = 1, 2

_FAMILIES: dict[int, int] = {4: socket.AF_INET, 6: socket.AF_INET6}
_IFA_F_NODAD = 2
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_BROADCAST = 4
_RTA_DST = 1
_RTA_OIF = 4
_RTA_GATEWAY = 5
_RT_TABLE_MAIN = 254
_RTPROT_BOOT = 3
_RTN_UNICAST = 1
_RT_SCOPE_LINK = 253
_RT_SCOPE_NOWHERE = 255  # matches any

IFF_UP = 1

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface as the kernel lists it; `kind` is "" for hardware and the loopback."""

    index: int
    name: str
    up: bool
    kind: str
    master: int
    mac_address: str


@dataclass(frozen=True, slots=True)
class Address:
    """An IPv4 address of an interface."""

    index: int
    interface: ipaddress.IPv4Interface


def _mac(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))


def _new(body: bytes, what: str) -> Message:
    return Message(_RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, body, what)


def create_bridge(name: str, mac_address: str, mtu: int) -> Message:
    """Make a bridge, down. A MAC address of its own does not change with the ports that come and go."""
    body = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    body += text(_IFLA_IFNAME, name) + attribute(_IFLA_ADDRESS, _mac(mac_address)) + u32(_IFLA_MTU, mtu)
    body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "bridge"))
    return _new(body, f"create bridge {name}")


def create_veth(
    name: str, *, master: int, mtu: int, peer_name: str, peer_mac_address: str, peer_namespace: int
) -> Message:
    """Make a veth pair, both ends down, one a port of bridge `master`, the other in another namespace.

    Args:
        master: index of the bridge.
        peer_namespace: a descriptor of the network namespace of the other end.
    """
    peer = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    peer += text(_IFLA_IFNAME, peer_name) + attribute(_IFLA_ADDRESS, _mac(peer_mac_address))
    peer += u32(_IFLA_MTU, mtu) + u32(_IFLA_NET_NS_FD, peer_namespace)
    body = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    body += text(_IFLA_IFNAME, name) + u32(_IFLA_MTU, mtu) + u32(_IFLA_MASTER, master)
    body += nested(
        _IFLA_LINKINFO,
        text(_IFLA_INFO_KIND, "veth"),
        nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, peer)),
    )
    return _new(body, f"create veth pair {name}")


def create_veth_pair(name: str, peer_name: str) -> Message:
    """Make a veth pair, both ends down and here."""
    peer = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + text(_IFLA_IFNAME, peer_name)
    data = nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, peer))
    body = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + text(_IFLA_IFNAME, name)
    body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "veth"), data)
    return _new(body, f"create veth pair {name}")


def create_vlan(name: str, parent: int, number: int) -> Message:
    """Make an interface for one VLAN of the link with index `parent`, down."""
    body = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    body += text(_IFLA_IFNAME, name) + u32(_IFLA_LINK, parent)
    data = nested(_IFLA_INFO_DATA, attribute(_VLAN_ID, struct.pack("=H", number)))
    body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "vlan"), data)
    return _new(body, f"create VLAN interface {name}")


def create_child(
    kind: str, name: str, *, parent: int, mode: int, flag: int, mac_address: str, mtu: int, namespace: int
) -> Message:
    """Make a macvlan or ipvlan interface of a link of this namespace's in another one, down.

    Args:
        parent: index of the link.
        mode, flag: `MACVLAN_MODE_…`, or `IPVLAN_MODE_…` and `IPVLAN_F_…`.
        mac_address: "" for the kernel's choice.
        mtu: 0 for the parent's.
        namespace: a descriptor of the network namespace.
    """
    body = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    body += text(_IFLA_IFNAME, name) + u32(_IFLA_LINK, parent) + u32(_IFLA_NET_NS_FD, namespace)
    if mac_address:
        body += attribute(_IFLA_ADDRESS, _mac(mac_address))
    if mtu:
        body += u32(_IFLA_MTU, mtu)
    if kind == "macvlan":
        data = nested(_IFLA_INFO_DATA, u32(_MACVLAN_MODE, mode))
    else:
        numbers = ((_IPVLAN_MODE, mode), (_IPVLAN_FLAGS, flag))
        data = nested(_IFLA_INFO_DATA, *(attribute(one, struct.pack("=H", value)) for one, value in numbers))
    body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, kind), data)
    return _new(body, f"create {kind} interface {name}")


def probe_kind(kind: str) -> Message:
    """A request that always fails and makes nothing: with EOPNOTSUPP when the kernel lacks this kind of link.

    A multicast MAC address is refused by the kind's own check, which comes after the kind was looked up.
    """
    body = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    body += attribute(_IFLA_ADDRESS, b"\x01\0\0\0\0\0") + nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, kind))
    return _new(body, f"probe for {kind}")


def _set(body: bytes, name: str, what: str, index: int = 0, flags: int = 0, change: int = 0) -> Message:
    head = _IFINFO.pack(socket.AF_UNSPEC, 0, index, flags, change)
    if not index:
        head += text(_IFLA_IFNAME, name)
    return Message(_RTM_NEWLINK, NLM_F_ACK, head + body, f"{what} {name or index}")


def set_up(name: str = "", index: int = 0) -> Message:
    """Bring a link up, given by name or index."""
    return _set(b"", name, "bring up", index, IFF_UP, IFF_UP)


def set_master(index: int, name: str, master: int) -> Message:
    """Make a link a port of the bridge with index `master`."""
    return _set(u32(_IFLA_MASTER, master), name, "set the bridge of", index)


def set_no_ipv6_address(name: str) -> Message:
    """Give the link no link-local IPv6 address, and so no duplicate address detection, when it comes up."""
    mode = nested(socket.AF_INET6, u8(_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE))
    return _set(nested(_IFLA_AF_SPEC, mode), name, "set the IPv6 address mode of")


def set_port(index: int, name: str, *, isolated: bool, hairpin: bool) -> Message:
    """How a bridge treats one of its ports (`bridge link set … isolated … hairpin …`).

    Args:
        isolated: it reaches the bridge and no other isolated port.
        hairpin: what came from it may leave by it again.
    """
    body = _IFINFO.pack(socket.AF_BRIDGE, 0, index, 0, 0)
    body += nested(
        _IFLA_PROTINFO, u8(_IFLA_BRPORT_MODE, int(hairpin)), u8(_IFLA_BRPORT_ISOLATED, int(isolated))
    )
    return Message(_RTM_SETLINK, NLM_F_ACK, body, f"set up bridge port {name}")


def delete_link(name: str) -> Message:
    """Delete a link; a veth takes its peer along."""
    body = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + text(_IFLA_IFNAME, name)
    return Message(_RTM_DELLINK, NLM_F_ACK, body, f"delete link {name}")


def add_address(index: int, interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> Message:
    """Give link `index` an address, an IPv4 one with its broadcast address.

    An IPv6 one is used at once: who chooses it sees to it that nobody else has it (`nodad`).
    """
    network = interface.network
    flags = 0 if network.version == 4 else _IFA_F_NODAD
    body = _IFADDR.pack(_FAMILIES[network.version], network.prefixlen, flags, 0, index)
    body += attribute(_IFA_LOCAL, interface.packed) + attribute(_IFA_ADDRESS, interface.packed)
    if network.version == 4 and network.prefixlen < 31:
        body += attribute(_IFA_BROADCAST, network.broadcast_address.packed)
    return Message(_RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, body, f"add address {interface}")


def add_default_route(gateway: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Message:
    """Send everything that has no other route to `gateway`, which must be reachable already."""
    family = _FAMILIES[gateway.version]
    body = _RTMSG.pack(family, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, 0, _RTN_UNICAST, 0)
    body += attribute(_RTA_GATEWAY, gateway.packed)
    return Message(
        _RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, body, f"add default route via {gateway}"
    )


def add_direct_default_route(index: int, version: int) -> Message:
    """Send everything that has no other route by link `index`, as if all were on it."""
    scope = _RT_SCOPE_LINK if version == 4 else 0
    body = _RTMSG.pack(_FAMILIES[version], 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, scope, _RTN_UNICAST, 0)
    body += u32(_RTA_OIF, index)
    return Message(
        _RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, body, f"add default route by link {index}"
    )


def delete_default_route(version: int = 4) -> Message:
    """Delete an IP version's default route of the main table, whichever it is; ESRCH when there is none."""
    body = _RTMSG.pack(_FAMILIES[version], 0, 0, 0, _RT_TABLE_MAIN, 0, _RT_SCOPE_NOWHERE, 0, 0)
    return Message(_RTM_DELROUTE, NLM_F_ACK, body, "delete the default route")


def rename_link(index: int, name: str) -> Message:
    """Give a link another name; kernels before 6.2 want it down."""
    body = _IFINFO.pack(socket.AF_UNSPEC, 0, index, 0, 0) + text(_IFLA_IFNAME, name)
    return Message(_RTM_NEWLINK, NLM_F_ACK, body, f"rename link {index} to {name}")


def set_down(index: int) -> Message:
    """Take a link down, given by index."""
    return _set(b"", "", "take down", index, 0, IFF_UP)


def link_named(netlink: Netlink, name: str) -> Link | None:
    """The link of this name in the socket's namespace; None when there is none."""
    body = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + text(_IFLA_IFNAME, name)
    try:
        answers = netlink.dump(Message(_RTM_GETLINK, NLM_F_ACK, body, f"look for link {name}"))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return next((_link(answer) for kind, answer in answers if kind == _RTM_NEWLINK), None)


def links(netlink: Netlink) -> list[Link]:
    """Every link of the socket's namespace."""
    request = Message(_RTM_GETLINK, NLM_F_DUMP, _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0), "list links")
    return [_link(body) for kind, body in netlink.dump(request) if kind == _RTM_NEWLINK]


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    members = dict(attributes(body[_IFINFO.size :]))
    info = dict(attributes(members.get(_IFLA_LINKINFO, b"")))
    return Link(
        index=index,
        name=_name(members.get(_IFLA_IFNAME, b"")),
        up=bool(flags & IFF_UP),
        kind=_name(info.get(_IFLA_INFO_KIND, b"")),
        master=struct.unpack("=I", members[_IFLA_MASTER])[0] if _IFLA_MASTER in members else 0,
        mac_address=members.get(_IFLA_ADDRESS, b"").hex(":"),
    )


def _name(payload: bytes) -> str:
    return payload.rstrip(b"\0").decode(errors="replace")


def addresses(netlink: Netlink) -> list[Address]:
    """Every IPv4 address of the socket's namespace."""
    request = Message(_RTM_GETADDR, NLM_F_DUMP, _IFADDR.pack(socket.AF_INET, 0, 0, 0, 0), "list addresses")
    found = []
    for kind, body in netlink.dump(request):
        if kind != _RTM_NEWADDR:
            continue
        _, prefix_len, _, _, index = _IFADDR.unpack_from(body)
        members = dict(attributes(body[_IFADDR.size :]))
        packed = members.get(_IFA_LOCAL) or members.get(_IFA_ADDRESS)
        if packed is not None:
            found.append(Address(index, ipaddress.IPv4Interface((packed, prefix_len))))
    return found


def routes(netlink: Netlink) -> list[ipaddress.IPv4Network]:
    """The destinations of all IPv4 routes in all tables, but for default and local ones."""
    return [ipaddress.IPv4Network(one) for one in _destinations(netlink, socket.AF_INET)]


def routes6(netlink: Netlink) -> list[ipaddress.IPv6Network]:
    """As `routes`, of IPv6; what an interface has an address in is among them."""
    return [ipaddress.IPv6Network(one) for one in _destinations(netlink, socket.AF_INET6)]


def _destinations(netlink: Netlink, family: int) -> list[tuple[bytes, int]]:
    head = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, _RTN_UNICAST, 0)  # kernels from 5.0 on sort out
    request = Message(_RTM_GETROUTE, NLM_F_DUMP, head, "list routes")
    found = []
    for kind, body in netlink.dump(request):
        if kind != _RTM_NEWROUTE:
            continue
        _, prefix_len, _, _, _, _, _, route_type, _ = _RTMSG.unpack_from(body)
        destination = dict(attributes(body[_RTMSG.size :])).get(_RTA_DST)
        if destination is not None and prefix_len and route_type == _RTN_UNICAST:
            found.append((destination, prefix_len))
    return found
