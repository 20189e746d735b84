"""Which subnet a network gets: the one that the user names, checked, or one that nothing uses.

Docker's words for what is wrong (its `ValidateIPAM`). Subnets that nobody names come from the address pools,
the lowest free one first, so that those of networks that are gone are used again. Our own pools begin with
Docker's and go on with subnets of 254 addresses below 10.64.0.0/10, for some 16,000 more networks.
"""

from __future__ import annotations

import bisect
import ipaddress
from collections.abc import Iterable, Sequence

from sampan.errors import Forbidden, InvalidParameter
from sampan.network.model import AddressPool, NetworkSpec

IPv4Address = ipaddress.IPv4Address
IPv4Network = ipaddress.IPv4Network

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
            base = IPv4Network(pool.base)
        except ValueError as error:
            raise InvalidParameter(f"default-address-pools: invalid base {pool.base!r}: {error}") from None
        if not base.prefixlen <= pool.size <= 30:
            raise InvalidParameter(
                f"default-address-pools: size {pool.size} of {pool.base} must be from {base.prefixlen} to 30"
            )


def choose(pools: Iterable[AddressPool], used: Iterable[IPv4Network]) -> IPv4Network:
    """The lowest subnet of the first pool with one that overlaps nothing in `used`.

    Routes as wide as half of all addresses (VPNs set 0.0.0.0/1 and 128.0.0.0/1) stand for a default route
    and do not count.

    Raises:
        InvalidParameter: when every subnet is taken; in Docker's words.
    """
    starts, ends = _merged([network for network in used if network.prefixlen > 1])
    for pool in pools:
        base, step = IPv4Network(pool.base), 1 << (32 - pool.size)
        candidate, last = int(base.network_address), int(base.broadcast_address)
        while candidate + step - 1 <= last:
            position = bisect.bisect_right(starts, candidate + step - 1) - 1
            if position < 0 or ends[position] < candidate:
                return IPv4Network((candidate, pool.size))
            candidate = (ends[position] // step + 1) * step  # the next one beyond what is in the way
    raise InvalidParameter("all predefined address pools have been fully subnetted")


def _merged(networks: Iterable[IPv4Network]) -> tuple[list[int], list[int]]:
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
    if not spec.subnet:
        for given in (spec.ip_range, spec.gateway, *spec.aux_addresses.values()):
            if given:
                raise InvalidParameter(
                    "invalid network config:\ninvalid subnet : invalid CIDR block notation"
                )
        return
    if problems := _problems(spec):
        raise InvalidParameter("invalid network config:\n" + "\n".join(problems))
    if IPv4Network(spec.subnet).prefixlen > 30:
        raise InvalidParameter(
            f"invalid network config:\ninvalid subnet {spec.subnet}: no room for containers"
        )


def _problems(spec: NetworkSpec) -> list[str]:
    subnet = _parsed(spec.subnet)
    if subnet is None:
        return [f"invalid subnet {spec.subnet}: invalid CIDR block notation"]
    problems = []
    if str(subnet) != str(ipaddress.IPv4Interface(spec.subnet)):
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


def _parsed(text: str) -> IPv4Network | None:
    """A network in CIDR form, its address perhaps that of a host in it."""
    try:
        return IPv4Network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


def _range_problems(text: str, subnet: IPv4Network) -> list[str]:
    inner = _parsed(text)
    if inner is None:
        return [f"invalid ip-range {text}: invalid CIDR block notation"]
    problems = []
    if inner.prefixlen < subnet.prefixlen:
        problems.append(f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}")
    if str(inner) != str(ipaddress.IPv4Interface(text)):
        problems.append(f"invalid ip-range {text}: it should be {inner}")
    if not subnet.overlaps(inner):
        problems.append(f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range")
    return problems


def _address_problem(text: str, subnet: IPv4Network) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "invalid address"
    if address.version != subnet.version:
        return f"parent subnet is an IPv{subnet.version} block"
    return "" if address in subnet else f"parent subnet {subnet} doesn't contain this address"


def refuse_overlap(subnet: IPv4Network, others: Iterable[IPv4Network]) -> None:
    """Refuse a subnet that shares addresses with another network of ours.

    Raises:
        Forbidden: in Docker's words.
    """
    if any(subnet.overlaps(other) for other in others):
        raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")


def gateway_of(spec: NetworkSpec, subnet: IPv4Network) -> IPv4Address:
    """The bridge's address: the one asked for, or the first that is no other's.

    Raises:
        InvalidParameter: it is no host's address, or there is none.
    """
    aux = {IPv4Address(address) for address in spec.aux_addresses.values()}
    ends = (subnet.network_address, subnet.broadcast_address)
    if spec.gateway:
        gateway = IPv4Address(spec.gateway)
        if gateway in ends or gateway in aux:
            raise InvalidParameter(f"invalid network config:\ninvalid gateway {gateway}: it is in use")
        return gateway
    for number in range(int(subnet.network_address) + 1, int(subnet.broadcast_address)):
        if (candidate := IPv4Address(number)) not in aux:
            return candidate
    raise InvalidParameter(f"invalid network config:\nno address of {subnet} is left for the gateway")
