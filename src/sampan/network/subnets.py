"""Which subnet a network gets: the one that the user names, checked, or one that nothing uses.

Docker's words for what is wrong (its `ValidateIPAM`). Subnets that nobody names come from the address pools,
the lowest free one first, so that those of networks that are gone are used again. Our own pools begin with
Docker's and go on with subnets of 254 addresses below 10.64.0.0/10, for some 16,000 more networks.
"""

from __future__ import annotations

import bisect
import hashlib
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sampan.errors import Forbidden, InvalidParameter
from sampan.network.model import AddressPool, BridgeOptions, NetworkSpec, Pool

IPv4Network = ipaddress.IPv4Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_POOLS = (
    *(AddressPool(f"172.{second}.0.0/16", 16) for second in range(18, 32)),
    AddressPool("192.168.0.0/16", 20),
    AddressPool("10.64.0.0/10", 24),
)


def check_pools(pools: Sequence[AddressPool]) -> None:
    """Refuse pools that are none.

    Raises:
        InvalidParameter: with what is wrong.
    """
    for pool in pools:
        try:
            base = ipaddress.ip_network(pool.base)
        except ValueError as error:
            raise InvalidParameter(f"default-address-pools: invalid base {pool.base!r}: {error}") from None
        most = base.max_prefixlen - 2
        if not base.prefixlen <= pool.size <= most:
            raise InvalidParameter(
                f"default-address-pools: size {pool.size} of {pool.base} must be from {base.prefixlen} to "
                f"{most}"
            )


def split(pools: Iterable[AddressPool]) -> tuple[list[AddressPool], list[AddressPool]]:
    """The pools of IPv4 and those of IPv6."""
    found: tuple[list[AddressPool], list[AddressPool]] = [], []
    for pool in pools:
        found[":" in pool.base].append(pool)
    return found


def ula_pool(identity: str) -> AddressPool:
    """The pool of IPv6 subnets of a daemon that was given none: a /48 of its own below fd00::/8 (RFC 4193).

    Args:
        identity: what tells daemons apart and stays the same.
    """
    number = 0xFD << 40 | int.from_bytes(hashlib.sha256(identity.encode()).digest()[:5], "big")
    return AddressPool(str(ipaddress.IPv6Network((number << 80, 48))), 64)


def of_default(options: BridgeOptions, identity: str) -> Pool | None:
    """The IPv6 addresses of the default bridge; None for none.

    Without a choice of the user's it is the last /64 of the daemon's own pool, of which networks get the
    first ones: so it is the same at each start.

    Raises:
        InvalidParameter: a choice that cannot be, in one line.
    """
    if not options.ipv6:
        for name, given in (("bip6", options.bip6), ("fixed-cidr-v6", options.fixed_cidr_v6)):
            if given:
                raise InvalidParameter(f"{name}: {given} is for a default bridge with IPv6: set ipv6 as well")
        return None
    if options.bip6:
        try:
            bridge = ipaddress.IPv6Interface(options.bip6)
        except ValueError as error:
            raise InvalidParameter(
                f"bip6: {options.bip6!r} is not an IPv6 address in CIDR form ({error})"
            ) from None
        pool = Pool(str(bridge.network), options.fixed_cidr_v6 or "", str(bridge.ip))
    elif options.fixed_cidr_v6:
        pool = Pool(options.fixed_cidr_v6)
    else:
        ours = ipaddress.IPv6Network(ula_pool(identity).base)
        pool = Pool(str(ipaddress.IPv6Network((int(ours.broadcast_address) >> 64 << 64, 64))))
    try:
        _check(pool, 6)
        return replace(pool, gateway=str(gateway_of(pool, ipaddress.ip_network(pool.subnet))))
    except InvalidParameter as error:
        raise InvalidParameter(f"bip6, fixed-cidr-v6: {error.message.splitlines()[-1]}") from None


def choose(pools: Iterable[AddressPool], used: Iterable[IPv4Network]) -> IPv4Network:
    """The lowest subnet of the first pool with one that overlaps nothing in `used`.

    Routes as wide as half of all addresses (VPNs set 0.0.0.0/1 and 128.0.0.0/1) stand for a default route
    and do not count.

    Raises:
        InvalidParameter: when every subnet is taken; in Docker's words.
    """
    return IPv4Network(_choose(pools, used))


def choose6(pools: Iterable[AddressPool], used: Iterable[ipaddress.IPv6Network]) -> ipaddress.IPv6Network:
    """As `choose`, of IPv6."""
    return ipaddress.IPv6Network(_choose(pools, used))


def _choose(pools: Iterable[AddressPool], used: Iterable[IPNetwork]) -> tuple[int, int]:
    """The first address and the prefix length."""
    starts, ends = _merged([network for network in used if network.prefixlen > 1])
    for pool in pools:
        base = ipaddress.ip_network(pool.base)
        step = 1 << (base.max_prefixlen - pool.size)
        candidate, last = int(base.network_address), int(base.broadcast_address)
        while candidate + step - 1 <= last:
            position = bisect.bisect_right(starts, candidate + step - 1) - 1
            if position < 0 or ends[position] < candidate:
                return candidate, pool.size
            candidate = (ends[position] // step + 1) * step  # the next one beyond what is in the way
    raise InvalidParameter("all predefined address pools have been fully subnetted")


def _merged(networks: Iterable[IPNetwork]) -> tuple[list[int], list[int]]:
    """First and last addresses of ranges, in order, without overlaps and gaps of nothing between them."""
    starts: list[int] = []
    ends: list[int] = []
    for first, last in sorted((int(one.network_address), int(one.broadcast_address)) for one in networks):
        if ends and first <= ends[-1] + 1:
            ends[-1] = max(ends[-1], last)
        else:
            starts.append(first)
            ends.append(last)
    return starts, ends


def check(spec: NetworkSpec) -> None:
    """Check the addresses of a network that is to be made.

    Raises:
        InvalidParameter: with everything that is wrong, in Docker's words.
    """
    if spec.ipv4 is None and spec.ipv6 is None:
        raise InvalidParameter("IPv4 or IPv6 must be enabled")
    for pool, version in ((spec.ipv4, 4), (spec.ipv6, 6), *((one, one.version) for one in spec.more)):
        if pool is not None:
            _check(pool, version)
    for pool in spec.unused:
        if pool.version == 4:
            _check(pool, 4)
        elif _parsed(pool.subnet) is None:
            raise InvalidParameter(
                f"invalid network config:\ninvalid subnet {pool.subnet}: invalid CIDR block notation"
            )


def _check(pool: Pool, version: int) -> None:
    if not pool.subnet:
        for given in (pool.ip_range, pool.gateway, *pool.aux_addresses.values()):
            if given:
                raise InvalidParameter(
                    "invalid network config:\ninvalid subnet : invalid CIDR block notation"
                )
        return
    if problems := _problems(pool, version):
        raise InvalidParameter("invalid network config:\n" + "\n".join(problems))
    subnet = ipaddress.ip_network(pool.subnet)
    if subnet.prefixlen > subnet.max_prefixlen - 2:
        raise InvalidParameter(
            f"invalid network config:\ninvalid subnet {pool.subnet}: no room for containers"
        )
    if subnet.version == 6 and (subnet.is_link_local or subnet.is_multicast):
        raise InvalidParameter(
            f"invalid network config:\ninvalid subnet {pool.subnet}: link-local and multicast addresses are "
            "no network's"
        )


def _problems(spec: Pool, version: int) -> list[str]:
    subnet = _parsed(spec.subnet)
    if subnet is None or subnet.version != version:
        return [f"invalid subnet {spec.subnet}: invalid CIDR block notation"]
    problems = []
    if str(subnet) != str(ipaddress.ip_interface(spec.subnet)):
        problems.append(f"invalid subnet {spec.subnet}: it should be {subnet}")
    if spec.ip_range:
        problems += _range_problems(spec.ip_range, subnet)
    for what, address in (
        (f"gateway {spec.gateway}", spec.gateway),
        *((f"auxiliary address {name}", address) for name, address in spec.aux_addresses.items()),
    ):
        if address and (problem := _address_problem(address, subnet)):
            problems.append(f"invalid {what}: {problem}")
    return problems


def _parsed(text: str) -> IPNetwork | None:
    """A network in CIDR form, its address perhaps that of a host in it."""
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


def _range_problems(text: str, subnet: IPNetwork) -> list[str]:
    inner = _parsed(text)
    if inner is None:
        return [f"invalid ip-range {text}: invalid CIDR block notation"]
    if inner.version != subnet.version:
        return [f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block"]
    problems = []
    if inner.prefixlen < subnet.prefixlen:
        problems.append(f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}")
    if str(inner) != str(ipaddress.ip_interface(text)):
        problems.append(f"invalid ip-range {text}: it should be {inner}")
    if not _overlap(subnet, inner):
        problems.append(f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range")
    return problems


def _address_problem(text: str, subnet: IPNetwork) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "invalid address"
    if address.version != subnet.version:
        return f"parent subnet is an IPv{subnet.version} block"
    return "" if address in subnet else f"parent subnet {subnet} doesn't contain this address"


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return (
        one.version == other.version
        and int(one.network_address) <= int(other.broadcast_address)
        and int(other.network_address) <= int(one.broadcast_address)
    )


def refuse_overlap(subnet: IPNetwork, others: Iterable[IPNetwork]) -> None:
    """Refuse a subnet that shares addresses with another network of ours.

    Raises:
        Forbidden: in Docker's words.
    """
    if any(_overlap(subnet, other) for other in others):
        raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")


def overlapping(pools: Iterable[Pool]) -> bool:
    """Whether two of these subnets share addresses."""
    known: list[IPNetwork] = []
    for pool in pools:
        subnet = ipaddress.ip_network(pool.subnet)
        if any(_overlap(subnet, other) for other in known):
            return True
        known.append(subnet)
    return False


def gateway_of(pool: Pool, subnet: IPNetwork) -> IPAddress:
    """The bridge's address: the one asked for, or the first that is no other's.

    Raises:
        InvalidParameter: it is no host's address, or there is none.
    """
    aux = {ipaddress.ip_address(address) for address in pool.aux_addresses.values()}
    ends = (subnet.network_address, subnet.broadcast_address)
    if pool.gateway:
        gateway = ipaddress.ip_address(pool.gateway)
        if gateway in ends or gateway in aux:
            raise InvalidParameter(f"invalid network config:\ninvalid gateway {gateway}: it is in use")
        return gateway
    for number in range(int(subnet.network_address) + 1, int(subnet.broadcast_address)):
        if (candidate := type(subnet.network_address)(number)) not in aux:
            return candidate
    raise InvalidParameter(f"invalid network config:\nno address of {subnet} is left for the gateway")
