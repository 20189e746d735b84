"""Which address the default bridge gets at a start: `--bip`, the present, the remembered or a free one."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

from sampan.errors import InvalidParameter, Unavailable
from sampan.linux.netlink import Netlink
from sampan.network import bridge, subnets
from sampan.network.model import BridgeOptions
from sampan.network.store import NetworkStore


def settle(
    netlink: Netlink,
    store: NetworkStore,
    options: BridgeOptions,
    wanted: ipaddress.IPv4Interface | None,
    find_used: Callable[[], list[ipaddress.IPv4Network]],
    *,
    has_live: bool,
) -> tuple[ipaddress.IPv4Interface, bool, str]:
    """The address, whether the bridge is of our making, and a warning or "".

    Args:
        wanted: what the user names.
        find_used: tells what a new subnet must not overlap.
        has_live: containers live there, so that the bridge has to stay.

    Raises:
        Unavailable: no subnet is free.
    """
    name = options.name
    text, made = store.bridge(name)
    remembered = ipaddress.IPv4Interface(text) if text else None
    link, present = bridge.find(netlink, name)
    if link is not None and wanted is not None and wanted not in present and made:
        if has_live and remembered in present:
            warning = (
                f"--bip {wanted} takes effect when no container runs at the daemon's start; "
                f"{name} keeps {remembered}"
            )
            return remembered, made, warning
        bridge.delete_bridge(netlink, name)
        link, present = None, []
    if wanted is not None:
        address = wanted
    elif link is not None and present:
        address = remembered if remembered in present else present[0]
    else:
        used = find_used()
        if remembered is not None and (
            has_live or not any(remembered.network.overlaps(net) for net in used if net.prefixlen > 1)
        ):
            address = remembered
        else:
            address = _free_address(options, used)
    made = link is None or made
    store.keep_bridge(name, str(address), made)
    return address, made, ""


def _free_address(options: BridgeOptions, used: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Interface:
    pools = subnets.split(options.address_pools)[0] or subnets.DEFAULT_POOLS
    try:
        subnet = subnets.choose(pools, used)
    except InvalidParameter:
        raise Unavailable(
            "no private IPv4 range is free of this machine's own addresses and routes; choose one with --bip"
        ) from None
    return ipaddress.IPv4Interface((int(subnet.network_address) + 1, subnet.prefixlen))
