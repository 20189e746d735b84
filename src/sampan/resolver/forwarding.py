"""Asking upstreams what we do not know: one after the other, each for so long, those that failed lately last.

As Docker's resolver does: three upstreams at most; SERVFAIL and REFUSED of one send the question to the next,
any other answer is the answer; a question that came by TCP goes on by TCP. Nothing is remembered of any
answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from sampan.resolver.attempts import Attempt, HostOutlets, NamespaceOutlets
from sampan.resolver.clock import Clock, Timer
from sampan.resolver.protocol import Upstream
from sampan.resolver.wire import REFUSED, SERVFAIL, Query, Reply, answer, handed_on

MOST_UPSTREAMS = 3
MOST_OF_ONE = 128  # questions of one container on their way
MOST_OF_ALL = 8192
_WAIT_S = 2.0  # while there is another upstream to ask
_LAST_WAIT_S = 4.0
_SHUNNED_S = 30.0

Deliver = Callable[[bytes], None]


class Gate(Protocol):
    """Stands between an upstream's answer and the container, for rules about where a container may connect
    to.

    What is let through by name has to be open before the container knows the address: `passing` calls
    `deliver` once it is, with the upstream's answer as it may be handed on, or with None for one that may
    not. Our own names do not come this way.
    """

    def passing(
        self, container_id: str, query: Query, answer: bytes, deliver: Callable[[bytes | None], None]
    ) -> None:
        """An answer is about to be handed on."""


class Count:
    """How many questions of all containers are on their way."""

    def __init__(self) -> None:
        self.now = 0


class Forwarder:
    """The questions of one container that go upstream."""

    def __init__(
        self,
        container_id: str,
        clock: Clock,
        inside: NamespaceOutlets,
        host: HostOutlets,
        total: Count,
    ) -> None:
        self.upstreams: tuple[Upstream, ...] = ()
        self._container_id = container_id
        self._clock = clock
        self._inside = inside
        self._host = host
        self._total = total
        self._shunned: dict[Upstream, float] = {}
        self._under_way: set[_Forward] = set()

    def forward(
        self, query: Query, deliver: Deliver, limit: int, *, tcp: bool, gate: Gate | None = None
    ) -> None:
        """Ask upstreams; `deliver` gets the answer, cut to `limit`, or a failure in its place.

        Args:
            gate: what the answer has to pass.
        """
        if not self.upstreams:
            deliver(answer(query, [], SERVFAIL))
        elif len(self._under_way) >= MOST_OF_ONE or self._total.now >= MOST_OF_ALL:
            deliver(answer(query, [], REFUSED))
        else:
            self._total.now += 1
            one = _Forward(self, query, deliver, limit, tcp, self._in_order(), gate)
            self._under_way.add(one)
            one.go_on()

    def _in_order(self) -> list[Upstream]:
        now = time.monotonic()
        for upstream in [one for one, until in self._shunned.items() if until < now]:
            del self._shunned[upstream]
        return sorted(self.upstreams[:MOST_UPSTREAMS], key=self._shunned.__contains__)

    def shun(self, upstream: Upstream) -> None:
        """An upstream did not answer: ask others first for a while."""
        self._shunned[upstream] = time.monotonic() + _SHUNNED_S

    def ask(self, attempt: Attempt, upstream: Upstream, tcp: bool) -> None:
        """Send one attempt on its way."""
        outlets = self._host if upstream.from_host else self._inside
        if tcp:
            outlets.ask_tcp(attempt)
        else:
            outlets.ask_udp(attempt)

    def settle(self, one: _Forward, reply: Reply | None) -> None:
        """A question is answered, or given up."""
        self._end(one)
        if reply is None:
            one.deliver(answer(one.query, [], SERVFAIL))
        elif one.gate is None or not reply.whole:
            one.deliver(handed_on(one.query, reply, one.limit))
        else:
            one.gate.passing(
                self._container_id, one.query, reply.data, lambda data: self._passed(one, reply, data)
            )

    def _passed(self, one: _Forward, reply: Reply, data: bytes | None) -> None:
        if data is None:
            one.deliver(answer(one.query, [], REFUSED))
        else:
            one.deliver(handed_on(one.query, replace(reply, data=data), one.limit))

    def _end(self, one: _Forward) -> None:
        if one in self._under_way:
            self._under_way.remove(one)
            self._total.now -= 1

    def close(self) -> None:
        """Drop all that is under way."""
        for one in list(self._under_way):
            self._end(one)
            one.cancel()


class _Forward:
    """One question on its way through the upstreams."""

    __slots__ = (
        "_attempt", "_failure", "_forwarder", "_left", "_tcp", "_timer", "deliver", "gate", "limit", "query",
    )  # fmt: skip

    def __init__(
        self,
        forwarder: Forwarder,
        query: Query,
        deliver: Deliver,
        limit: int,
        tcp: bool,
        upstreams: list[Upstream],
        gate: Gate | None,
    ) -> None:
        self.query = query
        self.deliver = deliver
        self.limit = limit
        self.gate = gate
        self._forwarder = forwarder
        self._tcp = tcp
        self._left = upstreams
        self._attempt: Attempt | None = None
        self._timer: Timer | None = None
        self._failure: Reply | None = None

    def go_on(self) -> None:
        """Ask the next upstream, or give up with what the last one said."""
        self.cancel()
        if not self._left:
            self._forwarder.settle(self, self._failure)
            return
        upstream = self._left.pop(0)
        attempt = Attempt(self.query, upstream, lambda reply: self._heard(upstream, reply))
        self._attempt = attempt
        wait_s = _WAIT_S if self._left else _LAST_WAIT_S
        self._timer = self._forwarder._clock.after(wait_s, lambda: self._heard(upstream, None))
        self._forwarder.ask(attempt, upstream, self._tcp)

    def _heard(self, upstream: Upstream, reply: Reply | None) -> None:
        if reply is None:
            if not self._tcp:
                self._forwarder.shun(upstream)
        elif reply.rcode in (SERVFAIL, REFUSED):
            self._failure = reply
        else:
            self.cancel()
            self._forwarder.settle(self, reply)
            return
        self.go_on()

    def cancel(self) -> None:
        """Wait for nothing any more."""
        attempt, self._attempt = self._attempt, None
        timer, self._timer = self._timer, None
        if attempt is not None:
            attempt.cancel()
        if timer is not None:
            timer.cancel()
