"""`run -p`: who reaches a published port, by which way, and who does not."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from support.cli import Cli
from support.engine import Daemon, Engine
from support.machine import eventually
from support.needs import program
from support.nets import FETCH, another_machine, shown

Names = Callable[[], str]
pytestmark = program("ip", "iproute2")
TRUSTED = "com.docker.network.bridge.trusted_host_interfaces"
SERVE = "while :; do echo $(cat /proc/sys/kernel/hostname) | nc -l -p 80; done"


def ask(port: int, address: str = "127.0.0.1", text: bytes = b"") -> bytes:
    """What a TCP port answers until it closes."""
    with socket.create_connection((address, port), 5) as connection:
        if text:
            connection.sendall(text)
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
        return answer


def answers(port: int, address: str = "127.0.0.1") -> bytes:
    """As `ask`, empty when nobody answers."""
    try:
        return ask(port, address)
    except OSError:
        return b""


def bound(engine: Engine, container: str, port: str = "80/tcp") -> list[tuple[str, int]]:
    ports = engine.api.inspect(container)["NetworkSettings"]["Ports"]
    return [(one["HostIp"], int(one["HostPort"])) for one in ports[port]]


@pytest.fixture(scope="module")
def lan() -> Iterator[tuple[str, str, Callable[..., str]]]:
    with another_machine() as found:
        yield found


def test_from_the_host_and_from_another_machine(
    cli: Cli, engine: Engine, busybox: str, name: Names, lan: tuple[str, str, Callable[..., str]]
) -> None:
    one = name()
    cli("run", "-d", "--name", one, "--hostname", "box", "-p", "80", busybox, "sh", "-c", SERVE)
    ((address, port),) = bound(engine, one)
    assert address == "0.0.0.0" and port >= 1024
    here, _, far = lan
    for way in ("127.0.0.1", "127.0.0.53", here):
        eventually(lambda way=way: answers(port, way) == b"box\n", what=way)
    assert far("python3", "-c", FETCH, here, str(port)) == "box\n"
    assert cli("port", one, "80").out == f"0.0.0.0:{port}\n"
    assert f"0.0.0.0:{port}->80/tcp" in cli("ps", "--filter", f"name={one}").out
    cli("rm", "-f", one)
    assert answers(port, here) == b""


def test_the_peers_address_is_kept(
    engine: Engine, busybox: str, name: Names, lan: tuple[str, str, Callable[..., str]]
) -> None:
    one = name()
    script = "nc -l -p 80 -e sh -c 'sleep 5' & sleep 0.3; while :; do netstat -tn; sleep 0.2; done"
    engine.docker("run", "-d", "--name", one, "-p", "80", busybox, "sh", "-c", script)
    ((_, port),) = bound(engine, one)
    here, there, far = lan
    eventually(lambda: far("python3", "-c", FETCH.replace("100", "1"), here, str(port)) or True)
    eventually(lambda: f"{there}:" in engine.docker("logs", one).out)


def test_at_one_address_only(
    engine: Engine, busybox: str, name: Names, lan: tuple[str, str, Callable[..., str]]
) -> None:
    one, other = name(), name()
    serve = [busybox, "sh", "-c", SERVE]
    engine.docker("run", "-d", "--name", one, "--hostname", "one", "-p", "127.0.0.1::80", *serve)
    ((address, port),) = bound(engine, one)
    assert address == "127.0.0.1"
    here, _, far = lan
    eventually(lambda: answers(port) == b"one\n")
    assert answers(port, here) == b"" and far("python3", "-c", FETCH, here, str(port)) == ""
    # The same port at another address is another's to have; at all of them it is not.
    engine.docker("run", "-d", "--name", other, "--hostname", "other", "-p", f"{here}:{port}:80", *serve)
    eventually(lambda: far("python3", "-c", FETCH, here, str(port)) == "other\n")
    assert answers(port) == b"one\n"
    taken = engine.docker("run", "--rm", "-p", f"{port}:80", busybox, "true", code=125)
    assert f"Bind for 0.0.0.0:{port} failed: port is already allocated" in taken.err


def test_containers_reach_published_ports_of_others_and_their_own(
    cli: Cli, engine: Engine, busybox: str, name: Names, lan: tuple[str, str, Callable[..., str]]
) -> None:
    one = name()
    cli("run", "-d", "--name", one, "--hostname", "box", "-p", "80", busybox, "sh", "-c", SERVE)
    ((_, port),) = bound(engine, one)
    here = lan[0]
    fetch = ["nc", "-w", "3", here, str(port)]
    eventually(lambda: cli("run", "--rm", busybox, *fetch, code=None).out == "box\n")
    eventually(lambda: cli("exec", one, *fetch, code=None).out == "box\n")


def test_containers_do_not_reach_the_hosts_loopback(cli: Cli, daemon: Daemon) -> None:
    """`route_localnet`, which 127.0.0.1:PORT needs, would open it without our rule."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        gateway = str(ipaddress.ip_interface(daemon.bip).ip)
        script = (
            f"ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via {gateway}; nc -w 2 127.0.0.1 {port}"
        )
        cli("run", "--rm", "--cap-add", "NET_ADMIN", daemon.busybox, "sh", "-c", script, code=1)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_what_is_not_published_is_not_reached(
    engine: Engine,
    busybox: str,
    name: Names,
    network: Callable[..., str],
    lan: tuple[str, str, Callable[..., str]],
) -> None:
    """At a container's own address: nothing; by an interface that its network trusts, what is published."""
    here, _, far = lan
    one, serve = name(), f"({SERVE.replace('80', '81')}) & {SERVE}"
    trusted, other = network("-o", f"{TRUSTED}=nosuch0:lan{os.getpid() % 9999}"), network()
    engine.docker(
        *("run", "-d", "--name", one, "--hostname", "box", "--network", trusted, "-p", "127.0.0.1::80"),
        *(busybox, "sh", "-c", serve),
    )

    def reaches(network: str, port: str, patience: str = "5") -> bool:
        inner = str(shown(engine, one, network)["IPAddress"])
        far("ip", "route", "replace", inner, "via", here)
        return far("timeout", patience, "python3", "-c", FETCH, inner, port) == "box\n"

    eventually(lambda: reaches(trusted, "80"))
    assert not reaches(trusted, "81", "0.5")
    inner = str(shown(engine, one, trusted)["IPAddress"])
    words = ("run", "--rm", "--network", other, busybox, "nc", "-w", "1", inner, "80")
    assert engine.docker(*words, code=None).out == "", "from another network, that is no trusted interface"
    engine.docker("network", "connect", "--gw-priority", "1", other, one)  # where its ports go from now on
    assert not reaches(other, "80", "0.5") and not reaches(trusted, "80", "0.5")
    engine.docker("network", "disconnect", other, one)
    assert reaches(trusted, "80")
    engine.docker("rm", "-f", one)
    table = subprocess.check_output(["nft", "list", "ruleset"], text=True)
    assert f'"lan{os.getpid() % 9999}"' not in table


ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 53))
while True:
    data, peer = s.recvfrom(100)
    s.sendto(b"<" + data + b">", peer)
"""


def test_udp(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "-d", "--name", one, "-p", "53/udp", busybox, "sleep", "60")
    ((_, port),) = bound(engine, one, "53/udp")
    inside = ["nsenter", "--target", str(engine.api.pid(one)), "--net", "python3", "-c", ECHO]
    server = subprocess.Popen(inside)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.5)
            client.connect(("127.0.0.1", port))

            def asked() -> bool:
                with contextlib.suppress(OSError):
                    client.send(b"hi")
                    return client.recv(100) == b"<hi>"
                return False

            eventually(asked)
    finally:
        server.kill()
        server.wait()


def test_ranges_and_all_exposed(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one, other = name(), name()
    cli(
        "run",
        "-d",
        "--name",
        one,
        "-p",
        "21000-21003:80-83",
        "-p",
        "21010-21019:90/udp",
        busybox,
        "sleep",
        "60",
    )
    shown = engine.api.inspect(one)["NetworkSettings"]["Ports"]
    assert [shown[f"{80 + n}/tcp"][0]["HostPort"] for n in range(4)] == ["21000", "21001", "21002", "21003"]
    assert 21010 <= int(shown["90/udp"][0]["HostPort"]) <= 21019
    cli(
        "run",
        "-d",
        "--name",
        other,
        "-P",
        "--expose",
        "7001-7003",
        "-p",
        "21050:7002",
        busybox,
        "sleep",
        "60",
    )
    shown = engine.api.inspect(other)["NetworkSettings"]["Ports"]
    assert [one["HostPort"] for one in shown["7002/tcp"]] == ["21050"]
    assert len({shown[f"{port}/tcp"][0]["HostPort"] for port in (7001, 7003)}) == 2


def test_ports_are_free_again_after_a_stop_and_taken_at_the_start(
    engine: Engine, busybox: str, name: Names
) -> None:
    one, other = name(), name()
    engine.docker("run", "-d", "--name", one, "-p", "21100:80", busybox, "sleep", "60")
    refused = engine.docker("run", "--name", other, "-d", "-p", "21100:80", busybox, "sleep", "60", code=125)
    assert "port is already allocated" in refused.err
    assert engine.api.inspect(other)["State"]["Status"] == "created"
    engine.docker("stop", "-t", "0", one)
    assert engine.api.inspect(one)["NetworkSettings"]["Ports"] == {}
    engine.docker("start", other)
    assert bound(engine, other) == [("0.0.0.0", 21100)]
    assert "port is already allocated" in engine.docker("start", one, code=1).err
    engine.docker("rm", "-f", other)
    engine.docker("start", one)
    for _ in range(5):  # free at once, each time
        engine.docker("rm", "-f", one)
        engine.docker("run", "-d", "--name", one, "-p", "21100:80", busybox, "sleep", "60")


def test_a_program_of_the_hosts_keeps_its_port(cli: Cli, busybox: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for place in (f"{port}:80", f"127.0.0.1:{port}:80"):
            refused = cli("run", "--rm", "-p", place, busybox, "true", code=125)
            assert "address already in use" in refused.err
    assert (
        "requested address" in cli("run", "--rm", "-p", "203.0.113.77:80:80", busybox, "true", code=125).err
    )


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_published_port_is_held_against_programs_that_come_later(
    cli: Cli, busybox: str, name: Names, kind: socket.SocketKind
) -> None:
    one, where = name(), "21150:80" if kind == socket.SOCK_STREAM else "21150:80/udp"
    cli("run", "-d", "--name", one, "-p", where, busybox, "sleep", "60")
    for address in ("0.0.0.0", "127.0.0.1"):
        with socket.socket(socket.AF_INET, kind) as late, pytest.raises(OSError, match="already in use"):
            if kind == socket.SOCK_STREAM:
                late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            late.bind((address, 21150))
    cli("rm", "-f", one)
    with socket.socket(socket.AF_INET, kind) as late:
        late.bind(("0.0.0.0", 21150))


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("[fe80::1]:21200:80", "link-local"),
        ("21200:80/icmp", "invalid proto"),
        ("70000:80", "invalid"),
        ("21200:0", ""),
        ("1.2.3:21200:80", "invalid IP address"),
        ("21200-21203:80-81", "invalid ranges"),
    ],
)
def test_what_cannot_be_published(cli: Cli, engine: Engine, busybox: str, place: str, text: str) -> None:
    before = len(engine.api.containers())
    assert text in cli("run", "--rm", "-p", place, busybox, "true", code=125).err
    assert len(engine.api.containers()) == before


def test_host_and_none(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    said = cli("run", "--rm", "--network", "host", "-p", "21300:80", busybox, "true").err
    assert "Published ports are discarded when using host network mode" in said
    one = name()
    cli("run", "-d", "--name", one, "--network", "none", "-p", "21300:80", busybox, "sleep", "60")
    assert engine.api.inspect(one)["NetworkSettings"]["Ports"] == {}


def test_many_cost_a_moment_and_no_process(engine: Engine, busybox: str, name: Names) -> None:
    bindings = {f"{port}/tcp": [{"HostIp": "", "HostPort": str(port)}] for port in range(22000, 32000)}
    body = {"Image": busybox, "Cmd": ["sleep", "60"], "HostConfig": {"PortBindings": bindings}}
    one = engine.api("POST", f"/containers/create?name={name()}", body).json()["Id"]
    began = time.monotonic()
    assert engine.api("POST", f"/containers/{one}/start").status == 204
    took = time.monotonic() - began
    listed = subprocess.check_output(["nft", "list", "ruleset"], text=True)
    assert listed.count("tcp . ") >= 10_000
    assert len(engine.api.inspect(one)["NetworkSettings"]["Ports"]) == 10_000
    if isinstance(engine, Daemon):
        assert engine.pid is not None
        assert len(os.listdir(f"/proc/{engine.pid}/fd")) < 600, "ten thousand sockets hold no ports"
    assert took < 20, "a thousand take a tenth of it; it is the machine that is busy here"
    engine.api.remove(one)


def test_they_outlive_the_daemon_and_a_flushed_firewall(
    make_daemon: Callable[..., Daemon], name: Names
) -> None:
    daemon = make_daemon().start()
    try:
        _outlive(daemon, name)
    finally:
        daemon.end()


def _outlive(daemon: Daemon, name: Names) -> None:
    one, other = name(), name()
    daemon.docker(
        "run", "-d", "--name", one, "--hostname", "box", "-p", "21400:80", daemon.busybox, "sh", "-c", SERVE
    )
    eventually(lambda: answers(21400) == b"box\n")
    daemon.kill9()
    # No packet passes the daemon; who answers begins anew for each that asks.
    eventually(lambda: answers(21400) == b"box\n", what="an answer without a daemon")
    with socket.create_server(("127.0.0.1", 21400)):
        daemon.start()  # who has taken it while nobody held it keeps it, and hears nothing
        eventually(lambda: answers(21400) == b"box\n")
    daemon.kill9()
    daemon.start()
    with pytest.raises(OSError, match="already in use"):
        socket.create_server(("127.0.0.1", 21400))
    assert (
        "already allocated"
        in daemon.docker("run", "--rm", "-p", "21400:80", daemon.busybox, "true", code=125).err
    )
    subprocess.run(["nft", "delete", "table", f"sampan-{daemon.bridge}"], check=True)
    daemon.docker("run", "-d", "--name", other, "-p", "21401:80", daemon.busybox, "sleep", "60")
    eventually(lambda: answers(21400) == b"box\n", what="a start puts the table back, with all in it")
    listed = json.loads(subprocess.check_output(["nft", "-j", "list", "ruleset"]))
    assert "21401" in json.dumps(listed)
    daemon.docker("rm", "-f", one, other)
    assert "21400" not in subprocess.check_output(["nft", "list", "ruleset"], text=True)
    assert not answers(21400)
