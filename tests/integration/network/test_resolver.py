"""The resolver and its process against the real kernel, with dnspython as client and as upstream."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from sampan.network import Member, namespace
from sampan.network.resolving import Resolving
from sampan.resolver.protocol import AskerOptions, Upstream
from support.names import ask, inside, reply, texts, upstream

pytestmark = pytest.mark.root

OWN_LOOPBACK = Upstream("127.0.0.1")  # as `--dns 127.0.0.1`: in the container itself
HOST = Upstream("127.0.0.53", from_host=True)


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Machine:
    """Containers without processes: namespaces, on networks that are names only."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.resolving = Resolving(directory)
        self.paths: dict[str, Path] = {}
        self.members: list[Member] = []

    def container(
        self, name: str, *networks: str, upstreams: tuple[Upstream, ...] = (OWN_LOOPBACK,), **options: bool
    ) -> Path:
        path = self.directory / f"{name}-ns"
        namespace.create(path)
        self.paths[name] = path
        for network in networks:
            self.join(name, network)
        self.resolving.serve(AskerOptions(name, upstreams, **options), str(path))
        return path

    def join(
        self,
        name: str,
        network: str,
        *aliases: str,
        links: dict[str, str] | None = None,
        last: int | None = None,
    ) -> None:
        octet = list(self.paths).index(name) + 2
        member = Member(
            name, str(self.paths[name]), f"id-of-{network}", network, (name, *aliases), (f"10.9.0.{octet}",),
            links or {}, network.startswith("internal"),
        )  # fmt: skip
        self.members = [one for one in self.members if (one.container_id, one.network) != (name, network)]
        self.members.append(member)
        self.resolving.attached(member)

    def process(self) -> int:
        return int(json.loads((self.directory / "resolver.json").read_text())["pid"])

    def crash(self) -> subprocess.Popen[bytes]:
        """The daemon is gone without a word; the resolver's process, which is no child of the next one's."""
        old = self.resolving
        old._closing = True
        old._connection.shutdown(socket.SHUT_RDWR)
        child, old._child = old._child, None
        self.resolving = Resolving(self.directory)
        return child

    def end(self) -> None:
        for name in self.paths:
            self.resolving.released(name)
        pid = self.process() if (self.directory / "resolver.json").exists() else 0
        self.resolving.close()
        for path in self.paths.values():
            namespace.remove(path)
        if pid:
            until(lambda: not Path(f"/proc/{pid}/stat").exists() or _state(pid) == "Z")
        assert not (self.directory / "resolver.sock").exists()


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.end()


def test_names_aliases_and_pointers(machine: Machine) -> None:
    web = machine.container("web", "front")
    machine.container("db", "front")
    machine.join("db", "front", "Data.Base", "0123456789ab")
    for name in ("db", "DB", "db.front", "data.base", "data.base.front", "0123456789ab", "db."):
        found = ask(web, name)
        assert texts(found) == ["10.9.0.3"], name
        assert found.answer[0].ttl == 600
        assert found.flags & dns.flags.RA and found.flags & dns.flags.RD
    assert texts(ask(web, "3.0.9.10.in-addr.arpa", "PTR")) == ["db.front."]
    assert texts(ask(web, "web")) == ["10.9.0.2"]
    for kind in ("AAAA", "MX", "TXT", "HTTPS", "SRV"):
        nothing = ask(web, "db", kind)
        assert nothing.rcode() == dns.rcode.NOERROR and not nothing.answer, kind
    assert texts(ask(web, "db", "ANY")) == ["10.9.0.3"]
    assert texts(ask(web, "db", tcp=True)) == ["10.9.0.3"]


def test_only_ones_own_networks(machine: Machine) -> None:
    web = machine.container("web", "front", upstreams=())
    machine.container("db", "back", upstreams=())
    assert ask(web, "db").rcode() == dns.rcode.SERVFAIL
    assert ask(web, "db.back").rcode() == dns.rcode.SERVFAIL
    assert ask(web, "3.0.9.10.in-addr.arpa", "PTR").rcode() == dns.rcode.SERVFAIL
    machine.join("web", "back")
    assert texts(ask(web, "db")) == texts(ask(web, "db.back")) == ["10.9.0.3"]
    machine.resolving.detached("id-of-back", "web")
    assert ask(web, "db").rcode() == dns.rcode.SERVFAIL


def test_shared_alias_takes_turns_and_shrinks(machine: Machine) -> None:
    asker = machine.container("asker", "front")
    for name in ("one", "two", "three"):
        machine.container(name, "front")
        machine.join(name, "front", "svc")
    answers = [texts(ask(asker, "svc")) for _ in range(6)]
    assert all(sorted(answer) == ["10.9.0.3", "10.9.0.4", "10.9.0.5"] for answer in answers)
    assert {answer[0] for answer in answers} == {"10.9.0.3", "10.9.0.4", "10.9.0.5"}
    machine.join("two", "front")  # renamed, without the alias
    assert sorted(texts(ask(asker, "svc"))) == ["10.9.0.3", "10.9.0.5"]


def test_links_are_ones_own(machine: Machine) -> None:
    web = machine.container("web", "front", upstreams=(HOST,))
    db = machine.container("db", "front", upstreams=())
    machine.join("web", "front", links={"store": "db", "lost": "nobody"})
    assert texts(ask(web, "store")) == texts(ask(web, "store.front")) == ["10.9.0.3"]
    assert ask(db, "store").rcode() == dns.rcode.SERVFAIL
    assert ask(web, "lost").rcode() == dns.rcode.NXDOMAIN  # and nobody else was asked


def test_large_answers_are_cut_and_come_whole_by_tcp(machine: Machine) -> None:
    asker = machine.container("asker", "front")
    for octet in range(10, 210):
        member = Member(f"m{octet}", "", "id-of-front", "front", (f"m{octet}", "svc"), (f"10.9.0.{octet}",))
        machine.resolving.attached(member)
    short = ask(asker, "svc")
    assert short.flags & dns.flags.TC and 20 <= len(texts(short)) < 31
    assert len(short.to_wire()) <= 512
    assert len(texts(ask(asker, "svc", edns=1232))) > 70
    whole = ask(asker, "svc", edns=4096)
    assert not whole.flags & dns.flags.TC and len(texts(whole)) == 200 and whole.edns == 0
    assert len(texts(ask(asker, "svc", tcp=True))) == 200


def test_container_may_have_port_53_itself(machine: Machine) -> None:
    web = machine.container("web", "front")

    def own() -> bytes:
        with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
            server.bind(("0.0.0.0", 53))
            client.connect(("127.0.0.1", 53))
            client.send(b"mine")
            with socket.socket() as listener:
                listener.bind(("0.0.0.0", 53))
                listener.listen()
            return server.recv(10)

    assert inside(web, own) == b"mine"
    with upstream(web, "0.0.0.0"):
        assert texts(ask(web, "web")) == ["10.9.0.2"]
        assert texts(ask(web, "example.org")) == ["192.0.2.7"]


def test_forwarding_from_the_container_and_from_the_host(machine: Machine) -> None:
    web = machine.container("web", "front")
    other = machine.container("other", "front", upstreams=(HOST,))
    with upstream(web, "127.0.0.1") as own, upstream(None, "127.0.0.53") as host:
        for tcp in (False, True):
            assert texts(ask(web, "example.org", tcp=tcp)) == ["192.0.2.7"]
            assert texts(ask(other, "Example.ORG", tcp=tcp)) == ["192.0.2.7"]
        assert own.questions == ["example.org. A"] * 2
        assert host.questions == ["Example.ORG. A"] * 2
        for _ in range(30):
            ask(web, "example.org")
            ask(other, "example.org")
        for one in (own, host):  # ports and ids that cannot be guessed
            assert len({port for _, port in one.sources}) > 20
            assert len({raw[:2] for raw in one.raw}) > 28


def test_internal_names_never_go_out(machine: Machine) -> None:
    web = machine.container("web", "front", upstreams=(HOST,))
    shut = machine.container("shut", "internal", upstreams=(HOST,))
    machine.container("db", "front", "internal")
    with upstream(None, "127.0.0.53") as host:
        for kind in ("A", "AAAA", "TXT", "MX", "ANY", "SVCB", "PTR"):
            ask(web, "db", kind)
            ask(web, "db.front", kind)
        ask(web, "4.0.9.10.in-addr.arpa", "PTR")
        assert host.questions == []
        for kind in ("A", "AAAA", "TXT"):
            assert ask(shut, "example.org", kind).rcode() == dns.rcode.SERVFAIL
            assert ask(shut, "example.org", kind, tcp=True).rcode() == dns.rcode.SERVFAIL
        assert texts(ask(shut, "db")) == ["10.9.0.4"]
        assert host.questions == []
        machine.resolving.serve(AskerOptions("shut", (HOST,), outside=True), str(shut))  # on `bridge` too
        assert texts(ask(shut, "example.org")) == ["192.0.2.7"]


def test_ndots_keeps_bare_names_from_upstreams(machine: Machine) -> None:
    web = machine.container("web", "front", upstreams=(HOST,), ndots_set=True)
    with upstream(None, "127.0.0.53") as host:
        bare = ask(web, "printer")
        assert bare.rcode() == dns.rcode.NOERROR and not bare.answer
        assert host.questions == []
        assert texts(ask(web, "printer.lan")) == ["192.0.2.7"]


def test_the_next_upstream_is_asked(machine: Machine) -> None:
    dead, silent, failing, good = (Upstream(f"127.0.0.{octet}", from_host=True) for octet in (61, 62, 63, 64))
    web = machine.container("web", "front", upstreams=(dead, failing, good))
    with (
        upstream(None, failing.address, lambda query, tcp: reply(query, rcode=dns.rcode.SERVFAIL)) as third,
        upstream(None, good.address),
    ):
        assert texts(ask(web, "web")) == ["10.9.0.2"]  # the process has come up
        begun = time.monotonic()
        assert texts(ask(web, "example.org")) == ["192.0.2.7"]
        assert texts(ask(web, "example.org", tcp=True)) == ["192.0.2.7"]
        assert time.monotonic() - begun < 1.5  # a closed port is noticed at once
        assert len(third.questions) == 2
    with upstream(None, silent.address, lambda query, tcp: None) as mute, upstream(None, good.address):
        machine.resolving.serve(AskerOptions("web", (silent, good)), str(machine.paths["web"]))
        assert texts(ask(web, "example.org")) == ["192.0.2.7"]
        begun = time.monotonic()
        assert texts(ask(web, "example.net")) == ["192.0.2.7"]
        assert time.monotonic() - begun < 1 and len(mute.questions) == 1  # it is asked last for a while
    machine.resolving.serve(AskerOptions("web", (dead,)), str(machine.paths["web"]))
    assert ask(web, "example.org").rcode() == dns.rcode.SERVFAIL


def test_upstream_inside_that_is_closed_is_noticed_at_once(machine: Machine) -> None:
    web = machine.container("web", "front", upstreams=(OWN_LOOPBACK, HOST))
    with upstream(None, HOST.address):
        assert texts(ask(web, "web")) == ["10.9.0.2"]  # the process has come up
        begun = time.monotonic()
        assert texts(ask(web, "example.org")) == ["192.0.2.7"]
        assert texts(ask(web, "example.org", tcp=True)) == ["192.0.2.7"]
        assert time.monotonic() - begun < 1.5


def test_what_upstreams_say_is_checked(machine: Machine) -> None:
    web = machine.container("web", "front", upstreams=(HOST,))

    def forged(query: dns.message.Message, tcp: bool) -> bytes:
        other = dns.message.make_query("other.example.org", "A", id=query.id)
        return reply(other, "192.0.2.66").to_wire()

    with upstream(None, HOST.address, forged) as host:
        with pytest.raises(dns.exception.Timeout):
            ask(web, "example.org", timeout_s=0.5)
        host.behaviour = lambda query, tcp: b"\0" + reply(query, "192.0.2.66").to_wire()[1:]
        with pytest.raises(dns.exception.Timeout):
            ask(web, "example.org", timeout_s=0.5)
        nonexistent = reply(dns.message.make_query("example.org", "A"), rcode=dns.rcode.NXDOMAIN)

        def missing(query: dns.message.Message, tcp: bool) -> dns.message.Message:
            nonexistent.id = query.id
            return nonexistent

        host.behaviour = missing
        assert ask(web, "example.org").rcode() == dns.rcode.NXDOMAIN


def test_large_answers_of_upstreams(machine: Machine) -> None:
    web = machine.container("web", "front", upstreams=(HOST,))
    many = [f"192.0.2.{octet}" for octet in range(1, 101)]
    with upstream(None, HOST.address, lambda query, tcp: reply(query, *many)) as host:
        short = ask(web, "example.org")
        assert short.flags & dns.flags.TC and not short.answer
        assert len(texts(ask(web, "example.org", edns=4096))) == 100
        assert dns.message.from_wire(host.raw[-1]).payload == 4096
        assert len(texts(ask(web, "example.org", tcp=True))) == 100


def test_no_answer_is_kept(machine: Machine) -> None:
    web = machine.container("web", "front", upstreams=(HOST,))
    other = machine.container("other", "front", upstreams=(HOST,))
    with upstream(None, HOST.address) as host:
        for asker in (web, other, web):
            ask(asker, "example.org")
        assert len(host.questions) == 3


def raw(netns: Path, data: bytes, timeout_s: float = 0.3) -> bytes | None:
    """Send bytes; what comes back."""

    def work() -> bytes | None:
        with socket.socket(type=socket.SOCK_DGRAM) as end:
            end.settimeout(timeout_s)
            end.connect(("127.0.0.11", 53))
            end.send(data)
            try:
                return end.recv(65535)
            except TimeoutError:
                return None

    return inside(netns, work)


def test_hostile_messages(machine: Machine) -> None:
    web = machine.container("web", "front", upstreams=())
    good = dns.message.make_query("web", "A").to_wire()
    head, question = good[:12], good[12:]
    assert raw(web, b"") is None and raw(web, b"\0" * 11) is None
    assert raw(web, reply(dns.message.from_wire(good), "192.0.2.1").to_wire()) is None  # no ping-pong
    for data, rcode in (
        (head, dns.rcode.FORMERR),
        (head + b"\xc0\x0c" + question[-4:], dns.rcode.FORMERR),  # a name that points to itself
        (head + b"\x3fxx", dns.rcode.FORMERR),
        (head + (b"\x3f" + b"a" * 63) * 4 + b"\0" + question[-4:], dns.rcode.FORMERR),
        (good + b"rest", dns.rcode.FORMERR),
        (head[:2] + b"\x28\0" + good[4:], dns.rcode.NOTIMP),  # an update
        (head[:4] + b"\0\2" + head[6:] + question * 2, dns.rcode.FORMERR),
        (head[:10] + b"\0\1" + question, dns.rcode.FORMERR),
    ):
        answer = raw(web, data, 5)
        assert answer is not None and dns.message.from_wire(answer).rcode() == rcode, data
    newer = dns.message.make_query("web", "A", use_edns=1)
    answer = raw(web, newer.to_wire(), 5)
    assert answer is not None and dns.message.from_wire(answer).rcode() == dns.rcode.BADVERS
    dice = random.Random(1)

    def throw() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as end:
            for _ in range(100):
                data = bytearray(good)
                for _ in range(dice.randrange(1, 6)):
                    data[dice.randrange(len(data))] = dice.randrange(256)
                end.sendto(data[: dice.randrange(len(data) + 1)], ("127.0.0.11", 53))

    for _ in range(10):
        inside(web, throw)
        assert texts(ask(web, "web")) == ["10.9.0.2"]


def test_floods_are_bounded_and_others_are_served(machine: Machine) -> None:
    bad = machine.container("bad", "front", upstreams=(HOST,))
    good = machine.container("good", "front", upstreams=(HOST,))
    with upstream(None, HOST.address, lambda query, tcp: None) as host:
        query = dns.message.make_query("example.org", "A").to_wire()

        def flood() -> list[int]:
            with socket.socket(type=socket.SOCK_DGRAM) as end:
                end.connect(("127.0.0.11", 53))
                end.settimeout(0.5)
                codes = []
                for number in range(400):
                    end.send(struct.pack(">H", number) + query[2:])
                    if number % 20 == 19:
                        try:
                            while True:
                                codes.append(end.recv(1000)[3] & 15)
                                end.settimeout(0.02)
                        except TimeoutError:
                            end.settimeout(0.1)
                return codes

        codes = inside(bad, flood)
        assert codes.count(dns.rcode.REFUSED) > 200
        assert len(host.questions) <= 128
        host.behaviour = lambda query, tcp: reply(query, "192.0.2.7")
        assert texts(ask(good, "example.org")) == ["192.0.2.7"]
        assert texts(ask(good, "bad")) == ["10.9.0.2"]

    def many_connections() -> int:
        ends = [socket.create_connection(("127.0.0.11", 53), 5) for _ in range(60)]
        ends[-1].sendall(struct.pack(">H", len(query)) + dns.message.make_query("good", "A").to_wire()[:9])
        closed = 0
        for end in ends[:28]:
            end.settimeout(5)
            closed += end.recv(1) == b""
        for end in ends:
            end.close()
        return closed

    assert inside(bad, many_connections) == 28
    assert texts(ask(bad, "good", tcp=True)) == ["10.9.0.3"]


def test_tcp_takes_several_questions_in_pieces(machine: Machine) -> None:
    web = machine.container("web", "front", upstreams=(HOST,))
    queries = [dns.message.make_query(name, "A") for name in ("web", "example.org", "web.front")] * 20

    def work() -> set[int]:
        with socket.create_connection(("127.0.0.11", 53), 10) as end:
            data = b"".join(struct.pack(">H", len(one.to_wire())) + one.to_wire() for one in queries)
            end.sendall(data[:7])
            end.sendall(data[7:])
            end.shutdown(socket.SHUT_WR)
            reader, found = end.makefile("rb"), set()
            while size := reader.read(2):
                found.add(dns.message.from_wire(reader.read(struct.unpack(">H", size)[0])).id)
            return found

    with upstream(None, HOST.address):
        assert inside(web, work) == {one.id for one in queries}


def test_the_process_has_no_rights(machine: Machine) -> None:
    machine.container("web", "front")
    assert texts(ask(machine.paths["web"], "web")) == ["10.9.0.2"]
    status = Path(f"/proc/{machine.process()}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == fields["Gid"].split() == ["65534"] * 4
    assert all(int(fields[name], 16) == 0 for name in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"))
    assert fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2" and not fields["Groups"].strip()


def test_next_daemon_finds_it_with_all_sockets(machine: Machine) -> None:
    web = machine.container("web", "front")
    machine.container("db", "front")
    assert texts(ask(web, "db")) == ["10.9.0.3"]
    pid, ports = machine.process(), _listening(web)
    child = machine.crash()
    assert texts(ask(web, "db")) == ["10.9.0.3"]  # while there is no daemon
    machine.resolving.attached(machine.members[0])
    machine.resolving.serve(AskerOptions("web", ()), str(web))
    assert texts(ask(web, "db")) == ["10.9.0.3"]  # not forgotten before all is told
    machine.resolving.settle()
    until(lambda: not texts(ask(web, "db")))
    assert texts(ask(web, "web")) == ["10.9.0.2"]
    assert machine.process() == pid and _listening(web) == ports
    assert not _listening(machine.paths["db"])  # its namespace is not kept
    machine.resolving._child = child


def _listening(netns: Path) -> list[str]:
    found = subprocess.run(
        ["nsenter", f"--net={netns}", "ss", "-Hlntu"], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    return sorted(line.split()[4] for line in found.splitlines())


def test_killed_it_comes_back_with_everything(machine: Machine) -> None:
    web = machine.container("web", "front", upstreams=(HOST,))
    machine.container("db", "front")
    ports = _listening(web)
    pid = machine.process()
    os.kill(pid, signal.SIGKILL)
    until(lambda: machine.process() != pid and bool(_listening(web)))
    with upstream(None, HOST.address):
        assert texts(ask(web, "db")) == ["10.9.0.3"]
        assert texts(ask(web, "example.org")) == ["192.0.2.7"]
    assert _listening(web) == ports
    rules = ["nsenter", f"--net={web}", "nft", "list", "ruleset"]
    assert subprocess.run(rules, capture_output=True, text=True, timeout=20).stdout.count("table") == 1


def test_a_process_that_hangs_is_replaced_by_the_next_daemon(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sampan.network.resolving._PATIENCE_S", 1.0)
    web = machine.container("web", "front")
    pid = machine.process()
    os.kill(pid, signal.SIGSTOP)
    child = machine.crash()
    machine.resolving.attached(machine.members[0])
    machine.resolving.serve(AskerOptions("web", ()), str(web))
    machine.resolving.settle()
    assert texts(ask(web, "web")) == ["10.9.0.2"]
    assert machine.process() != pid
    child.wait(10)


def test_sockets_go_with_the_container(machine: Machine) -> None:
    web = machine.container("web", "front")
    machine.container("db", "front")
    assert _listening(web)
    machine.resolving.released("web")
    machine.resolving.detached("id-of-front", "web")
    until(lambda: not _listening(web))
    fds = len(list(Path(f"/proc/{machine.process()}/fd").iterdir()))
    machine.resolving.serve(AskerOptions("web", ()), str(web))
    assert ask(web, "db").rcode() == dns.rcode.SERVFAIL
    machine.resolving.released("web")
    until(lambda: len(list(Path(f"/proc/{machine.process()}/fd").iterdir())) == fds)


def test_strangers_are_not_listened_to(machine: Machine) -> None:
    machine.container("web", "front")
    path = machine.directory / "resolver.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    program = (
        "import os, socket; os.setuid(12345);"
        "end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET);"
        f"end.connect({str(path)!r})"
    )
    found = subprocess.run(["python3", "-c", program], capture_output=True, text=True, timeout=20)
    assert "PermissionError" in found.stderr


def test_renamed(machine: Machine) -> None:
    web = machine.container("web", "front", upstreams=())
    machine.resolving.attached(replace(machine.members[0], names=("shop",)))
    assert texts(ask(web, "shop")) == ["10.9.0.2"]
    assert ask(web, "web").rcode() == dns.rcode.SERVFAIL
    assert texts(ask(web, "2.0.9.10.in-addr.arpa", "PTR")) == ["shop.front."]


def test_without_a_daemon_it_lets_go_of_what_ends_and_then_ends_itself(machine: Machine) -> None:
    processes = {name: subprocess.Popen(["sleep", "100"]) for name in ("web", "db")}
    for name, process in processes.items():
        machine.container(name, "front")
        pidfd = os.pidfd_open(process.pid)
        machine.resolving.lives(name, pidfd)
        os.close(pidfd)
    web, pid = machine.paths["web"], machine.process()
    assert texts(ask(web, "db")) == ["10.9.0.3"]
    child = machine.crash()
    processes["db"].kill()
    processes["db"].wait()
    until(lambda: not _listening(machine.paths["db"]))
    assert texts(ask(web, "web")) == ["10.9.0.2"]
    processes["web"].kill()
    processes["web"].wait()
    until(lambda: _state(pid) == "Z")
    child.wait(10)


def test_without_nftables_the_sockets_have_port_53(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(ports: tuple[int, int]) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr("sampan.network.doorway._lead_to", refuse)
    web = machine.container("web", "front")
    assert texts(ask(web, "web")) == texts(ask(web, "web", tcp=True)) == ["10.9.0.2"]
    pid = machine.process()
    os.kill(pid, signal.SIGKILL)
    until(lambda: machine.process() != pid and bool(_listening(web)))
    assert texts(ask(web, "web")) == ["10.9.0.2"]


def test_many_at_once(machine: Machine) -> None:
    names = [f"c{number}" for number in range(24)]
    for name in names:
        path = machine.directory / f"{name}-ns"
        namespace.create(path)
        machine.paths[name] = path

    def start(name: str) -> None:
        machine.join(name, "front")
        machine.resolving.serve(AskerOptions(name, ()), str(machine.paths[name]))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(start, names))
    for number, name in enumerate(names):
        assert texts(ask(machine.paths[name], names[-1 - number])) == [f"10.9.0.{len(names) + 1 - number}"]


def test_the_next_daemon_ends_what_nobody_needs(machine: Machine) -> None:
    machine.container("web", "front")
    pid, child = machine.process(), machine.crash()
    machine.resolving.settle()
    until(lambda: _state(pid) == "Z")
    child.wait(10)
    assert not (machine.directory / "resolver.sock").exists()
