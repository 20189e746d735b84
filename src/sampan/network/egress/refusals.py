"""What was refused to a container."""

from __future__ import annotations

from collections.abc import Callable

from sampan.dataclasses import dataclass

NAME, ANSWER, PACKET = "name", "answer", "packet"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One thing that a container tried.

    Attributes:
        time_ns: since 1970.
        kind: `name`, one that it asked for; `answer`, an address that an allowed name was said to have;
            `packet`, the first of a connection, or what is like it.
        destination: the address, of an answer or a packet.
        protocol: "tcp", "udp", "icmp" or a number, of a packet.
        port: the destination's; 0 for none.
    """

    time_ns: int
    container_id: str
    kind: str
    name: str = ""
    destination: str = ""
    protocol: str = ""
    port: int = 0


Tell = Callable[[Refusal], None]
