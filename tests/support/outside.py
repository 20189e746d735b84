"""A world outside: a network namespace with public addresses beside the test's own, servers and a DNS."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from support.engine import Engine
from support.names import Upstream, inside

T = TypeVar("T")
_numbers = itertools.count(1)
_CONNECT_S = 10


class Outside:
    """Machines of a public network, which all answer at the same ports.

    Attributes:
        addresses: theirs; the last one is a private one.
        router: the test namespace's own address in that network: the host's, as a container sees it.
        addresses6, router6: the same of IPv6; none on a kernel without.
        zone: what the DNS answers: name to records, each "A 11.1.0.2", "CNAME other" or "AAAA 2600::1".
        ttl: seconds, of its records.
        dns: the server's address, which the host reaches.
    """

    PORTS = (80, 443)
    PRIVATE = "10.99.0.2"

    def __init__(self) -> None:
        number = next(_numbers)
        self._name = f"out{os.getpid() % 10**6}x{number}"
        base = f"11.{os.getpid() % 200 + 1}.{number}"
        self.router = f"{base}.1"
        self.addresses = [f"{base}.{last}" for last in range(2, 6)]
        base6 = f"2600:{os.getpid() % 0x10000:x}:{number:x}:" if os.path.exists("/proc/net/if_inet6") else ""
        self.router6 = f"{base6}:1" if base6 else ""
        self.addresses6 = [f"{base6}:{last}" for last in range(2, 5)] if base6 else []
        self.dns = f"127.53.{number}.{os.getpid() % 250 + 1}"
        self.zone: dict[str, list[str]] = {}
        self.ttl = 300
        self.seen: list[tuple[str, int, bytes]] = []  # source, port and payload of each UDP packet
        self._stack = contextlib.ExitStack()
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise

    @property
    def questions(self) -> list[str]:
        """What the DNS was asked."""
        return self._upstream.questions

    def _build(self) -> None:
        sleeper = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self._stack.callback(sleeper.wait)
        self._stack.callback(sleeper.kill)
        own = os.readlink("/proc/self/ns/net")
        self.netns = Path(f"/proc/{sleeper.pid}/ns/net")
        while os.readlink(self.netns) == own:
            assert sleeper.poll() is None
        _ip("link", "add", self._name, "type", "veth", "peer", "name", "eth0", "netns", str(sleeper.pid))
        self._stack.callback(subprocess.run, ["ip", "link", "delete", self._name], check=False)
        _ip("address", "add", f"{self.router}/24", "dev", self._name)
        _ip("link", "set", self._name, "up")
        _ip("route", "add", f"{self.PRIVATE}/32", "dev", self._name)

        if self.router6:
            _ip("address", "add", f"{self.router6}/64", "dev", self._name, "nodad")

        def furnish() -> None:
            for address in self.addresses6:
                _ip("address", "add", f"{address}/64", "dev", "eth0", "nodad")
            for address in self.addresses:
                _ip("address", "add", f"{address}/24", "dev", "eth0")
            _ip("address", "add", f"{self.PRIVATE}/32", "dev", "eth0")
            _ip("link", "set", "eth0", "up")
            _ip("link", "set", "lo", "up")
            _ip("route", "add", "default", "via", self.router)

        inside(self.netns, furnish)
        self.addresses.append(self.PRIVATE)
        server = Servers(self.netns, self.addresses + self.addresses6, self.PORTS, self.seen)
        self._stack.callback(server.close)
        self._upstream = Upstream(None, self.dns, self._answer)
        self._stack.callback(self._upstream.close)

    def _answer(self, query: dns.message.Message, tcp: bool) -> dns.message.Message:
        made = dns.message.make_response(query, recursion_available=True)
        name = query.question[0].name.to_text().lower().rstrip(".")
        wanted = dns.rdatatype.to_text(query.question[0].rdtype)
        if name not in self.zone:
            made.set_rcode(dns.rcode.NXDOMAIN)
        while name in self.zone:
            owner, name = name, ""
            for record in self.zone[owner]:
                kind, value = record.split(" ", 1)
                if kind in (wanted, "CNAME"):
                    made.answer.append(
                        dns.rrset.from_text(
                            f"{owner}.", self.ttl, "IN", kind, value + "." * (kind == "CNAME")
                        )
                    )
                if kind == "CNAME":
                    name = value
        return made

    def close(self) -> None:
        """Take it all away."""
        self._stack.close()


class Servers:
    """TCP and UDP servers in a namespace, which answer with the asker's own address."""

    def __init__(
        self,
        netns: Path | None,
        addresses: list[str],
        ports: tuple[int, ...],
        seen: list[tuple[str, int, bytes]],
    ) -> None:
        self._seen = seen
        wanted = list(itertools.product(_KINDS, addresses, ports))
        self._ends = inside(netns, lambda: [self._open(*one) for one in wanted])
        self._stop_read, self._stop_write = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @staticmethod
    def _open(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
        end = socket.socket(_family(address), kind)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        end.bind((address, port))
        if kind == socket.SOCK_STREAM:
            end.listen(64)
        return end

    def _serve(self) -> None:
        clients: list[socket.socket] = []
        while True:
            ready, _, _ = select.select([*self._ends, *clients, self._stop_read], [], [])
            for end in ready:
                if end is self._stop_read:
                    for client in clients:
                        client.close()
                    return
                if end in clients:
                    self._echo(end, clients)
                elif end.type == socket.SOCK_STREAM:
                    client, address = end.accept()
                    client.sendall(address[0].encode() + b"\n")
                    clients.append(client)
                else:
                    data, address = end.recvfrom(2048)
                    self._seen.append((address[0], end.getsockname()[1], data))
                    end.sendto(address[0].encode() + b"\n", address)

    @staticmethod
    def _echo(client: socket.socket, clients: list[socket.socket]) -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = client.recv(2048)
            client.sendall(data)
        if not data:
            clients.remove(client)
            client.close()

    def close(self) -> None:
        """Stop."""
        self._stop_write.send(b"x")
        self._thread.join()
        for end in (*self._ends, self._stop_read, self._stop_write):
            end.close()


_KINDS = (socket.SOCK_STREAM, socket.SOCK_DGRAM)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def netns_of(engine: Engine, container: str) -> Path:
    """A container's network namespace."""
    return Path(f"/proc/{engine.api.pid(container)}/ns/net")


def tcp(engine: Engine, container: str, address: str, port: int = 80) -> str:
    """As `reach`, from within a container's namespace."""
    return reach(netns_of(engine, container), address, port)


def reach(netns: Path, address: str, port: int = 80) -> str:
    """Connect to one of the servers: "" if that works, or what the errno means, or "timeout"."""

    def work() -> str:
        try:
            with socket.create_connection((address, port), _CONNECT_S) as end:
                return "" if end.recv(64) else "closed"
        except TimeoutError:
            return "timeout"
        except OSError as error:
            return os.strerror(error.errno or 0)

    return inside(netns, work)


def udp(engine: Engine, container: str, address: str, port: int = 80, wait_s: float = 1.0) -> bool:
    """Whether a UDP packet from within a container's namespace is answered."""

    def work() -> bool:
        with socket.socket(_family(address), socket.SOCK_DGRAM) as end:
            end.settimeout(wait_s)
            try:
                end.connect((address, port))
                end.send(b"question")
                return bool(end.recv(64))
            except OSError:
                return False

    return inside(netns_of(engine, container), work)


def connected(engine: Engine, container: str, address: str, port: int = 80) -> socket.socket:
    """A connection that stays, from within a container's namespace."""

    def work() -> socket.socket:
        end = socket.create_connection((address, port), _CONNECT_S)
        end.recv(64)
        return end

    return inside(netns_of(engine, container), work)


def echoes(end: socket.socket) -> bool:
    """Whether a connection to one of the servers still carries something there and back."""
    try:
        end.settimeout(_CONNECT_S)
        end.sendall(b"still there?")
        return end.recv(64) == b"still there?"
    except OSError:
        return False


@contextlib.contextmanager
def outside() -> Iterator[Outside]:
    """An `Outside` for a while."""
    made = Outside()
    try:
        yield made
    finally:
        made.close()


def refusals(
    engine: Engine, container: str, where: Callable[[dict[str, object]], bool]
) -> list[dict[str, object]]:
    """What the log has of a container's that is so."""
    done = engine.api("GET", f"/containers/{container}/egress/log")
    return [one for one in map(json.loads, done.body.decode().splitlines()) if where(one)]


def ip(engine: Engine, container: str, *words: str) -> None:
    """The program ip, in a container's network namespace."""
    subprocess.run(["nsenter", f"--net={netns_of(engine, container)}", "ip", *words], check=True)


def arrived(world: Outside, payload: bytes) -> bool:
    """Whether a datagram has come, once one of our own has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.settimeout(10)
        end.sendto(b"own", (world.addresses[0], 80))
        end.recv(64)
    return any(payload in data for _, _, data in world.seen)
