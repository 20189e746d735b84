"""Make, change and remove one container's network namespace: the kernel half of a sandbox.

A namespace is kept by binding its file to a path (network_namespaces(7), as `ip netns` does). It is made and
changed by a thread that ends afterwards, since a thread that has left the host's is of no use to others.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from sampan.dataclasses import dataclass
from sampan.linux import features, procfs, rtnetlink
from sampan.linux.namespaces import join_path
from sampan.linux.netlink import Message, Netlink
from sampan.linux.syscalls import CLONE_NEWNET, MNT_DETACH, MS_BIND, UMOUNT_NOFOLLOW, mount, umount2, unshare
from sampan.linux.threads import in_own_thread
from sampan.network.lans import Lan

_NO_ROUTE = frozenset({errno.ESRCH, errno.EAFNOSUPPORT, errno.EOPNOTSUPP})


@dataclass(frozen=True, slots=True)
class Direct:
    """A default route without a gateway: by this interface, of an IP version."""

    interface: str
    version: int


Gateway = ipaddress.IPv4Address | ipaddress.IPv6Address | Direct
Gateways = Sequence[Gateway]


@dataclass(frozen=True, slots=True)
class Port:
    """How a namespace hangs on a bridge.

    Attributes:
        veth: the host's end of the pair; "" where there is none.
        interface: the other end.
        bridge_index: the bridge it becomes a port of, or the parent of its `lan`.
        isolated: the port may not reach other isolated ports.
        hairpin: what comes from the port may go back to it: to its own published ports, where bridged packets
            pass the firewall (bridge-nf-call-iptables).
        address6: without one the interface has no IPv6 at all.
        lan: it hangs on no bridge, but directly on an interface of the host's.
        sysctls: files below /proc/sys, and what is written to them before the interface comes up.
    """

    veth: str
    interface: str
    bridge_index: int
    mtu: int
    mac_address: str
    address: ipaddress.IPv4Interface | None
    isolated: bool
    hairpin: bool
    more_addresses: tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, ...] = ()
    address6: ipaddress.IPv6Interface | None = None
    sysctls: tuple[tuple[str, str], ...] = ()
    lan: Lan | None = None


def create(path: Path, ports: Sequence[Port] = (), gateways: Gateways = ()) -> None:
    """Make a namespace at `path` with its loopback up and an interface for each port.

    Nothing is left behind by a failure, save veths that the caller is to delete by name.

    Args:
        gateways: where the default routes go; they must be in the ports' networks.

    Raises:
        OSError: the kernel's refusal.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
    os.close(fd)

    def build() -> None:
        _leave_hosts()
        mount("/proc/thread-self/ns/net", str(path), None, MS_BIND)
        with Netlink() as inside:
            messages = [rtnetlink.set_up("lo")]
            for port in ports:
                messages += _plug(host, inside, path, port)
            messages += map(_default_route, gateways)
            inside.transact(messages)

    try:
        with Netlink() as host:  # bound to the caller's namespace for good
            in_own_thread(build)
    except BaseException:
        remove(path)
        raise


def plug(path: Path, port: Port) -> None:
    """Give the namespace at `path` one more interface.

    Raises:
        OSError: the kernel's refusal; the caller is to delete the veth by name.
    """

    def add() -> None:
        join_path("network", str(path))
        with Netlink() as inside:
            inside.transact(_plug(host, inside, path, port))

    with Netlink() as host:
        in_own_thread(add)


def unplug(path: Path, interface: str) -> None:
    """Delete an interface of the namespace at `path`; one that is not there is fine.

    Raises:
        OSError: the kernel's refusal.
    """

    def delete() -> None:
        join_path("network", str(path))
        with Netlink() as inside:
            inside.transact([rtnetlink.delete_link(interface)], tolerate=frozenset({errno.ENODEV}))

    in_own_thread(delete)


def set_gateways(path: Path, gateways: Gateways, versions: Sequence[int]) -> None:
    """Let the default routes of the namespace at `path` go to `gateways`.

    Args:
        versions: the IP versions whose route is replaced, or taken away for want of a gateway.

    Raises:
        OSError: the kernel's refusal.
    """

    def change() -> None:
        join_path("network", str(path))
        with Netlink() as inside:
            # Whatever it was; there may be none. A failure to add the new one is told.
            for version in versions:
                inside.transact([rtnetlink.delete_default_route(version)], tolerate=_NO_ROUTE)
            for one in gateways:
                if one.version in versions:
                    inside.transact([_default_route(one)])

    in_own_thread(change)


def _default_route(gateway: Gateway) -> Message:
    if isinstance(gateway, Direct):  # the interface's number is that in the calling thread's namespace
        index = socket.if_nametoindex(gateway.interface)
        return rtnetlink.add_direct_default_route(index, gateway.version)
    return rtnetlink.add_default_route(gateway)


def remove(path: Path) -> None:
    """Let go of the namespace at `path`; it ends with its last process. Removing it twice is fine."""
    try:
        umount2(str(path), MNT_DETACH | UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):  # not a mount; no such file
            raise
    path.unlink(missing_ok=True)


def _leave_hosts() -> None:
    """Be in a new network namespace, for the calling thread."""
    try:
        unshare(CLONE_NEWNET)
    except OSError as error:
        found = features.namespace_refusal(["network"], error.errno or 0)
        if found is None:
            raise
        raise OSError(error.errno, f"no network namespace: {found.cause}; {found.remedy}") from None


def _plug(host: Netlink, inside: Netlink, path: Path, port: Port) -> list[Message]:
    """Make a veth pair, its host's end ready; what is still to be asked of the calling thread's namespace."""
    if port.lan is not None:
        _put_child(host, path, port, port.lan)
        return _dress(inside, port)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        host.transact(
            [
                rtnetlink.create_veth(
                    port.veth,
                    master=port.bridge_index,
                    mtu=port.mtu,
                    peer_name=port.interface,
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
        link = rtnetlink.link_named(host, port.veth)
        if link is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), port.veth)
        ways = rtnetlink.set_port(link.index, port.veth, isolated=port.isolated, hairpin=port.hairpin)
        host.transact([ways])
    host.transact([rtnetlink.set_up(port.veth)])
    return _dress(inside, port)


def _put_child(host: Netlink, path: Path, port: Port, lan: Lan) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    mac_address = "" if lan.inherits else port.mac_address
    try:
        host.transact(
            [
                rtnetlink.create_child(
                    lan.kind, port.interface, parent=port.bridge_index, mode=lan.mode, flag=lan.flag,
                    mac_address=mac_address, mtu=lan.mtu, namespace=fd,
                )
            ]
        )  # fmt: skip
    finally:
        os.close(fd)


def _dress(inside: Netlink, port: Port) -> list[Message]:
    """What is still to be asked of the calling thread's namespace for an interface that is there."""
    index = socket.if_nametoindex(port.interface)  # asked of the calling thread's namespace
    addresses = [*([port.address] if port.address is not None else ()), *port.more_addresses]
    # In the /proc of all, the kernel would look for the thread's sys/net among those of all containers.
    proc = procfs.open_private()
    try:
        if port.address6 is None:
            _disable_ipv6(proc, inside, port.interface)
        else:
            _enable_ipv6(proc, port.interface)
            addresses.append(port.address6)
        for file, value in port.sysctls:
            _set(proc, file.replace("IFNAME", port.interface), value)
    finally:
        os.close(proc)
    return [
        *(rtnetlink.add_address(index, address) for address in addresses),
        rtnetlink.set_up(port.interface),
    ]


def _enable_ipv6(proc: int, interface: str) -> None:
    """IPv6 on an interface: as the kernel has it, but its own address is used at once, and no router's word.

    Anybody in a network may send router advertisements (CAP_NET_RAW is among what containers have).
    """
    for switch, value in (("accept_dad", "0"), ("accept_ra", "0"), ("disable_ipv6", "0")):
        with contextlib.suppress(OSError):  # /proc/sys is read-only here: as the kernel has it, then
            _set(proc, f"net/ipv6/conf/{interface}/{switch}", value)


def _set(proc: int, file: str, value: str) -> None:
    """Write to a file below /proc/sys; /proc/sys/net is the thread's."""
    fd = os.open(f"sys/{file}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _disable_ipv6(proc: int, inside: Netlink, interface: str) -> None:
    """No IPv6 on an interface, the bridge having none; `lo` keeps ::1. /proc/sys/net is the thread's."""
    try:
        _set(proc, f"net/ipv6/conf/{interface}/disable_ipv6", "1")
    except FileNotFoundError:
        return  # this kernel has no IPv6
    except OSError:  # /proc/sys is read-only here
        inside.transact([rtnetlink.set_no_ipv6_address(interface)])
