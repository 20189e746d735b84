"""What of the networks must outlive a crash: the tables of networks, endpoints and published ports.

A record is there before the kernel knows of the thing and leaves after the kernel has forgotten it, so that
what a crash leaves is found by it.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Sequence

from sampan.database import Database
from sampan.dataclasses import dataclass
from sampan.errors import Conflict, NotFound
from sampan.network.model import PREDEFINED, Network
from sampan.network.ports import Addresses, Published
from sampan.oci.records import decode, encode

_SCHEMA = """
CREATE TABLE IF NOT EXISTS networks (name TEXT PRIMARY KEY, id TEXT NOT NULL, created_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS user_networks (
    id TEXT PRIMARY KEY, name TEXT UNIQUE, made INTEGER NOT NULL, document TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS bridges (name TEXT PRIMARY KEY, address TEXT NOT NULL, made INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS endpoints (
    id TEXT PRIMARY KEY, container_id TEXT NOT NULL, address TEXT NOT NULL, veth TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS endpoints_by_container ON endpoints (container_id);
CREATE TABLE IF NOT EXISTS published (
    container_id TEXT PRIMARY KEY, address TEXT NOT NULL, ports TEXT NOT NULL
);
"""
_ADDED = {  # to endpoints, since data roots exist without them; "" is the default bridge
    "network_id": "TEXT NOT NULL DEFAULT ''",
    "mac": "TEXT NOT NULL DEFAULT ''",
    "interface": "TEXT NOT NULL DEFAULT 'eth0'",
    "gw_priority": "INTEGER NOT NULL DEFAULT 0",
    "address6": "TEXT NOT NULL DEFAULT ''",
}
_COLUMNS = "id, container_id, network_id, address, mac, veth, interface, gw_priority, address6"


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """A container's place in a bridge network.

    Attributes:
        address, address6: IPv4 and IPv6, without a prefix; "" for none of that kind.
        veth: the host's end.
        interface: the container's end.
    """

    id: str
    container_id: str
    network_id: str
    address: str
    mac: str
    veth: str
    interface: str
    gw_priority: int
    address6: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those that it has."""
        return tuple(filter(None, (self.address, self.address6)))


class NetworkStore:
    """The tables. Every call is one short transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.script(_SCHEMA)
        present = {row[1] for row in database.execute("PRAGMA table_info(endpoints)")}
        for column, kind in _ADDED.items():
            if column not in present:
                database.execute(f"ALTER TABLE endpoints ADD COLUMN {column} {kind}")
        database.script("CREATE INDEX IF NOT EXISTS endpoints_by_network ON endpoints (network_id);")

    # --- networks ---

    def predefined(self) -> list[Network]:
        """The three that are always there, without their addresses."""
        drivers = {"bridge": "bridge", "host": "host", "none": "null"}
        with self._database.transaction():
            for name in PREDEFINED:
                self._database.execute(
                    "INSERT OR IGNORE INTO networks VALUES (?, ?, ?)",
                    (name, secrets.token_hex(32), time.time_ns()),
                )
            rows = self._database.execute("SELECT name, id, created_ns FROM networks")
        return sorted(
            (Network(network_id, name, drivers[name], created_ns) for name, network_id, created_ns in rows),
            key=lambda network: PREDEFINED.index(network.name),
        )

    def networks(self) -> list[tuple[Network, bool]]:
        """The user's networks, oldest first, each with whether its interface is of our making."""
        rows = self._database.execute(
            "SELECT document, made FROM user_networks WHERE name IS NOT NULL ORDER BY rowid"
        )
        return [(decode(Network, json.loads(document)), bool(made)) for document, made in rows]

    def insert(self, network: Network, made: bool) -> None:
        """Record a new network.

        Raises:
            Conflict: another one has its name; in Docker's words.
        """
        try:
            self._database.execute(
                "INSERT INTO user_networks VALUES (?, ?, ?, ?)",
                (network.id, network.name, int(made), json.dumps(encode(network))),
            )
        except sqlite3.IntegrityError:
            raise Conflict(f"network with name {network.name} already exists") from None

    def replace(self, network: Network) -> None:
        """Record what a network is now; one that has gone is fine."""
        self._database.execute(
            "UPDATE user_networks SET document = ? WHERE id = ?", (json.dumps(encode(network)), network.id)
        )

    def inherit(self, network_id: str) -> None:
        """A network's interface is ours to delete from now on."""
        self._database.execute("UPDATE user_networks SET made = 1 WHERE id = ?", (network_id,))

    def doom(self, network_id: str) -> bool:
        """Take a network's name away, so that nobody joins it any more; False if somebody is in it."""
        with self._database.transaction():
            if self._database.execute("SELECT 1 FROM endpoints WHERE network_id = ? LIMIT 1", (network_id,)):
                return False
            self._database.execute("UPDATE user_networks SET name = NULL WHERE id = ?", (network_id,))
        return True

    def doomed(self) -> list[tuple[Network, bool]]:
        """Networks whose removal has begun, as `networks`."""
        rows = self._database.execute("SELECT document, made FROM user_networks WHERE name IS NULL")
        return [(decode(Network, json.loads(document)), bool(made)) for document, made in rows]

    def forget(self, network_id: str) -> None:
        """Forget a network that is gone."""
        self._database.execute("DELETE FROM user_networks WHERE id = ?", (network_id,))

    # --- the default bridge ---

    def bridge(self, name: str) -> tuple[str, bool]:
        """The address that the default bridge of this name had last, and whether we have made it."""
        rows = self._database.execute("SELECT address, made FROM bridges WHERE name = ?", (name,))
        return (rows[0][0], bool(rows[0][1])) if rows else ("", False)

    def keep_bridge(self, name: str, address: str, made: bool) -> None:
        """Record the default bridge's address."""
        self._database.execute("INSERT OR REPLACE INTO bridges VALUES (?, ?, ?)", (name, address, int(made)))

    def forget_bridge(self, name: str) -> None:
        """Forget the default bridge."""
        self._database.execute("DELETE FROM bridges WHERE name = ?", (name,))

    # --- endpoints ---

    def adopt_endpoints(self, default_network_id: str) -> None:
        """Give endpoints of data roots that knew one network alone their network."""
        self._database.execute(
            "UPDATE endpoints SET network_id = ? WHERE network_id = ''", (default_network_id,)
        )

    def endpoints(self, container_id: str | None = None) -> list[EndpointRecord]:
        """All endpoints, or a container's."""
        if container_id is None:
            rows = self._database.execute(f"SELECT {_COLUMNS} FROM endpoints")
        else:
            rows = self._database.execute(
                f"SELECT {_COLUMNS} FROM endpoints WHERE container_id = ?", (container_id,)
            )
        return [EndpointRecord(*row) for row in rows]

    def members(self, network_id: str) -> list[EndpointRecord]:
        """The endpoints in a network."""
        rows = self._database.execute(f"SELECT {_COLUMNS} FROM endpoints WHERE network_id = ?", (network_id,))
        return [EndpointRecord(*row) for row in rows]

    def add_endpoints(self, records: Sequence[EndpointRecord], predefined_id: str) -> None:
        """Record endpoints, all or none.

        Raises:
            NotFound: a network has gone meanwhile.
        """
        with self._database.transaction():
            for record in records:
                if record.network_id != predefined_id and not self._database.execute(
                    "SELECT 1 FROM user_networks WHERE id = ? AND name IS NOT NULL", (record.network_id,)
                ):
                    raise NotFound(f"network {record.network_id} not found")
                self._database.execute(
                    f"INSERT INTO endpoints ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(record.id, record.container_id, record.network_id, record.address, record.mac),
                        *(record.veth, record.interface, record.gw_priority, record.address6),
                    ),
                )

    def delete_endpoints(self, ids: Sequence[str]) -> None:
        """Forget endpoints; those that are not there are fine."""
        with self._database.transaction():
            for endpoint_id in ids:
                self._database.execute("DELETE FROM endpoints WHERE id = ?", (endpoint_id,))

    # --- published ports ---

    def published(self) -> dict[str, tuple[Addresses, list[Published]]]:
        """Container id to the addresses that its ports go to, and the ports."""
        rows = self._database.execute("SELECT container_id, address, ports FROM published")
        return {
            container_id: (tuple(address.split()), [Published(*entry) for entry in json.loads(ports)])
            for container_id, address, ports in rows
        }

    def published_addresses(self, container_id: str) -> Addresses:
        """The addresses that a container's published ports go to; none when it has none."""
        rows = self._database.execute("SELECT address FROM published WHERE container_id = ?", (container_id,))
        return tuple(str(rows[0][0]).split()) if rows else ()

    def keep_published(self, container_id: str, addresses: Addresses, published: Sequence[Published]) -> None:
        """Record what a container publishes, and where it goes."""
        entries = json.dumps(
            [
                [one.protocol, one.port, one.host_ip, one.host_port, one.proxied, one.routed]
                for one in published
            ]
        )
        self._database.execute(
            "INSERT OR REPLACE INTO published VALUES (?, ?, ?)", (container_id, " ".join(addresses), entries)
        )

    def forget_published(self, container_id: str) -> None:
        """Forget what a container has published."""
        self._database.execute("DELETE FROM published WHERE container_id = ?", (container_id,))
