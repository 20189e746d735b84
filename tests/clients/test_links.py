"""`--link` on the default bridge: names, variables, and ports where the bridge keeps its containers apart."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from support.engine import Daemon, Engine
from support.machine import eventually
from support.names import inside
from support.nets import shown
from support.outside import Servers, netns_of

Names = Callable[[], str]
Up = Callable[..., str]


def address(engine: Engine, container: str) -> str:
    return str(shown(engine, container, "bridge")["IPAddress"])


def hosts(engine: Engine, container: str) -> list[list[str]]:
    return [line.split() for line in engine.docker("exec", container, "cat", "/etc/hosts").lines]


def test_what_a_link_tells(engine: Engine, up: Up, name: Names, busybox: str) -> None:
    expose = [f"--expose={port}" for port in ("6379", "5431-5432", "53/udp")]
    target = up("--hostname", "anchor", "-e", "ROLE=store", "-e", "HOME=/x", *expose)
    web, theirs = name(), address(engine, target)
    words = ("--name", web, "--link", f"{target}:my-db", "-e", "MY_DB_ENV_ROLE=mine")
    engine.docker("run", "-d", "--stop-timeout", "0", *words, busybox, "sleep", "600")
    assert [theirs, "my-db", "anchor", target] in hosts(engine, web)
    wanted = {
        "MY_DB_PORT": f"tcp://{theirs}:5431",
        "MY_DB_PORT_5431_TCP": f"tcp://{theirs}:5431",
        "MY_DB_PORT_5431_TCP_ADDR": theirs,
        "MY_DB_PORT_5431_TCP_PORT": "5431",
        "MY_DB_PORT_5431_TCP_PROTO": "tcp",
        "MY_DB_PORT_5431_TCP_START": f"tcp://{theirs}:5431",
        "MY_DB_PORT_5431_TCP_PORT_START": "5431",
        "MY_DB_PORT_5431_TCP_END": f"tcp://{theirs}:5432",
        "MY_DB_PORT_5431_TCP_PORT_END": "5432",
        "MY_DB_PORT_5432_TCP_ADDR": theirs,
        "MY_DB_PORT_6379_TCP": f"tcp://{theirs}:6379",
        "MY_DB_PORT_53_UDP": f"udp://{theirs}:53",
        "MY_DB_NAME": f"/{web}/my-db",
        "MY_DB_ENV_ROLE": "mine",  # what the user says himself holds
    }
    with open(f"/proc/{engine.api.pid(web)}/environ") as file:
        born = dict(one.split("=", 1) for one in file.read().split("\0") if one)
    later = dict(line.split("=", 1) for line in engine.docker("exec", web, "env").lines)
    for found in (born, later):
        assert wanted.items() <= found.items()
        assert not {"MY_DB_ENV_HOME", "MY_DB_ENV_PATH", "MY_DB_PORT_6379_TCP_START"} & found.keys()


def test_a_link_is_a_name_too(engine: Engine, up: Up) -> None:
    target = up()
    web = up("--link", f"{target}:db")
    assert engine.api.inspect(web)["HostConfig"]["Links"] == [f"/{target}:/{web}/db"]
    assert engine.api.inspect(f"{web}/db")["Name"] == f"/{target}"
    assert engine.docker("exec", f"{web}/db", "hostname").out == engine.docker("exec", target, "hostname").out
    (listed,) = (one for one in engine.api.containers() if f"/{target}" in one["Names"])
    assert listed["Names"] == [f"/{target}", f"/{web}/db"]
    (line,) = engine.docker("ps", "--filter", f"id={listed['Id']}", "--format", "{{.Names}}").lines
    assert line == target
    whole = engine.docker("ps", "--no-trunc", "--filter", f"id={listed['Id']}", "--format", "{{.Names}}")
    assert whole.out.strip() == f"{target},{web}/db"
    renamed = f"{target}x"
    engine.docker("rename", target, renamed)
    assert engine.api.inspect(web)["HostConfig"]["Links"] == [f"/{renamed}:/{web}/db"]

    done = engine.docker("rm", "--link", f"/{target}x", code=1)
    assert "cannot remove the default link name of the container" in done.err
    assert "No such container" in engine.docker("rm", "--link", f"{web}/nothing", code=1).err
    assert engine.docker("rm", "--link", f"{web}/db").out.strip() == f"{web}/db"
    assert not any("db" in names for _, *names in hosts(engine, web))
    assert engine.api.inspect(web)["HostConfig"]["Links"] is None
    assert engine.api.inspect(renamed)["State"]["Running"]
    assert "No such container" in engine.docker("exec", f"{web}/db", "true", code=1).err
    engine.docker("rm", "-f", renamed)
    engine.docker("restart", "-t", "0", web)  # which asks for nobody now


def test_who_is_linked_to(engine: Engine, up: Up, busybox: str) -> None:
    def refused(*words: str) -> str:
        done = engine.docker(*words, code=None)
        assert done.code != 0, words
        return done.err

    assert "could not get container for nosuch" in refused("create", "--link", "nosuch:x", busybox, "true")
    on_host = up("--network", "host")
    assert "host type networking can't be used with links" in refused(
        "create", "--link", on_host, busybox, "true"
    )
    target = up()
    guest = up("--network", f"container:{target}")
    web = up("--link", f"{guest}:one", "--link", target)
    assert [address(engine, target), "one"] in [line[:2] for line in hosts(engine, web)]
    engine.docker("rm", "-f", guest)
    engine.docker("stop", "-t", "0", target, web)
    words = f"Cannot link to a non running container: /{target} AS /{web}/"
    assert words in refused("start", web)
    engine.docker("rm", target)
    assert "Cannot link to a non running container: /" in refused("start", web)
    assert not engine.api.inspect(web)["State"]["Running"]


def test_names_follow_a_restart(engine: Engine, up: Up) -> None:
    target = up()
    web = up("--link", f"{target}:db", "--add-host", "other:192.0.2.1")
    before = address(engine, target)
    engine.docker("stop", "-t", "0", target)
    taker = up()  # has the address that was the target's, which a pool may give out last
    engine.docker("start", target)
    now = address(engine, target)
    lines = hosts(engine, web)
    assert [line[0] for line in lines if "db" in line[1:]] == [now]
    assert ["192.0.2.1", "other"] in lines and (before != now or address(engine, taker) != before)
    engine.docker("network", "disconnect", "bridge", target)
    up()  # has that address now
    engine.docker("network", "connect", "bridge", target)
    now = address(engine, target)
    assert [line[0] for line in hosts(engine, web) if "db" in line[1:]] == [now]


# --- a bridge that keeps its containers apart ---


@pytest.fixture(scope="module")
def apart(make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    daemon = make_daemon("--icc=false").start()
    yield daemon
    daemon.end()


def reaches(engine: Engine, one: str, there: str, port: int, wait: float = 10) -> bool:
    def work() -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection((there, port), timeout=wait).close()
            return True
        return False

    return inside(netns_of(engine, one), work)


def test_a_link_opens_exposed_ports_alone(apart: Daemon) -> None:
    own = apart
    run = ("run", "-d", "--stop-timeout", "0", "--name")
    own.docker(*run, "db", "--expose", "5432", own.busybox, "sleep", "600")
    own.docker(*run, "web", "--link", "db", own.busybox, "sleep", "600")
    own.docker(*run, "stranger", own.busybox, "sleep", "600")
    with contextlib.ExitStack() as undo:

        def listen() -> None:
            for one, ports in (("db", (5432, 5433)), ("web", (5432,))):
                undo.callback(Servers(netns_of(own, one), [address(own, one)], ports, []).close)

        def shut(*ways: tuple[str, str, int]) -> None:
            for one, other, port in ways:
                assert not reaches(own, one, address(own, other), port, wait=0.15), (one, other, port)

        listen()
        closed = (
            ("web", "db", 5433),
            ("db", "web", 5432),
            ("stranger", "db", 5432),
            ("stranger", "web", 5432),
        )
        assert reaches(own, "web", address(own, "db"), 5432)
        shut(*closed)
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        eventually(lambda: reaches(own, "web", address(own, "db"), 5432), what="put back with the link")
        eventually(lambda: "were removed or changed" in own.log_text() or "put back" in own.log_text())
        shut(*closed)
        own.kill9()
        own.start()
        assert reaches(own, "web", address(own, "db"), 5432)
        shut(*closed)

        undo.close()
        own.docker("restart", "-t", "0", "db")
        listen()
        assert reaches(own, "web", address(own, "db"), 5432)
        shut(*closed)
        own.docker("rm", "--link", "web/db")
        shut(("web", "db", 5432), *closed)
    switch = f"/proc/sys/net/ipv4/conf/{own.bridge}/proxy_arp_pvlan"
    with open(switch) as file:
        assert file.read().strip() == "0"
    own.docker("rm", "-f", "db", "web", "stranger")


def test_who_leaves_takes_its_openings_along(apart: Daemon) -> None:
    own = apart
    run = ("run", "-d", "--stop-timeout", "0", "--name")
    own.docker(*run, "db", "--expose", "5432", own.busybox, "sleep", "600")
    own.docker(*run, "web", "--link", "db", own.busybox, "sleep", "600")
    listed = ("nft", "list", "set", "ip", f"sampan-{own.bridge}", "passages")
    assert address(own, "web") in subprocess.check_output(listed, text=True)
    own.docker("rm", "-f", "web")
    eventually(lambda: subprocess.run(listed, capture_output=True, check=False).returncode != 0)
    own.docker("rm", "-f", "db")
