"""The host's side of the bridge network: the bridge itself, forwarding, and our own nftables table.

The table `sampan-<bridge>` (family ip) is ours alone, and no other table is ever touched. That has a limit
which nf_tables sets: a packet must pass every table's base chain, so a DROP policy that somebody else's
forward chain has (ufw, firewalld, Docker) still drops, whatever ours accepts; `start` warns about one.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from sampan.errors import InvalidParameter, Unavailable
from sampan.linux import features, nftables, nftmaps, nftprobe, rtnetlink
from sampan.linux.netlink import Netlink
from sampan.network.model import BridgeOptions

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")
_ALREADY = frozenset({errno.EEXIST})


def table_name(bridge: str) -> str:
    """The name of our nftables table for a bridge."""
    return f"sampan-{bridge}"


def check_name(name: str) -> None:
    """Refuse what cannot be an interface's name.

    Raises:
        InvalidParameter: with the rule.
    """
    if not 0 < len(name.encode()) <= 15 or name in (".", "..") or any(c.isspace() or c in "/:" for c in name):
        raise InvalidParameter(f"bridge: {name!r} is not an interface name (1 to 15 bytes, no space, / or :)")


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
    link = next((link for link in rtnetlink.links(netlink) if link.name == name), None)
    if link is None:
        return None, []
    if link.kind != "bridge":
        raise InvalidParameter(f"bridge: interface {name} exists and is not a bridge; choose another name")
    return link, [found.interface for found in rtnetlink.addresses(netlink) if found.index == link.index]


def used_networks(netlink: Netlink) -> list[ipaddress.IPv4Network]:
    """What a new subnet must not overlap: the host's addresses and routes."""
    own = [found.interface.network for found in rtnetlink.addresses(netlink)]
    return own + rtnetlink.routes(netlink)


def raise_bridge(netlink: Netlink, options: BridgeOptions, address: ipaddress.IPv4Interface) -> int:
    """Make the bridge if it is missing, see that it has its address and is up; its index."""
    link, addresses = find(netlink, options.name)
    if link is None:
        # The same one each time, so that containers that live through its loss need not ask for it again.
        mac_address = "02:42:" + address.packed.hex(":")
        netlink.transact([rtnetlink.create_bridge(options.name, mac_address, options.mtu)])
        with contextlib.suppress(OSError):  # a kernel without IPv6 refuses this
            netlink.transact([rtnetlink.set_no_ipv6_address(options.name)])
        link, addresses = find(netlink, options.name)
        assert link is not None
    if address not in addresses:
        netlink.transact([rtnetlink.add_address(link.index, address)], tolerate=_ALREADY)
    netlink.transact([rtnetlink.set_up(index=link.index)])
    return link.index


def enable_loopback(name: str) -> str | None:
    """Let ports be published at 127.0.0.1 (`route_localnet`, ip-sysctl.rst); a warning when that fails.

    Only once the table is in place, which keeps containers from 127.0.0.0/8.
    """
    try:
        Path(f"/proc/sys/net/ipv4/conf/{name}/route_localnet").write_text("1")
    except OSError as error:
        return f"published ports do not answer at 127.0.0.1 (route_localnet of {name}: {error.strerror})"
    return None


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


def put_firewall(
    options: BridgeOptions, subnet: ipaddress.IPv4Network, published: Sequence[nftmaps.Redirection] = ()
) -> tuple[bool, list[str]]:
    """Put our table in place: whether it is, and warnings when it cannot be or cannot suffice.

    The destination of what is for a published port is rewritten, both when it arrives (`prerouting`) and when
    the host itself sends it (`output`). What goes back to the bridge that it came from, or comes from the
    host's loopback, gets the bridge's address as source, or its answers would not come this way.
    """
    name = options.name
    into, out_of = nftables.oifname(name), nftables.iifname(name)
    verdict = nftables.accept() if options.icc else nftables.drop()
    states = nftables.ct_state(nftables.CT_ESTABLISHED | nftables.CT_RELATED)
    forward = nftables.Chain(
        "forward",
        "filter",
        nftables.HOOK_FORWARD,
        nftables.PRIORITY_FILTER,
        (
            nftables.Rule(into + nftables.ct_status_dnat() + nftables.accept()),
            nftables.Rule(out_of + into + verdict),
            nftables.Rule(into + states + nftables.accept()),
            nftables.Rule(out_of + nftables.accept()),
            nftables.Rule(into + nftables.drop()),  # what is not published is nobody else's
        ),
    )
    masquerade = nftables.Rule(
        nftables.ip_saddr(subnet) + nftables.oifname(name, equal=False) + nftables.masquerade()
    )
    postrouting = nftables.Chain(
        "postrouting",
        "nat",
        nftables.HOOK_POSTROUTING,
        nftables.PRIORITY_SRCNAT,
        ((masquerade,) if options.ip_masq else ())
        + tuple(
            nftables.Rule(
                nftables.ip_saddr(source) + into + nftables.ct_status_dnat() + nftables.masquerade()
            )
            for source in (subnet, _LOOPBACK)
        ),
    )
    at, anywhere = nftmaps.MAPS
    redirect = (nftables.Rule(at.rule()), nftables.Rule(nftables.fib_daddr_local() + anywhere.rule()))
    prerouting = nftables.Chain(
        "prerouting", "nat", nftables.HOOK_PREROUTING, nftables.PRIORITY_DSTNAT, redirect
    )
    output = nftables.Chain("output", "nat", nftables.HOOK_OUTPUT, nftables.PRIORITY_DSTNAT, redirect)
    # The bridge may route 127.0.0.0/8, for ports published there: containers may not.
    guard = nftables.Chain(
        "guard", "filter", nftables.HOOK_PREROUTING, nftables.PRIORITY_RAW,
        (nftables.Rule(out_of + nftables.ip_daddr(_LOOPBACK) + nftables.drop()),),
    )  # fmt: skip
    maps = [one.message(table_name(name), number) for number, one in enumerate(nftmaps.MAPS, 1)]
    maps += [message for one in nftmaps.MAPS for message in one.add(table_name(name), published)]
    try:
        nftables.replace_table(
            table_name(name), (guard, prerouting, output, forward, postrouting), tuple(maps)
        )
        others = nftables.dropping_forward_chains()
    except OSError as error:
        why = "; ".join(features.lacking(part) for part in nftprobe.missing())
        return False, [
            f"no nftables table could be made ({error.strerror}{'; ' + why if why else ''}): "
            "containers have no outbound NAT and publish no ports"
        ]
    return True, [
        f"nftables table {chain.table} drops forwarded packets by default (chain {chain.name}): allow "
        f"interface {name} there if containers cannot reach other machines"
        for chain in others
    ]
