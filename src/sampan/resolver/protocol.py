"""What the daemon tells the resolver: JSON packets with descriptors beside them, as `sampan.runtime.wire` has
them.

    resolver  {"event": "hello", "version": …, "askers": […], "more": false}
    daemon    {"op": "begin"}   then each `member` and `asker` there is, then   {"op": "end"}
    daemon    {"op": "member", …}   {"op": "leave", "network_id": …, "container_id": …}
    daemon    {"op": "asker", …} + sockets, or none where the resolver has them
    daemon    {"op": "forget", "container_id": …}   of all its networks
    daemon    {"op": "lives", "container_id": …} + a pidfd   {"op": "drop", "container_id": …}
    resolver  {"event": "trouble", "text": …}
    resolver  {"event": "open", "id": …, "container_id": …, "name": …, "addresses": [[address, seconds], …]}
    daemon    {"op": "opened", "id": …, "open": true}
    resolver  {"event": "refused", "container_id": …, "name": …}

What was there before `begin` and is not named until `end` is forgotten. The sockets are, in this order, the
ones that `Doorway` counts.
"""

from __future__ import annotations

from dataclasses import asdict, field
from typing import Any

from sampan.dataclasses import dataclass

PROTOCOL = 3
ADDRESS = "127.0.0.11"
UDP_OUTLETS = 3
TCP_OUTLETS = 2
SOCKETS = 2 + UDP_OUTLETS + TCP_OUTLETS  # where questions come in by UDP and by TCP, then where they go out
IDS_IN_PACKET = 1000
LONGEST_TTL_S = 3600  # of what a container with an egress policy is answered: so long its addresses are open


@dataclass(frozen=True, slots=True)
class Upstream:
    """A name server that is asked what we do not know.

    Attributes:
        address: numeric.
        scope: the interface's index, for a link-local IPv6 address.
        from_host: it is asked from the host's network namespace, not from the container's.
    """

    address: str
    from_host: bool = False
    scope: int = 0


@dataclass(frozen=True, slots=True)
class Membership:
    """A container in a network, by its names and addresses there.

    Attributes:
        names: the first is the container's own, which PTR queries are answered with.
        links: what this container alone calls some others there: alias to a name.
        internal: the network has no way out.
    """

    container_id: str
    network_id: str
    network: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    links: dict[str, str] = field(default_factory=dict)
    internal: bool = False


@dataclass(frozen=True, slots=True)
class AskerOptions:
    """A container that asks.

    Attributes:
        ndots_set: its resolv.conf was given an `ndots`: names without a dot are not sent upstream.
        outside: it is on a network beside those with names that has a way out.
        gated: names, `*.` and names, or `*`, whose addresses are opened to it before it hears of them.
        restricted: no other names are asked of upstreams.
        ipv6: one that is restricted has an IPv6 address: without, nobody is told of others'.
    """

    container_id: str
    upstreams: tuple[Upstream, ...] = ()
    ndots_set: bool = False
    outside: bool = False
    gated: tuple[str, ...] = ()
    restricted: bool = False
    ipv6: bool = False


def encode(value: Membership | AskerOptions) -> dict[str, Any]:
    """As JSON."""
    return {"op": "member" if isinstance(value, Membership) else "asker", **asdict(value)}


def decode_member(message: dict[str, Any]) -> Membership:
    """A `Membership` from JSON."""
    fields = {name: value for name, value in message.items() if name != "op"}
    return Membership(**{**fields, "names": tuple(fields["names"]), "addresses": tuple(fields["addresses"])})


def decode_asker(message: dict[str, Any]) -> AskerOptions:
    """An `AskerOptions` from JSON."""
    fields = {name: value for name, value in message.items() if name != "op"}
    upstreams = tuple(Upstream(**one) for one in fields["upstreams"])
    return AskerOptions(**{**fields, "upstreams": upstreams, "gated": tuple(fields["gated"])})
