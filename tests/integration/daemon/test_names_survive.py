"""Containers go on resolving names while the daemon is dead, and when the resolver is killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import dns.exception

from support.engine import Daemon
from support.machine import alive, eventually
from support.names import ask, texts


def test_names_without_a_daemon_and_after_the_resolvers_death(own: Daemon) -> None:
    own.docker("network", "create", "net1")
    for name in ("web", "db1"):
        own.docker(
            "run", "-d", "--name", name, "--network", "net1", "--stop-timeout", "0", "busybox", "sleep", "600"
        )
    inspected = {name: own.api.inspect(name) for name in ("web", "db1")}
    netns = Path(f"/proc/{inspected['web']['State']['Pid']}/ns/net")
    there = inspected["db1"]["NetworkSettings"]["Networks"]["net1"]["IPAddress"]

    def resolver() -> int:
        return int(json.loads((own.exec_root / "resolver.json").read_text())["pid"])

    def works() -> bool:
        try:
            return texts(ask(netns, "db1", timeout_s=1)) == [there]
        except dns.exception.Timeout:
            return False  # it was on its way when the resolver died

    pid = resolver()
    assert works()
    own.kill9()
    assert works()
    own.start()
    assert works() and resolver() == pid
    own.docker("run", "--rm", "--network", "net1", "busybox", "nslookup", "db1")

    os.kill(pid, signal.SIGKILL)
    eventually(lambda: resolver() != pid)
    eventually(works)
    own.docker("run", "--rm", "--network", "net1", "busybox", "nslookup", "web")

    own.docker("rm", "-f", "db1")
    assert texts(ask(netns, "db1", timeout_s=10)) == []
    own.kill9()
    os.kill(resolver(), signal.SIGKILL)  # both at once
    own.start()
    assert texts(ask(netns, "web")) == [inspected["web"]["NetworkSettings"]["Networks"]["net1"]["IPAddress"]]

    pid = resolver()
    own.docker("rm", "-f", "web")
    assert alive(pid)
    own.restart()
    eventually(lambda: not alive(pid), what="the resolver leaves with the last container")
    assert not (own.exec_root / "resolver.sock").exists()


def test_it_leaves_when_the_last_container_ends_while_no_daemon_is_there(own: Daemon) -> None:
    own.docker("network", "create", "net1")
    own.docker("run", "-d", "--name", "web", "--network", "net1", "busybox", "sleep", "600")
    pid = int(json.loads((own.exec_root / "resolver.json").read_text())["pid"])
    process = own.api.inspect("web")["State"]["Pid"]
    own.kill9()
    assert alive(pid)
    os.kill(process, signal.SIGKILL)
    eventually(lambda: not alive(pid), what="the resolver leaves")
    own.start()
    own.docker("start", "web")
    assert texts(ask(Path(f"/proc/{own.api.inspect('web')['State']['Pid']}/ns/net"), "web"))
