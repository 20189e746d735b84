"""Linked containers on a default bridge that keeps its containers apart (`--icc=false`).

The ports of such a bridge are isolated: no frame gets from one to another. A link's packets go by the host
instead. The bridge answers the containers' ARP questions for one another itself (`proxy_arp_pvlan`, made for
such ports), and the forward chain lets through what goes from a parent to a port of its child's, and the
answers. That is so only while there is a link: without, the bridge answers for nobody.
"""

from __future__ import annotations

import ipaddress
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from sampan.database import Database
from sampan.dataclasses import dataclass
from sampan.linux import rtnetlink
from sampan.linux.netlink import Netlink
from sampan.network.impersonation import Linked
from sampan.network.passages import Passage
from sampan.network.store import EndpointRecord

_SCHEMA = """
CREATE TABLE IF NOT EXISTS links (
    parent_id TEXT NOT NULL, child_id TEXT NOT NULL, parent_address TEXT NOT NULL,
    child_address TEXT NOT NULL, ports TEXT NOT NULL, PRIMARY KEY (parent_id, child_id)
);
"""


@dataclass(frozen=True, slots=True)
class Link:
    """What one container may reach of another.

    Attributes:
        ports: numbers and protocols, as (80, "tcp").
    """

    parent_id: str
    child_id: str
    parent_address: str
    child_address: str
    ports: tuple[tuple[int, str], ...]


def passages(links: Iterable[Link], bridge: str) -> list[Passage]:
    """What passes the firewall for these links, on this bridge."""
    return [
        Passage(
            bridge, ipaddress.IPv4Address(one.parent_address), ipaddress.IPv4Address(one.child_address), *port
        )
        for one in links
        for port in one.ports
    ]


def linked(netlink: Netlink, links: Sequence[Link], bridge: str, members: Iterable[EndpointRecord]) -> Linked:
    """Whose addresses these links go by, and from which ports of the bridge these may come.

    Args:
        members: the endpoints on the bridge.
    """
    link = rtnetlink.link_named(netlink, bridge)
    addresses = {address for one in links for address in (one.parent_address, one.child_address)}
    ids = {container_id for one in links for container_id in (one.parent_id, one.child_id)}
    return Linked(
        link.mac_address if link is not None else "",
        frozenset(map(ipaddress.IPv4Address, addresses)),
        frozenset(
            (one.veth, ipaddress.IPv4Address(one.address))
            for one in members
            if one.container_id in ids and one.veth and one.address
        ),
    )


class Linking:
    """All links of one daemon's containers that the firewall has to know. Thread-safe.

    Args:
        changed: puts them into the firewall, as `all` has them then; raises `Unavailable` or `OSError`.
    """

    def __init__(self, database: Database, changed: Callable[[], None]) -> None:
        self._database = database
        self._changed = changed
        self._lock = threading.Lock()
        database.script(_SCHEMA)
        self._links = {(one.parent_id, one.child_id): one for one in self._stored()}

    def _stored(self) -> Iterable[Link]:
        rows = self._database.execute(
            "SELECT parent_id, child_id, parent_address, child_address, ports FROM links"
        )
        for parent_id, child_id, parent, child, ports in rows:
            yield Link(parent_id, child_id, parent, child, tuple(map(tuple, json.loads(ports))))

    def all(self) -> list[Link]:
        """All there are."""
        return list(self._links.values())

    def recall(self, keep: set[str]) -> None:
        """Forget the links of containers that do not live any more."""
        for key in [key for key in self._links if not keep.issuperset(key)]:
            self._drop(key)

    def add(self, link: Link) -> None:
        """Open a link, in the place of what the two had before.

        Raises:
            Unavailable, OSError: it cannot be; it is not open then.
        """
        with self._lock:
            key = (link.parent_id, link.child_id)
            if self._links.get(key) == link:
                return
            self._database.execute(
                "INSERT OR REPLACE INTO links VALUES (?, ?, ?, ?, ?)",
                (*key, link.parent_address, link.child_address, json.dumps(link.ports)),
            )
            self._links[key] = link
            try:
                self._changed()
            except BaseException:
                self._drop(key)
                with suppress(Exception):  # the first error is the one to be told
                    self._changed()
                raise

    def remove(self, parent_id: str, child_id: str) -> None:
        """Close a link; one that is not open is fine."""
        with self._lock:
            if (parent_id, child_id) in self._links:
                self._drop((parent_id, child_id))
                self._changed()

    def forget(self, container_id: str) -> None:
        """Close all links of and to a container, before its address can be another's."""
        if not any(container_id in key for key in list(self._links)):
            return
        with self._lock:
            for key in [key for key in self._links if container_id in key]:
                self._drop(key)
            self._changed()

    def _drop(self, key: tuple[str, str]) -> None:
        self._links.pop(key, None)
        self._database.execute("DELETE FROM links WHERE parent_id = ? AND child_id = ?", key)
