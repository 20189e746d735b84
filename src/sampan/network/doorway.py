"""A container's way to the resolver: sockets in its network namespace, and 127.0.0.11:53 leading to them.

The sockets have ports of the kernel's choice, and an nftables table in the namespace writes port 53 of
127.0.0.11 over with them on the way out and back on the way in. So the container may itself listen at port 53
of any address. Docker does it by address translation; plain rewriting needs no connection tracking, which the
namespace would then pay for with each packet. Where a container has rules of its own that track connections,
they see the sockets' ports both ways. Sockets and table go with the namespace.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
from contextlib import ExitStack, suppress

from sampan.dataclasses import dataclass
from sampan.linux import nftables
from sampan.linux.namespaces import join_path
from sampan.linux.reuse import IP_RECVERR
from sampan.linux.threads import in_own_thread
from sampan.resolver.protocol import ADDRESS, TCP_OUTLETS, UDP_OUTLETS

log = logging.getLogger("sampan.network")

_TABLE = "sampan-resolver"
_PORT = 53
_TCP, _UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
_BACKLOG = 32
_SO_RCVBUFFORCE = 33
_QUEUE_BYTES = 1 << 19  # doubled by the kernel, which counts 768 for a question
_HERE = ipaddress.IPv4Network(ADDRESS)
_FLAGS = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK


@dataclass(frozen=True, slots=True)
class Doorway:
    """What was opened.

    Attributes:
        ends: in the order that the protocol says; they are to be handed on and closed.
        ports: by UDP and by TCP, which lead there.
    """

    ends: list[socket.socket]
    ports: tuple[int, int]

    def close(self) -> None:
        """Close the sockets, which somebody else holds."""
        for end in self.ends:
            end.close()


def open_doorway(path: str, ports: tuple[int, int] | None = None) -> Doorway:
    """Open the resolver's sockets in the namespace at `path`.

    On a kernel whose nftables cannot lead there, the sockets have port 53 themselves, and the container
    cannot listen at port 53 of all its addresses.

    Args:
        ports: those that 127.0.0.11:53 leads to already, from an earlier doorway whose sockets are gone.

    Raises:
        OSError: there is no such namespace, or no descriptor left.
    """

    def work() -> Doorway:
        join_path("network", path)
        if ports is not None:
            with suppress(OSError):  # somebody has them now
                return Doorway(_open(ports), ports)
        ends = _open((0, 0))
        found = ends[0].getsockname()[1], ends[1].getsockname()[1]
        try:
            _lead_to(found)
        except OSError as error:
            log.warning("containers cannot have port 53 themselves: nftables: %s", error)
            for end in ends:
                end.close()
            found = (_PORT, _PORT)
            ends = _open(found)
        return Doorway(ends, found)

    return in_own_thread(work)


def _open(ports: tuple[int, int]) -> list[socket.socket]:
    with ExitStack() as undo:
        kinds = [socket.SOCK_DGRAM, socket.SOCK_STREAM]
        kinds += [socket.SOCK_DGRAM] * UDP_OUTLETS + [socket.SOCK_STREAM] * TCP_OUTLETS
        ends = [undo.enter_context(socket.socket(socket.AF_INET, kind | _FLAGS)) for kind in kinds]
        for end, port in zip(ends, ports, strict=False):
            if end.type == socket.SOCK_STREAM:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of before linger
            end.bind((ADDRESS, port))
        with suppress(OSError):  # CAP_NET_ADMIN is missing; the default holds 250 questions
            ends[0].setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _QUEUE_BYTES)
        ends[1].listen(_BACKLOG)
        for end in ends[2 : 2 + UDP_OUTLETS]:
            end.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        undo.pop_all()
        return ends


def _lead_to(ports: tuple[int, int]) -> None:
    pairs = tuple(zip((_UDP, _TCP), ports, strict=True))
    there, back = nftables.ip_daddr(_HERE), nftables.ip_saddr(_HERE)
    query = nftables.Chain(
        "query", "filter", nftables.HOOK_OUTPUT, nftables.PRIORITY_RAW,
        tuple(
            nftables.Rule(there + nftables.rewrite_port(kind, _PORT, port, source=False))
            for kind, port in pairs
        ),
    )  # fmt: skip
    answer = nftables.Chain(
        "answer", "filter", nftables.HOOK_INPUT, nftables.PRIORITY_LAST,
        tuple(
            nftables.Rule(back + nftables.rewrite_port(kind, port, _PORT, source=True))
            for kind, port in pairs
        ),
    )  # fmt: skip
    try:
        nftables.add_table(_TABLE, (query, answer))
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
        nftables.replace_table(_TABLE, (query, answer))
