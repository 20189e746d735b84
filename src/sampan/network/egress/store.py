"""Which endpoints have which policy, as it outlives the daemon: one table beside that of endpoints."""

from __future__ import annotations

import ipaddress

from sampan.database import Database
from sampan.network.egress.policy import parse
from sampan.network.egress.rules import Lane, Place

_SCHEMA = """
CREATE TABLE IF NOT EXISTS egress_lanes (
    endpoint_id TEXT PRIMARY KEY, container_id TEXT NOT NULL, network_id TEXT NOT NULL, address TEXT NOT NULL,
    mac TEXT NOT NULL, veth TEXT NOT NULL, subnet TEXT NOT NULL, policy TEXT NOT NULL, own INTEGER NOT NULL
);
"""


class LaneStore:
    """The table. Every call is one short transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.script(_SCHEMA)

    def lanes(self) -> list[Lane]:
        """All there are; those whose endpoint is gone are forgotten."""
        self._database.execute("DELETE FROM egress_lanes WHERE endpoint_id NOT IN (SELECT id FROM endpoints)")
        rows = self._database.execute(
            "SELECT endpoint_id, container_id, network_id, address, mac, veth, subnet, policy, own"
            " FROM egress_lanes"
        )
        return [
            Lane(
                endpoint_id, container_id, network_id, _places(addresses, subnets), mac, veth, parse(policy),
                bool(own),
            )
            for endpoint_id, container_id, network_id, addresses, mac, veth, subnets, policy, own in rows
        ]  # fmt: skip

    def put(self, lane: Lane) -> None:
        """Write one down, in the place of what was known of its endpoint."""
        self._database.execute(
            "INSERT OR REPLACE INTO egress_lanes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                lane.endpoint_id, lane.container_id, lane.network_id,
                " ".join(str(place.ip) for place in lane.places), lane.mac, lane.veth,
                " ".join(str(place.network) for place in lane.places), lane.policy.text, int(lane.own),
            ),
        )  # fmt: skip

    def delete(self, endpoint_id: str) -> None:
        """Forget one; that of an endpoint without a policy is fine."""
        self._database.execute("DELETE FROM egress_lanes WHERE endpoint_id = ?", (endpoint_id,))


def _places(addresses: str, subnets: str) -> tuple[Place, ...]:
    """What the two columns say, IPv4 first."""
    networks = map(ipaddress.ip_network, subnets.split())
    pairs = zip(addresses.split(), networks, strict=True)
    return tuple(ipaddress.ip_interface(f"{address}/{network.prefixlen}") for address, network in pairs)
