"""Networks of the drivers macvlan and ipvlan: containers on an interface of the host's, beside the host.

Options are Docker's: `parent`, `macvlan_mode`, `ipvlan_mode`, `ipvlan_flag`; others are refused by name. The
parent is there already, or a VLAN of one that is (`eth0.10`), made when missing. Without a parent the network
is internal, on a pair of interfaces of its own that lead nowhere. (Docker takes a dummy interface for that,
which fewer kernels have.) What was made here goes with the last network that uses it.
"""

from __future__ import annotations

import errno
from dataclasses import replace

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter, SampanError, Unavailable
from sampan.linux import features, rtnetlink
from sampan.linux.netlink import Netlink
from sampan.network.bridge import supports
from sampan.network.model import PREFIX, Network, NetworkSpec
from sampan.network.settings import BridgeSettings, check_interface, check_mtu, unknown

DRIVERS = ("macvlan", "ipvlan")
_MTU = f"{PREFIX}driver.mtu"
_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}  # if_link.h
_IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
_IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
_OWN, _OWN_PEER = "dm-", "dn-"


@dataclass(frozen=True, slots=True)
class Lan:
    """How containers of such a network are attached.

    Attributes:
        kind: macvlan or ipvlan.
        parent: the host's interface.
        mode, flag: the kernel's numbers; a macvlan has no flag.
        inherits: interfaces in containers have the parent's MAC address, and none of their own.
        alone: no other network may have the parent.
        mtu: bytes; 0 for the parent's.
    """

    kind: str
    parent: str
    mode: int
    flag: int = 0
    inherits: bool = False
    alone: bool = False
    mtu: int = 0

    @property
    def own(self) -> bool:
        """Whether the parent is a pair of interfaces of this network's own."""
        return self.parent.startswith(_OWN)

    @property
    def routed(self) -> bool:
        """Whether the kernel routes at the parent what containers send, by its address alone: ipvlan's l3."""
        return self.kind == "ipvlan" and self.mode != _IPVLAN_MODES["l2"]

    @property
    def settings(self) -> BridgeSettings:
        """What it has in common with bridge networks, without a bridge."""
        return BridgeSettings(interface="", mtu=self.mtu or 1500)


def prepare(spec: NetworkSpec) -> NetworkSpec:
    """A network without a parent has no way out, as is to be seen."""
    return spec if spec.driver not in DRIVERS or spec.options.get("parent") else replace(spec, internal=True)


def parse(network: Network) -> Lan | None:
    """How a network is attached; None for one that is no macvlan or ipvlan.

    Raises:
        InvalidParameter: a value is wrong, or an option is none of the driver's.
    """
    if network.driver not in DRIVERS:
        return None
    options = dict(network.options)
    parent = options.pop("parent", "") or f"{_OWN}{network.id[:12]}"
    check_interface("parent", parent)
    if parent == "lo":
        raise InvalidParameter(f"loopback interface is not a valid {network.driver} parent link")
    mtu = check_mtu(options.pop(_MTU), _MTU) if _MTU in options else 0
    if network.driver == "macvlan":
        mode = options.pop("macvlan_mode", "") or "bridge"
        alone = mode == "passthru"
        chosen = Lan("macvlan", parent, _number(_MACVLAN_MODES, "macvlan mode", mode), 0, alone, alone, mtu)
    else:
        mode, flag = options.pop("ipvlan_mode", "") or "l2", options.pop("ipvlan_flag", "") or "bridge"
        numbers = _number(_IPVLAN_MODES, "ipvlan mode", mode), _number(_IPVLAN_FLAGS, "ipvlan flag", flag)
        chosen = Lan("ipvlan", parent, *numbers, inherits=True, mtu=mtu)
    for name in unknown(options):
        raise InvalidParameter(f"driver option {name!r} is none of the {network.driver} driver's")
    return chosen


def _number(known: dict[str, int], what: str, name: str) -> int:
    if name not in known:
        raise InvalidParameter(f"unknown {what} {name!r}: it must be one of {', '.join(known)}")
    return known[name]


def refuse_sharing(lan: Lan, network_id: str, others: dict[str, Lan]) -> None:
    """Refuse a parent that another network has, or wants, for itself alone, or in another way.

    The kernel has one mode and flag for all ipvlan interfaces of a parent, those of the last one that was
    made (drivers/net/ipvlan/ipvlan_main.c): the other network's containers would have them from then on.

    Raises:
        InvalidParameter: in Docker's words.
    """
    for other_id, other in others.items():
        if other_id == network_id or other.parent != lan.parent:
            continue
        if lan.alone:
            raise InvalidParameter(
                f"cannot use mode passthru, {other.kind} network {other_id} is already using parent "
                f"interface {lan.parent}"
            )
        if other.alone:
            raise InvalidParameter(
                f"cannot use parent interface {lan.parent}, {other.kind} network {other_id} is using it in "
                "mode passthru"
            )
        if other.kind != lan.kind:
            raise InvalidParameter(
                f"cannot use parent interface {lan.parent}, {other.kind} network {other_id} is using it: the "
                f"kernel lets it have one kind of children, and {lan.kind} is another"
            )
        if lan.kind == "ipvlan" and (other.mode, other.flag) != (lan.mode, lan.flag):
            raise InvalidParameter(
                f"cannot use parent interface {lan.parent}, ipvlan network {other_id} is using it with "
                "another ipvlan_mode or ipvlan_flag: the kernel has one of each for all children of a parent"
            )


def missing(netlink: Netlink, lan: Lan) -> bool:
    """Whether the parent is yet to be made."""
    return rtnetlink.link_named(netlink, lan.parent) is None


def raise_parent(netlink: Netlink, lan: Lan) -> int:
    """See that the parent is there and up; its index.

    Raises:
        Unavailable: the kernel lacks the kind.
        SampanError: there is no such parent, and it cannot be made.
        OSError: the kernel's refusal.
    """
    if not supports(lan.kind):
        raise Unavailable(features.lacking(lan.kind))
    link = rtnetlink.link_named(netlink, lan.parent)
    if link is None:
        if lan.own:
            peer = lan.parent.replace(_OWN, _OWN_PEER, 1)
            netlink.transact([rtnetlink.create_veth_pair(lan.parent, peer)])
            netlink.transact([rtnetlink.set_no_ipv6_address(name) for name in (lan.parent, peer)])
            netlink.transact([rtnetlink.set_up(peer)])
        else:
            _make_vlan(netlink, lan.parent)
        link = rtnetlink.link_named(netlink, lan.parent)
        if link is None:
            raise OSError(errno.ENODEV, f"{lan.parent} has gone again")
        netlink.transact([rtnetlink.set_up(lan.parent)])
    return link.index


def _make_vlan(netlink: Netlink, name: str) -> None:
    below, dot, number = name.rpartition(".")
    if not dot or not number.isdecimal() or not 0 < int(number) < 4095:
        raise InvalidParameter(
            f"there is no interface {name} for a parent, and it is no VLAN of one, which would be named as "
            "eth0.10 is"
        )
    master = rtnetlink.link_named(netlink, below)
    if master is None:
        raise InvalidParameter(f"failed to find master interface {below} on this host, for parent {name}")
    if not supports("vlan"):
        raise Unavailable(features.lacking("vlan"))
    netlink.transact([rtnetlink.create_vlan(name, master.index, int(number))])


def lower_parent(netlink: Netlink, lan: Lan) -> None:
    """Delete a parent of our making; one that is not there is fine."""
    netlink.transact([rtnetlink.delete_link(lan.parent)], tolerate=frozenset({errno.ENODEV}))


def parent_mac(netlink: Netlink, lan: Lan) -> str:
    """The parent's MAC address.

    Raises:
        SampanError: the parent has gone.
    """
    link = rtnetlink.link_named(netlink, lan.parent)
    if link is None:
        raise SampanError(f"interface {lan.parent}, the parent of the {lan.kind} network, has gone")
    return link.mac_address
