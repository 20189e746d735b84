"""Make and remove one container's network namespace: the kernel half of a sandbox.

A namespace is kept by binding its file to a path (network_namespaces(7), as `ip netns` does). It is made by
a thread that ends afterwards, since a thread cannot leave a namespace and be of use to others.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from sampan.linux import features, rtnetlink
from sampan.linux.netlink import Netlink
from sampan.linux.syscalls import CLONE_NEWNET, MNT_DETACH, MS_BIND, UMOUNT_NOFOLLOW, mount, umount2, unshare
from sampan.linux.threads import in_own_thread

INTERFACE = "eth0"


@dataclass(frozen=True, slots=True)
class Port:
    """How a namespace hangs on a bridge.

    Attributes:
        veth: the host's end of the pair.
        bridge_index: the bridge it becomes a port of.
        isolated: the port may not reach other isolated ports.
        hairpin: what comes from the port may go back to it: to its own published ports, where bridged packets
            pass the firewall (bridge-nf-call-iptables).
    """

    veth: str
    bridge_index: int
    mtu: int
    mac_address: str
    address: ipaddress.IPv4Interface
    gateway: ipaddress.IPv4Address
    isolated: bool
    hairpin: bool


def create(path: Path, port: Port | None) -> None:
    """Make a namespace at `path` with its loopback up and, if `port` is given, `eth0` on the bridge.

    Nothing is left behind by a failure, save a veth that the caller is to delete by name.

    Raises:
        OSError: the kernel's refusal.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
    os.close(fd)
    try:
        with Netlink() as host:  # bound to the caller's namespace for good
            in_own_thread(lambda: _build(host, path, port))
    except BaseException:
        remove(path)
        raise


def remove(path: Path) -> None:
    """Let go of the namespace at `path`; it ends with its last process. Removing it twice is fine."""
    try:
        umount2(str(path), MNT_DETACH | UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):  # not a mount; no such file
            raise
    path.unlink(missing_ok=True)


def _build(host: Netlink, path: Path, port: Port | None) -> None:
    try:
        unshare(CLONE_NEWNET)
    except OSError as error:
        found = features.namespace_refusal(["network"], error.errno or 0)
        if found is None:
            raise
        raise OSError(error.errno, f"no network namespace: {found.cause}; {found.remedy}") from None
    mount("/proc/thread-self/ns/net", str(path), None, MS_BIND)
    if port is None:
        with Netlink() as inside:
            inside.transact([rtnetlink.set_up("lo")])
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        host.transact(
            [
                rtnetlink.create_veth(
                    port.veth,
                    master=port.bridge_index,
                    mtu=port.mtu,
                    peer_name=INTERFACE,
                    peer_mac_address=port.mac_address,
                    peer_namespace=fd,
                )
            ]
        )
    finally:
        os.close(fd)
    with contextlib.suppress(OSError):  # a kernel without IPv6 refuses this
        host.transact([rtnetlink.set_no_ipv6_address(port.veth)])
    if port.isolated or port.hairpin:
        index = next(link.index for link in rtnetlink.links(host) if link.name == port.veth)
        host.transact([rtnetlink.set_port(index, port.veth, isolated=port.isolated, hairpin=port.hairpin)])
    host.transact([rtnetlink.set_up(port.veth)])
    with Netlink() as inside:
        index = socket.if_nametoindex(INTERFACE)  # asked of the calling thread's namespace
        _disable_ipv6(inside)
        inside.transact(
            [
                rtnetlink.set_up("lo"),
                rtnetlink.add_address(index, port.address),
                rtnetlink.set_up(INTERFACE),
                rtnetlink.add_default_route(port.gateway),
            ]
        )


def _disable_ipv6(inside: Netlink) -> None:
    """No IPv6 on `eth0`, the bridge having none; `lo` keeps ::1. /proc/sys/net is the calling thread's."""
    try:
        with open(f"/proc/sys/net/ipv6/conf/{INTERFACE}/disable_ipv6", "wb", buffering=0) as file:
            file.write(b"1")
    except FileNotFoundError:
        return  # this kernel has no IPv6
    except OSError:  # /proc/sys is read-only here
        inside.transact([rtnetlink.set_no_ipv6_address(INTERFACE)])
