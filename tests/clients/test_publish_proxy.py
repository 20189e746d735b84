"""`--publish-mode proxy`: published ports that a process of the host's listens at."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.cli import Cli
from support.engine import Daemon, Engine
from support.machine import eventually
from support.needs import program
from support.nets import answer

Names = Callable[[], str]
PROXY = ("--label", "sampan.publish-mode=proxy")
SERVE = "while :; do echo $(cat /proc/sys/kernel/hostname) | nc -l -p 80; done"
pytestmark = program("nsenter", "util-linux")

# Answers what was sent with its length once the client has sent all (half-close), or echoes datagrams.
SERVER = """
import socket, threading
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 53))
def echo():
    while True:
        data, peer = udp.recvfrom(65535)
        udp.sendto(b"<" + data + b">", peer)
threading.Thread(target=echo, daemon=True).start()
def serve(c):
    with c:
        length = 0
        while piece := c.recv(1 << 16):
            length += len(piece)
            c.sendall(piece)
        c.sendall(b"%d bytes" % length)
with socket.create_server(("", 80), backlog=200) as s:
    while True:
        threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""


def proxies(engine: Engine, container: str) -> list[int]:
    """The processes that forward for a container."""
    container_id = engine.api.inspect(container)["Id"]
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"sampan-proxy" in words and container_id.encode() in words:
                found.append(int(path.parent.name))
    return found


@pytest.fixture
def served(engine: Engine, busybox: str, name: Names) -> Iterator[tuple[str, int, int]]:
    """A container that serves TCP and UDP, and the ports of the host's that lead there."""
    one = name()
    engine.docker(
        "run", "-d", "--name", one, *PROXY, "-p", "80", "-p", "53/udp", busybox, "sleep", "600"
    )  # fmt: skip
    inside = ["nsenter", "--target", str(engine.api.pid(one)), "--net", "python3", "-c", SERVER]
    server = subprocess.Popen(inside)
    ports = engine.api.inspect(one)["NetworkSettings"]["Ports"]
    tcp, udp = (int(ports[port][0]["HostPort"]) for port in ("80/tcp", "53/udp"))
    try:
        with socket.socket() as probe:  # once something answers, all is there
            probe.settimeout(5)
            eventually(lambda: exchange(tcp, b"x") == b"x1 bytes")
        yield one, tcp, udp
    finally:
        server.kill()
        server.wait()


def exchange(port: int, data: bytes) -> bytes:
    """Send all, end our side, and read until the other ends its."""
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            sender = threading.Thread(target=_send, args=(connection, data))
            sender.start()
            answered = b"".join(iter(lambda: connection.recv(1 << 16), b""))
            sender.join()
            return answered
    except OSError:
        return b""


def _send(connection: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


def test_a_port_is_heard_by_a_process_and_led_by_no_rule(
    cli: Cli, engine: Engine, busybox: str, name: Names
) -> None:
    one = name()
    cli("run", "-d", "--name", one, "--hostname", "box", *PROXY, "-p", "21500:80", busybox, "sh", "-c", SERVE)
    eventually(lambda: answer(21500) == b"box\n")
    assert "21500" not in subprocess.check_output(["nft", "list", "ruleset"], text=True)
    assert cli("port", one, "80").out == "0.0.0.0:21500\n[::]:21500\n"
    eventually(lambda: answer(21500, "::1") == b"box\n")  # its server begins anew for each
    with pytest.raises(OSError, match="already in use"):
        socket.create_server(("127.0.0.1", 21500))
    taken = cli("run", "--rm", "-p", "21500:80", busybox, "true", code=125)
    assert "Bind for 0.0.0.0:21500 failed: port is already allocated" in taken.err
    (proxy,) = proxies(engine, one)
    cli("rm", "-f", one)
    eventually(lambda: not Path(f"/proc/{proxy}").exists())
    socket.create_server(("127.0.0.1", 21500)).close()


def test_bytes_both_ways_and_ends_each_way(served: tuple[str, int, int]) -> None:
    _, port, _ = served
    data = os.urandom(5_000_000)
    assert exchange(port, data) == data + b"5000000 bytes"


def test_many_at_once_and_one_that_does_not_read(served: tuple[str, int, int]) -> None:
    _, port, _ = served
    with socket.create_connection(("127.0.0.1", port), 5) as lazy:
        lazy.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                lazy.send(b"x" * 65536)  # what comes back fills all buffers: this one waits, nobody else
        found: list[bytes] = []
        clients = [
            threading.Thread(target=lambda n=n: found.append(exchange(port, b"%d" % n * 50_000)))
            for n in range(30)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert sorted(found) == sorted(
            b"%d" % n * 50_000 + b"%d bytes" % len(b"%d" % n * 50_000) for n in range(30)
        )


def test_an_abrupt_end_is_passed_on(served: tuple[str, int, int], engine: Engine) -> None:
    one, port, _ = served
    (proxy,) = proxies(engine, one)
    before = len(os.listdir(f"/proc/{proxy}/fd"))
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            client.send(b"x" * 1000)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    eventually(lambda: len(os.listdir(f"/proc/{proxy}/fd")) <= before + 4, what="nothing is left of them")
    assert exchange(port, b"x") == b"x1 bytes"


def test_nobody_listens_in_the_container(engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    engine.docker("run", "-d", "--name", one, *PROXY, "-p", "21510:80", busybox, "sleep", "60")
    with socket.create_connection(("127.0.0.1", 21510), 5) as client, pytest.raises(ConnectionResetError):
        client.recv(1)


def test_udp_answers_come_from_where_the_client_asked(served: tuple[str, int, int]) -> None:
    _, _, port = served
    for address in ("127.0.0.1", "127.0.0.77"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.5)
            client.connect((address, port))  # what comes from elsewhere is not heard

            def asked(client: socket.socket = client) -> bool:
                client.send(b"hi")
                with suppress(TimeoutError):
                    return client.recv(100) == b"<hi>"
                return False

            eventually(asked)
            big = os.urandom(60_000)
            client.send(big)
            while (got := client.recv(65535)) == b"<hi>":
                pass
            assert got == b"<" + big + b">"


def test_it_has_least_rights(served: tuple[str, int, int], engine: Engine) -> None:
    (proxy,) = proxies(engine, served[0])
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{proxy}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert status["Uid"].split() == ["65534"] * 4 and status["Gid"].split() == ["65534"] * 4
    assert [status[f"Cap{kind}"] for kind in ("Eff", "Prm", "Inh", "Bnd", "Amb")] == ["0" * 16] * 5
    assert status["Groups"].strip() == "" and status["Seccomp"] == "2" and status["NoNewPrivs"] == "1"
    files = [os.readlink(fd) for fd in Path(f"/proc/{proxy}/fd").iterdir()]
    assert all(file.startswith(("socket:", "pipe:", "anon_inode:", "/dev/null")) for file in files), files


def test_one_that_dies_is_started_again(served: tuple[str, int, int], engine: Engine) -> None:
    one, port, _ = served
    for _ in range(2):
        (proxy,) = proxies(engine, one)
        os.kill(proxy, signal.SIGKILL)
        eventually(lambda: exchange(port, b"x") == b"x1 bytes", what="who connects waits or is served")
        eventually(lambda proxy=proxy: proxies(engine, one) not in ([], [proxy]))


def test_an_image_does_not_choose_the_mode(engine: Engine, busybox: str, name: Names) -> None:
    one, image = name(), f"{name()}:x"
    made = engine.api("POST", f"/containers/create?name={one}", {"Image": busybox, "Cmd": ["true"]}).json()[
        "Id"
    ]
    engine.docker("commit", "--change", "LABEL sampan.publish-mode=proxy", made, image)
    two = name()
    engine.docker("run", "-d", "--name", two, "-p", "21520:80", image, "sleep", "60")
    assert proxies(engine, two) == []
    engine.docker("rm", "-f", two)
    engine.docker("rmi", image)


def test_what_cannot_be(cli: Cli, busybox: str) -> None:
    said = cli("run", "--rm", "--label", "sampan.publish-mode=magic", busybox, "true", code=125).err
    assert "sampan.publish-mode: 'magic' is none of nat, proxy" in said
    said = cli("run", "--rm", *PROXY, "-p", "21530:80/sctp", busybox, "true", code=125).err
    assert "80/sctp cannot be published by proxy" in said
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = cli("run", "--rm", *PROXY, "-p", f"{port}:80", busybox, "true", code=125).err
        assert "address already in use" in said


def test_the_whole_daemon_without_a_table_and_across_its_ends(
    make_daemon: Callable[..., Daemon], name: Names
) -> None:
    daemon = make_daemon("--publish-mode", "proxy", "--iptables=false").start()
    try:
        _across(daemon, name)
    finally:
        daemon.end()


def _across(daemon: Daemon, name: Names) -> None:
    one, two = name(), name()
    serve = [daemon.busybox, "sh", "-c", SERVE]
    daemon.docker("run", "-d", "--name", one, "--hostname", "box", "-p", "21540:80", *serve)
    by_nat = ["--label", "sampan.publish-mode=nat", "-p", "21541:80"]
    nat = daemon.docker("run", "--rm", *by_nat, daemon.busybox, "true", code=125)
    assert "--publish-mode proxy" in nat.err
    eventually(lambda: answer(21540) == b"box\n")
    (proxy,) = proxies(daemon, one)
    daemon.kill9()
    eventually(lambda: answer(21540) == b"box\n", what="it needs no daemon")
    daemon.start()
    assert proxies(daemon, one) == [proxy]
    eventually(lambda: answer(21540) == b"box\n")
    os.kill(proxy, signal.SIGKILL)
    eventually(lambda: answer(21540) == b"box\n", what="an adopted one is started again, too")
    (proxy,) = proxies(daemon, one)
    daemon.kill9()
    os.kill(proxy, signal.SIGKILL)
    daemon.start()
    eventually(lambda: answer(21540) == b"box\n", what="one that died while no daemon was there")
    (proxy,) = proxies(daemon, one)
    pid = daemon.api.pid(one)
    daemon.kill9()
    os.kill(pid, signal.SIGKILL)
    eventually(
        lambda: not Path(f"/proc/{proxy}").exists(), what="without a daemon it ends with the container"
    )
    daemon.start()
    daemon.docker("run", "-d", "--name", two, "--hostname", "two", "-p", "21540:80", *serve)
    eventually(lambda: answer(21540) == b"two\n")
    daemon.docker("rm", "-f", one, two)
    assert answer(21540) == b""


def test_a_range(engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    engine.docker(
        "run", "-d", "--name", one, *PROXY, "-p", "21600-21699:80-179", busybox, "nc", "-l", "-p", "179"
    )
    assert len(proxies(engine, one)) == 1
    with socket.create_connection(("127.0.0.1", 21699), 5) as client:
        client.sendall(b"last\n")
        eventually(lambda: "last" in engine.docker("logs", one).out)


def test_it_follows_the_container_to_another_network(
    engine: Engine, busybox: str, name: Names, network: Callable[..., str]
) -> None:
    one, other = name(), network()
    engine.docker(
        "run", "-d", "--name", one, "--hostname", "box", *PROXY, "-p", "21700:80", busybox, "sh", "-c", SERVE
    )
    eventually(lambda: answer(21700) == b"box\n")
    engine.docker("network", "connect", other, one)
    engine.docker("network", "disconnect", "bridge", one)
    eventually(lambda: answer(21700) == b"box\n")
    engine.docker("network", "disconnect", other, one)
    assert answer(21700) == b"" and proxies(engine, one) == []
    engine.docker("network", "connect", other, one)
    eventually(lambda: answer(21700) == b"box\n")
