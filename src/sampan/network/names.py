"""What user-defined networks tell a resolver of their members: the seam between networks and names.

`NetworkService` calls one `Names`, if it was given one. `attached`: a container has joined a user-defined
network, before its process starts or live; an earlier daemon's container is recalled; a container has other
names after a rename. `detached`: it has left. The built-in networks have no names and are not told of.
"""

from __future__ import annotations

from dataclasses import field
from typing import Protocol

from sampan.dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """A container in one user-defined network.

    Attributes:
        container_id: whose.
        sandbox: the file of its network namespace.
        network_id, network: the network's id and name.
        names: what its peers there may call it, the first being its own: container name, aliases, short id,
            host name.
        addresses: those that it has there.
        links: what it alone may call some peers there: alias to a name of the peer (`--link`).
        internal: the network has no way out.
    """

    container_id: str
    sandbox: str
    network_id: str
    network: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    links: dict[str, str] = field(default_factory=dict)
    internal: bool = False


class Names(Protocol):
    """Who answers for names. Called from worker threads, for several containers at once; returns quickly."""

    def attached(self, member: Member) -> None:
        """A container is in a network, or its names there are others now. Idempotent.

        Raises:
            OSError, SampanError: the attachment fails and is undone.
        """

    def detached(self, network_id: str, container_id: str) -> None:
        """A container is in a network no more; one that never was is fine. Raises nothing."""

    def released(self, container_id: str) -> None:
        """A container's network namespace is about to end, which nobody may keep. Raises nothing."""
