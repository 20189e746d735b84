"""Keeps the kernel to the policies: who is policed, what is open, and that nobody else changes it.

A lane is written down before the kernel knows of it. What names were answered with is the kernel's to forget;
it is known here too, so that the tables can be put back whole, and a new daemon takes it from the tables that
the last one has left.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from sampan.database import Database
from sampan.errors import SampanError, Unavailable
from sampan.linux import conntrack, features, nftables, nftprobe
from sampan.linux.netlink import NETLINK_NETFILTER, Message, Netlink
from sampan.linux.nflog import Logged
from sampan.linux.nftables import absence_allowed
from sampan.network.egress import rules
from sampan.network.egress.openings import Held, Openings
from sampan.network.egress.policy import IPAddress, Policy, reachable_by_name
from sampan.network.egress.refusals import ANSWER, NAME, PACKET, Refusal, Tell
from sampan.network.egress.rules import Lane, Opening
from sampan.network.egress.store import LaneStore
from sampan.network.egress.watching import Watching
from sampan.resolver.protocol import LONGEST_TTL_S

log = logging.getLogger("sampan.network")

SHORTEST_HOLD_S = 60  # who is told that an answer is not to be kept still has to connect
GRACE_S = 30  # for who connects at the last moment
MOST_OPENINGS = 4096  # of one endpoint
_FIRST_GROUP, _GROUPS = 0x5A00, 0x100  # of nfnetlink_log, away from what people choose by hand
_FEW = 64
_PROTOCOLS = {
    socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_ICMP: "icmp",
    socket.IPPROTO_ICMPV6: "icmpv6",
}  # fmt: skip


class Guard:
    """The policies of one daemon. Thread-safe.

    Args:
        table: what our tables are called.
        enabled: whether the daemon is to have tables at all.

    Attributes:
        tell: is told of what is refused; from several threads, and it raises nothing.
    """

    def __init__(self, database: Database, table: str, *, enabled: bool = True) -> None:
        self.tell: Tell = lambda refusal: None
        self._table = table
        self._enabled = enabled
        self._group = _FIRST_GROUP + zlib.crc32(table.encode()) % _GROUPS
        self._store = LaneStore(database)
        self._lock = threading.RLock()
        self._lanes: dict[str, dict[str, Lane]] = {}  # by container and endpoint
        self._containers: dict[str, str] = {}  # by endpoint
        self._openings = Openings()
        self._gone: deque[Lane] = deque(maxlen=_FEW)  # whose last packets may still be told of
        self._netlink: Netlink | None = None
        self._watching: Watching | None = None
        self._made = False

    # --- start and stop ---

    def start(self) -> list[str]:
        """Take on what an earlier daemon has left; returns warnings."""
        with self._lock:
            self._lanes, self._containers, self._openings = {}, {}, Openings()
            for lane in self._store.lanes():
                self._know(lane)
            if not self._containers:
                self._clear()
                return []
            try:
                self._recall_openings()
                self._put()
            except (OSError, SampanError) as error:
                return [f"the egress policies of running containers cannot be put in place: {error}"]
            return []

    def _clear(self) -> None:
        try:
            with Netlink(NETLINK_NETFILTER) as netlink:
                if nftables.table_exists(self._table):
                    netlink.transact(nftables.batch(rules.without(self._table)))
            rules.drop_ip6(self._table)
        except OSError:
            return  # a kernel without nf_tables has no tables of ours either

    def _recall_openings(self) -> None:
        now, sources = time.monotonic(), {address for lane in self._all() for address in lane.addresses}
        with Netlink(NETLINK_NETFILTER) as netlink:
            if not nftables.table_exists(self._table):
                return
            for one in rules.NAMED_SETS:
                with absence_allowed():  # the table of family ip6 is there while an endpoint has IPv6
                    for element in one.elements(netlink, self._table):
                        opening = Opening.of(element)
                        if opening.source in sources:
                            self._openings.put({opening: Held(now + element.seconds)})

    def close(self) -> None:
        """Watch no more; the tables stay for the containers that live on."""
        with self._lock:
            watching, self._watching = self._watching, None
            netlink, self._netlink = self._netlink, None
        if watching is not None:
            watching.close()
        if netlink is not None:
            netlink.close()

    def lower(self) -> None:
        """Take the tables away when no endpoint has a policy."""
        if not self._containers and self._made:
            self.close()
            self._clear()
            self._made = False

    # --- endpoints ---

    def lanes(self, container_id: str) -> list[Lane]:
        """A container's endpoints that have a policy."""
        return list(self._lanes.get(container_id, {}).values())

    def lane(self, endpoint_id: str) -> Lane | None:
        """The lane of an endpoint, if it has a policy."""
        return self._lanes.get(self._containers.get(endpoint_id, ""), {}).get(endpoint_id)

    def admit(self, lane: Lane, *, fresh: bool) -> None:
        """Let an endpoint have a policy.

        Args:
            fresh: it cannot have sent anything yet; else what it has begun is judged anew.

        Raises:
            Unavailable: this machine cannot enforce one, or is not to; the message says why.
        """
        if not self._enabled:
            raise Unavailable(
                "egress policies cannot be enforced: that takes nftables tables of our own, which are "
                "switched off (--iptables=false)"
            )
        with self._lock:
            self._store.put(lane)
            self._know(lane)
            try:
                change = [*rules.entry(lane), *rules.destinations(lane)]
                self._change(rules.added(self._table, change))
                if not fresh:
                    _forget_flows(lane)
            except OSError as error:
                self.dismiss(lane.endpoint_id)
                raise Unavailable(f"egress policies cannot be enforced: {_lack(error)}") from error

    def dismiss(self, endpoint_id: str) -> None:
        """An endpoint has no policy any more, or is gone; one that had none is fine."""
        if endpoint_id not in self._containers:
            return
        with self._lock:
            container_id = self._containers.pop(endpoint_id, "")
            lane = self._lanes.get(container_id, {}).pop(endpoint_id, None)
            if lane is None:
                return
            if not self._lanes[container_id]:
                del self._lanes[container_id]
            theirs = [one for address in lane.addresses for one in self._openings.drop(address)]
            old = [*rules.entry(lane), *rules.destinations(lane)]
            try:
                self._change([*rules.deleted(self._table, old), *rules.closed(self._table, theirs)])
            except OSError as error:  # what stays there closes, and is swept with the tables
                log.warning("the egress policy of %s cannot be taken away: %s", lane.addresses[0], error)
            self._gone.appendleft(lane)
            self._store.delete(endpoint_id)

    def change(self, endpoint_id: str, policy: Policy, *, own: bool) -> None:
        """Give an endpoint that has a policy another one; what it has begun is judged anew.

        Raises:
            Unavailable: the kernel refuses; the policy is the old one.
        """
        with self._lock:
            old = self.lane(endpoint_id)
            if old is None:
                return
            new = replace(old, policy=policy, own=own)
            changed = {
                one: held
                for address in old.addresses
                for one, held in self._openings.under(address, policy, MOST_OPENINGS).items()
            }
            now, over = time.monotonic(), [one for one, held in changed.items() if held is None]
            left = [(one, held.until - now) for one, held in changed.items() if held is not None]
            self._store.put(new)
            self._know(new)
            messages = [
                *rules.deleted(self._table, rules.destinations(old)),
                *rules.closed(self._table, over),
                *rules.added(self._table, rules.destinations(new)),
                *rules.opened(self._table, left),
            ]
            before = self._openings.put(changed)
            try:
                self._change(messages)
                _forget_flows(old)
            except OSError as error:
                self._store.put(old)
                self._know(old)
                self._openings.put(before)
                with suppress(OSError):  # it may have been the flows alone
                    self._put()
                raise Unavailable(f"the egress policy cannot be changed: {_lack(error)}") from error

    def _know(self, lane: Lane) -> None:
        self._lanes.setdefault(lane.container_id, {})[lane.endpoint_id] = lane
        self._containers[lane.endpoint_id] = lane.container_id

    def _all(self) -> list[Lane]:
        return [lane for lanes in self._lanes.values() for lane in lanes.values()]

    # --- names ---

    def open(self, container_id: str, name: str, addresses: Iterable[tuple[str, int]]) -> bool:
        """Open the addresses that a name was answered with; whether the container may know them.

        Args:
            name: in lower case, without a dot at its end.
            addresses: with the seconds that the answer may be kept.
        """
        now = time.monotonic()
        found: dict[Opening, float] = {}
        with self._lock:
            said = [
                (lane, ports) for lane in self.lanes(container_id) for ports in lane.policy.ports_of(name)
            ]
            if not said:
                return False
            for text, ttl_s in addresses:
                address = ipaddress.ip_address(text)
                hold = min(max(ttl_s, SHORTEST_HOLD_S), LONGEST_TTL_S) + GRACE_S
                for lane, ports in said:
                    if reachable_by_name(address):
                        for source in lane.addresses:
                            if source.version == address.version:
                                opening = Opening(source, address, ports)
                                found[opening] = max(now + hold, found.get(opening, 0))
                    elif not lane.policy.covers(address):
                        self.tell(Refusal(time.time_ns(), container_id, ANSWER, name, text))
                        return False
            return not found or self._open(found, name)

    def name_refused(self, container_id: str, name: str) -> None:
        """A container has asked for a name that its policy does not have."""
        self.tell(Refusal(time.time_ns(), container_id, NAME, name))

    def _open(self, found: dict[Opening, float], name: str) -> bool:
        changes: dict[Opening, Held | None] = {}
        for opening, until in found.items():
            held = self._openings.find(opening) or Held(0)
            changes[opening] = Held(max(until, held.until), {name} | held.names)
        for source in {opening.source for opening in found}:
            if len(self._openings.of(source).keys() | found) > MOST_OPENINGS:
                log.warning("%s has %d addresses open by name: no more are", source, MOST_OPENINGS)
                return False
        before = self._openings.put(changes)
        now = time.monotonic()
        left = [(opening, held.until - now) for opening, held in changes.items() if held is not None]
        try:
            self._change(rules.opened(self._table, left))
        except OSError as error:
            log.error("%s cannot be opened: %s", name, error)
            self._openings.put(before)
            return False
        return True

    def openings(self, container_id: str) -> list[tuple[Opening, Held]]:
        """What a container may reach at present since it knows it by name."""
        with self._lock:
            return [
                pair
                for lane in self.lanes(container_id)
                for address in lane.addresses
                for pair in self._openings.of(address).items()
            ]

    # --- the kernel ---

    def _change(self, messages: Sequence[Message]) -> None:
        """Change the tables; when that fails, put them in place whole, as all is known here.

        Raises:
            OSError: the kernel does not take them.
        """
        if self._watching is not None and self._netlink is not None:
            try:
                self._netlink.transact(nftables.batch(list(messages)))
                return
            except OSError:  # removed by somebody, or an element is there that should not be
                pass
        self._put()

    def _put(self) -> None:
        if self._netlink is None:
            self._netlink = Netlink(NETLINK_NETFILTER)
        if self._watching is None:
            self._watching = Watching(
                self._table, self._group, self._netlink.port, self._refused, self._changed
            )
        self._made = True
        left, lanes = list(self._openings.left()), self._all()
        self._netlink.transact(nftables.batch(rules.tables(self._table, self._group, lanes, left)))
        if not any(map(rules.has_ipv6, lanes)):
            rules.drop_ip6(self._table)  # what an earlier daemon has left there is nobody's

    def _changed(self) -> None:
        """Somebody else has changed the tables: put them back."""
        with self._lock:
            if self._watching is None or not self._containers:
                return
            try:
                self._put()
            except OSError as error:
                log.error("the tables of the egress policies were changed and cannot be put back: %s", error)
            else:
                log.warning("the tables of the egress policies were changed by somebody: put back")

    def _refused(self, packet: Logged) -> None:
        with self._lock:
            known = [*self._all(), *self._gone]
            name = self._openings.name_of(packet.source, packet.destination)
        for lane in known:
            if packet.source in lane.addresses:
                protocol = _PROTOCOLS.get(packet.protocol, str(packet.protocol))
                self.tell(
                    Refusal(
                        time.time_ns(), lane.container_id, PACKET, name,
                        str(packet.destination), protocol, packet.port,
                    )
                )  # fmt: skip
                return


def _forget_flows(lane: Lane) -> None:
    """Let the next packet of each flow that the endpoint has begun be judged as a first one."""
    theirs: tuple[IPAddress, ...] = lane.addresses
    packed = [address.packed for address in theirs]
    conntrack.delete(conntrack.flows(packed, lambda flow: flow.source in theirs))


def _lack(error: OSError) -> str:
    """What the kernel refuses, with the part that it lacks where that can be known."""
    missing = "; ".join(features.lacking(name) for name in nftprobe.missing_for_egress())
    return f"{error.strerror or error}{'; ' + missing if missing else ''}"
