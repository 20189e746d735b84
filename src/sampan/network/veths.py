"""The veths of containers that live: known again at a start, and joined to bridges that are new."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
from collections.abc import Callable, Sequence

from sampan.errors import Conflict
from sampan.linux import rtnetlink
from sampan.linux.netlink import Netlink
from sampan.network import flows
from sampan.network.ground import Ground
from sampan.network.store import EndpointRecord, NetworkStore

_NO_DEVICE = frozenset({errno.ENODEV})

Find = Callable[[str], Ground | None]  # by a network's id


def masters(netlink: Netlink, records: Sequence[EndpointRecord]) -> dict[str, int]:
    """Which bridges the veths of containers that live are ports of, by network."""
    if not records:
        return {}
    found = {link.name: link.master for link in rtnetlink.links(netlink)}
    return {record.network_id: found.get(record.veth, 0) for record in records}


def recall(
    netlink: Netlink, store: NetworkStore, records: Sequence[EndpointRecord], keep: set[str], find: Find
) -> None:
    """Take the addresses of those who live, drop what the others had.

    One who lives may have records without a link: of a run before this one, or of a connection or
    disconnection that a crash cut short.
    """
    gone: list[EndpointRecord] = []
    names = {link.name for link in rtnetlink.links(netlink)} if records else set()
    for record in records:
        if record.container_id in keep and (not record.veth or record.veth in names):
            holder = find(record.network_id)
            if holder is not None:
                for address in record.addresses:
                    part = holder.part_of(address)
                    with contextlib.suppress(Conflict):  # an address of an earlier subnet
                        if part is not None:
                            part.pool.claim(ipaddress.ip_address(address))
        else:
            if record.veth:
                netlink.transact([rtnetlink.delete_link(record.veth)], tolerate=_NO_DEVICE)
            gone.append(record)
    if gone:
        flows.forget(address for record in gone for address in record.addresses)
        store.delete_endpoints([record.id for record in gone])


def rejoin(netlink: Netlink, store: NetworkStore, find: Find) -> None:
    """Make veths ports of their bridges (again)."""
    records = store.endpoints()
    if not records:
        return
    links = {link.name: link for link in rtnetlink.links(netlink)}
    published = set(store.published())
    for record in records:
        link, one = links.get(record.veth), find(record.network_id)
        if link is None or one is None or link.master == one.index:
            continue
        netlink.transact([rtnetlink.set_master(link.index, link.name, one.index)], tolerate=_NO_DEVICE)
        isolated, hairpin = not one.settings.icc, record.container_id in published
        if isolated or hairpin:
            port = rtnetlink.set_port(link.index, link.name, isolated=isolated, hairpin=hairpin)
            netlink.transact([port], tolerate=_NO_DEVICE)
