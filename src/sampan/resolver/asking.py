"""One container that asks: its sockets at 127.0.0.11, and what becomes of its questions.

An internal name is answered from the table, whatever is asked about it: what we know never goes upstream. The
rest is forwarded, where the container has a way out.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import suppress

from sampan.resolver.attempts import HostOutlets, NamespaceOutlets
from sampan.resolver.clock import Clock
from sampan.resolver.forwarding import Count, Forwarder
from sampan.resolver.gatekeeper import Gatekeeper
from sampan.resolver.permits import Permits
from sampan.resolver.protocol import UDP_OUTLETS, AskerOptions
from sampan.resolver.streams import Listener
from sampan.resolver.table import Table, View
from sampan.resolver.wire import (
    AAAA,
    ANY,
    IN,
    LARGEST_BYTES,
    NOTIMP,
    NXDOMAIN,
    PTR,
    SERVFAIL,
    ZONE_TRANSFERS,
    A,
    Query,
    Refusal,
    answer,
    parse,
)
from sampan.runtime.loop import Loop

_BURST = 16  # questions of one container before others have their turn
_MOST_UDP_QUESTION = 2048


class Asker:
    """One container.

    Args:
        ends: its sockets, in the order that `sampan.resolver.protocol` says.
        catch_up: called between a question and its answer: whoever asks after a container has started, or was
            renamed, is answered accordingly. It may close this.
        gate: what answers pass whose addresses are to be opened.
    """

    def __init__(
        self,
        container_id: str,
        ends: list[socket.socket],
        table: Table,
        loop: Loop,
        clock: Clock,
        host: HostOutlets,
        total: Count,
        catch_up: Callable[[], None],
        gate: Gatekeeper,
    ) -> None:
        for end in ends:
            end.setblocking(False)
        self._container_id = container_id
        self._table = table
        self._loop = loop
        self._catch_up = catch_up
        self._udp = ends[0]
        self._inside = NamespaceOutlets(loop, ends[2 : 2 + UDP_OUTLETS], ends[2 + UDP_OUTLETS :])
        self._forwarder = Forwarder(container_id, clock, self._inside, host, total)
        self._gate = gate
        self._listener = Listener(loop, clock, ends[1], self._handle_tcp)
        self._options = AskerOptions(container_id)
        self._permits = Permits(())
        self._view: View
        self._outside = False
        loop.watch(self._udp.fileno(), select.EPOLLIN, self._datagrams)
        self.look_again()

    def configure(self, options: AskerOptions) -> None:
        """Take other upstreams and options."""
        self._options = options
        self._permits = Permits(options.gated)
        self._forwarder.upstreams = options.upstreams
        self.look_again()

    def look_again(self) -> None:
        """The container's networks, or its names and links there, have changed."""
        memberships = self._table.memberships(self._container_id)
        self._view = View(self._table, memberships)
        self._outside = self._options.outside or any(not member.internal for member in memberships)

    def close(self) -> None:
        """Give the sockets back: the container has ended."""
        self._loop.unwatch(self._udp.fileno())
        self._udp.close()
        self._listener.close()
        self._forwarder.close()
        self._inside.close()

    def _datagrams(self, events: int) -> None:
        questions = []
        with suppress(OSError):
            for _ in range(_BURST):
                questions.append(self._udp.recvfrom(_MOST_UDP_QUESTION))
        self._catch_up()
        for data, address in questions:
            query = parse(data)
            if isinstance(query, Query):
                found = self.answer(query, query.udp_bytes)
                if found is None:
                    self._forward(query, self._by_udp(address), query.udp_bytes, tcp=False)
                    continue
            elif query is None:
                continue
            else:
                found = query.answer
            with suppress(OSError):  # the asker does not take it: it has gone, or never reads
                self._udp.sendto(found, address)

    def _by_udp(self, address: tuple[str, int]) -> Callable[[bytes], None]:
        def deliver(data: bytes) -> None:
            with suppress(OSError):
                self._udp.sendto(data, address)

        return deliver

    def _handle_tcp(self, data: bytes, deliver: Callable[[bytes], None]) -> None:
        self._catch_up()
        query = parse(data)
        if query is None:
            deliver(b"")
        elif isinstance(query, Refusal):
            deliver(query.answer)
        else:
            found = self.answer(query, LARGEST_BYTES)
            if found is not None:
                deliver(found)
            else:
                self._forward(query, deliver, LARGEST_BYTES, tcp=True)

    def answer(self, query: Query, limit: int) -> bytes | None:
        """What we answer ourselves; None for what upstreams are to be asked.

        Args:
            limit: how large the answer may be, in bytes.
        """
        if query.klass != IN:
            return None
        entry = self._view.find(query.key)
        if entry is not None:
            kind = query.kind
            if self._options.restricted and not self._options.ipv6 and kind in (AAAA, ANY):
                return answer(query, entry.turned(entry.a) if kind == ANY else [], limit=limit)
            if kind == A:
                return answer(query, entry.turned(entry.a), limit=limit)
            if kind == AAAA:
                return answer(query, entry.turned(entry.aaaa), limit=limit)
            return answer(query, entry.a + entry.aaaa if kind == ANY else [], limit=limit)
        if query.kind == PTR:
            record = self._view.reverse(query.key)
            if record is not None:
                return answer(query, [record], limit=limit)
        if self._view.knows_link(query.key):
            return answer(query, [], NXDOMAIN)
        return None

    def _forward(self, query: Query, deliver: Callable[[bytes], None], limit: int, *, tcp: bool) -> None:
        if not self._outside:
            deliver(answer(query, [], SERVFAIL))
        elif query.kind in ZONE_TRANSFERS:  # many messages for one question
            deliver(answer(query, [], NOTIMP))
        elif self._options.ndots_set and query.kind in (A, AAAA) and query.single_label:
            deliver(answer(query, []))  # so that the client goes on with its search list
        elif not self._options.restricted:
            gate = self._gate if self._permits.allow(query.key) else None
            self._forwarder.forward(query, deliver, limit, tcp=tcp, gate=gate)
        elif not self._permits.allow(query.key):
            self._gate.refused(self._container_id, query)
            deliver(answer(query, [], NXDOMAIN, prohibited=True))
        elif query.kind == AAAA and not self._options.ipv6:
            deliver(answer(query, []))  # there is no IPv6 to reach it by
        else:
            self._forwarder.forward(query, deliver, limit, tcp=tcp, gate=self._gate)
