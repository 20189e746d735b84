"""DNS from outside: questions asked in a container's network namespace, and upstreams that behave as told.

dnspython, which the project itself does without, is the judge of what is on the wire.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset

from sampan.linux.namespaces import join_path
from sampan.linux.threads import in_own_thread

T = TypeVar("T")
SERVER = "127.0.0.11"


def inside(netns: Path | str | None, work: Callable[[], T]) -> T:
    """Call `work` in a network namespace; None for the test's own."""

    def run() -> T:
        if netns is not None:
            join_path("network", str(netns))
        return work()

    return in_own_thread(run)


def ask(
    netns: Path | str,
    name: str,
    kind: str = "A",
    *,
    tcp: bool = False,
    edns: int | None = None,
    timeout_s: float = 10.0,
) -> dns.message.Message:
    """Ask the resolver of a container, once."""
    query = dns.message.make_query(name, kind, use_edns=False if edns is None else 0, payload=edns)
    send = dns.query.tcp if tcp else dns.query.udp
    return inside(netns, lambda: send(query, SERVER, timeout=timeout_s))


def texts(answer: dns.message.Message) -> list[str]:
    """What the records of an answer hold."""
    return [item.to_text() for rrset in answer.answer for item in rrset]


class Upstream:
    """A name server in some namespace. It notes every question, and answers as `behaviour` says.

    Args:
        behaviour: a question in, an answer or None for silence out; by default 192.0.2.7 for every A.
    """

    def __init__(
        self,
        netns: Path | str | None,
        address: str,
        behaviour: Callable[[dns.message.Message, bool], dns.message.Message | bytes | None] | None = None,
    ) -> None:
        self.behaviour = behaviour or (lambda query, tcp: reply(query, "192.0.2.7"))
        self.questions: list[str] = []
        self.raw: list[bytes] = []
        self.sources: list[tuple[str, int]] = []
        self._udp, self._tcp = inside(netns, lambda: self._open(address))
        self._stop_read, self._stop_write = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @staticmethod
    def _open(address: str) -> tuple[socket.socket, socket.socket]:
        udp, tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for end in (udp, tcp):
            end.bind((address, 53))
        tcp.listen()
        return udp, tcp

    def _serve(self) -> None:
        ends = [self._udp, self._tcp, self._stop_read]
        while True:
            ready, _, _ = select.select(ends, [], [])
            if self._stop_read in ready:
                return
            if self._udp in ready:
                data, address = self._udp.recvfrom(65535)
                answer = self._answer(data, address, tcp=False)
                if answer is not None:
                    self._udp.sendto(answer, address)
            if self._tcp in ready:
                end, address = self._tcp.accept()
                with end, contextlib.suppress(OSError, struct.error):
                    end.settimeout(5)
                    size = struct.unpack(">H", end.recv(2))[0]
                    answer = self._answer(end.recv(size), address, tcp=True)
                    if answer is not None:
                        end.sendall(struct.pack(">H", len(answer)) + answer)
                        end.recv(1)  # until the other side leaves

    def _answer(self, data: bytes, address: tuple[str, int], *, tcp: bool) -> bytes | None:
        query = dns.message.from_wire(data)
        self.raw.append(data)
        self.sources.append(address)
        self.questions.append(f"{query.question[0].name} {dns.rdatatype.to_text(query.question[0].rdtype)}")
        answer = self.behaviour(query, tcp)
        if isinstance(answer, dns.message.Message):
            return answer.to_wire(max_size=65535)
        return answer

    def close(self) -> None:
        """Stop."""
        self._stop_write.send(b"x")
        self._thread.join()
        for end in (self._udp, self._tcp, self._stop_read, self._stop_write):
            end.close()


@contextlib.contextmanager
def upstream(
    netns: Path | str | None,
    address: str,
    behaviour: Callable[[dns.message.Message, bool], dns.message.Message | bytes | None] | None = None,
) -> Iterator[Upstream]:
    """An `Upstream` for a while."""
    made = Upstream(netns, address, behaviour)
    try:
        yield made
    finally:
        made.close()


def reply(
    query: dns.message.Message, *addresses: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR, ttl: int = 60
) -> dns.message.Message:
    """An answer with these addresses."""
    made = dns.message.make_response(query, recursion_available=True)
    made.set_rcode(rcode)
    if addresses and query.question[0].rdtype == dns.rdatatype.A:
        made.answer.append(dns.rrset.from_text_list(query.question[0].name, ttl, "IN", "A", addresses))
    return made
