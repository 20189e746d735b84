"""The bridge network, made in a network namespace of its own by the daemon's own code."""

from __future__ import annotations

import errno
import ipaddress
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from sampan.doctor.trials.place import Place
from sampan.doctor.trials.running import Fails, NotTried, Trial
from sampan.linux import features, nftables, nftprobe, rtnetlink, syscalls
from sampan.linux.netlink import NETLINK_NETFILTER, Netlink
from sampan.network import bridge, namespace, others
from sampan.network.egress import Lane, parse
from sampan.network.egress.rules import tables
from sampan.network.firewall import Firewall, Zone

_APART = syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS
_ADDRESS = ipaddress.IPv4Interface("198.18.0.1/24")  # RFC 2544: for trying things
_ADDRESS6 = ipaddress.IPv6Interface("fd00:198:18::1/64")
_BRIDGE = "sampan-doctor"
_BRIDGES = "bridge networks; --network none and host will"
_OUTSIDE = "published ports, and connections from containers to other machines"


def _kind(kind: str) -> Callable[[Place], None]:
    def work(_: Place) -> None:
        if not bridge.supports(kind):
            found = features.diagnose(kind)
            raise Fails(f"operation not supported: {found.cause}", found.remedy)

    return work


def _container(place: Place) -> None:
    """A bridge, and a namespace that hangs on it, with address and route."""
    with Netlink() as netlink:
        wanted = bridge.Wanted(_BRIDGE, _ADDRESS, 1500)
        index = bridge.raise_bridges(netlink, [wanted])[_BRIDGE]
    port = namespace.Port(
        veth="vethdoctor",
        interface="eth0",
        bridge_index=index,
        mtu=1500,
        mac_address="02:42:c6:12:00:02",
        address=ipaddress.IPv4Interface("198.18.0.2/24"),
        isolated=True,
        hairpin=True,
    )
    path = place.make("netns") / "ns"
    namespace.create(path, [port], [_ADDRESS.ip])
    with Netlink() as netlink:
        made = {link.name: link for link in rtnetlink.links(netlink)}
    if made["vethdoctor"].master != index or not made["vethdoctor"].up:
        raise Fails("the veth pair was made, but is not up or not a port of the bridge")
    namespace.remove(path)


def _nftables(_: Place) -> None:
    missing = nftprobe.missing()
    if not missing:
        return
    parts = [(features.FEATURES[name].title, features.diagnose(name)) for name in missing]
    words = "; ".join(f"no {title}: {found.cause}" for title, found in parts)
    said = next(iter(missing.values())).strerror
    raise Fails(f"{said}: {words}", "; ".join(dict.fromkeys(found.remedy for _, found in parts)))


def _firewall(_: Place) -> None:
    firewall = Firewall(f"sampan-{_BRIDGE}")
    warnings = firewall.put([Zone(_BRIDGE, _ADDRESS.network, icc=False, masquerade=True, internal=True)])
    if not firewall.in_place:
        raise Fails(warnings[0])


def _egress(_: Place) -> None:
    """The tables that keep containers to their policies, with one in them."""
    _police(nftprobe.missing_for_egress(), f"{_ADDRESS.ip + 1}/{_ADDRESS.network.prefixlen}")


def _egress6(_: Place) -> None:
    """The same of a container with IPv6."""
    if not bridge.has_ipv6():
        raise NotTried("there is no IPv6 here")
    _police(nftprobe.missing_for_egress6(), f"{_ADDRESS6.ip + 1}/{_ADDRESS6.network.prefixlen}")


def _police(missing: Mapping[str, OSError], address: str) -> None:
    """Put an endpoint's policy in place, unless parts are missing for it.

    Raises:
        Fails: they are.
        OSError: the kernel's refusal.
    """
    lane = Lane(
        endpoint_id="doctor",
        container_id="doctor",
        network_id="doctor",
        places=(ipaddress.ip_interface(address),),
        mac="02:42:c6:12:00:02",
        veth="vethdoctor",
        policy=parse("allow:198.18.0.0/15:443,[fd00:198::/32]:443"),
        own=True,
    )
    if not missing:
        with Netlink(NETLINK_NETFILTER) as netlink:
            netlink.transact(nftables.batch(tables(f"sampan-{_BRIDGE}-egress", 0, [lane], ())))
        return
    parts = [(features.FEATURES[name].title, features.diagnose(name)) for name in missing]
    words = "; ".join(f"no {title}: {found.cause}" for title, found in parts)
    raise Fails(words, "; ".join(dict.fromkeys(found.remedy for _, found in parts)))


def _ipv6(_: Place) -> None:
    if not bridge.has_ipv6():
        raise Fails("this kernel has no IPv6, or it is switched off (ipv6.disable=1)")
    firewall, subnet = Firewall(f"sampan-{_BRIDGE}"), ipaddress.IPv6Network("fd00::/64")
    warnings = firewall.put([Zone(_BRIDGE, None, icc=False, masquerade=True, internal=False, subnet6=subnet)])
    if not firewall.in_place6:
        raise Fails(warnings[-1])


def _foreign(_: Place) -> None:
    try:
        found = others.obstacles([others.Forwarded("sampan0", frozenset((4,)))])
    except OSError as error:
        raise NotTried(f"nf_tables cannot be asked: {error.strerror}") from None
    if found:
        what, __, remedy = found[0].partition(" Mend it with ")
        raise Fails(what.rstrip("."), f"{remedy} (docs/firewall.md)")


def _forwarding(_: Place) -> str:
    if bridge.IP_FORWARD.read_text().strip() == "1":
        return "on"
    try:
        with open(bridge.IP_FORWARD, "a"):
            pass
    except OSError as error:
        if os.geteuid() != 0:
            raise NotTried("off, and only root can switch it on, as the daemon does") from None
        raise Fails(f"off, and cannot be switched on: {error.strerror}") from None
    return "off; the daemon switches it on"


def _sysctl(_: Place) -> None:
    switch = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    try:
        switch.write_text("0")
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise Fails(
                f"/proc/sys cannot be written: {error.strerror}", "`mount -o remount,rw /proc/sys`"
            ) from None
        raise


TRIALS = (
    Trial("bridge", _kind("bridge"), _BRIDGES, "bridge", True,
          apart=_APART),
    Trial("veth", _kind("veth"), _BRIDGES, "veth", True, apart=_APART),
    Trial("container on a bridge", _container, _BRIDGES, needed=True,
          apart=_APART),
    Trial("nftables", _nftables, _OUTSIDE, "nf_tables",
          True, apart=_APART),
    Trial("firewall table with NAT", _firewall,
          _OUTSIDE, "nf_tables", True, apart=_APART),
    Trial("networks with IPv6", _ipv6, "network create --ipv6", apart=_APART),
    Trial("macvlan", _kind("macvlan"), "networks of the driver macvlan", "macvlan", apart=_APART),
    Trial("ipvlan", _kind("ipvlan"), "networks of the driver ipvlan", "ipvlan", apart=_APART),
    Trial("egress policies", _egress, "--egress", "nf_tables_bridge", apart=_APART),
    Trial("egress policies with IPv6", _egress6, "--egress in networks with IPv6", "nf_tables_bridge",
          apart=_APART),
    Trial("somebody else's firewall", _foreign, "connections from containers to other machines"),
    Trial("IPv4 forwarding", _forwarding, "connections from containers to other machines",
          remedy="`sysctl -w net.ipv4.ip_forward=1`", needed=True, rootless=True, here=True),
    Trial("sysctl", _sysctl, "--sysctl", apart=syscalls.CLONE_NEWNET),
)  # fmt: skip
