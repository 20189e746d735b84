"""Networks of the user's through what happens to them: tampering, and a daemon that is killed."""

from __future__ import annotations

import itertools
import json
import os
import re
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from support.engine import Daemon
from support.machine import eventually
from support.nets import bridge_of, default_route, links, pings, shown


@pytest.mark.parametrize(
    "harm",
    [
        "ip link delete {bridge}",
        "ip link set {bridge} down && ip link set {bridge} name astray",
        "nft flush ruleset",
    ],
)
def test_what_somebody_takes_away_is_put_back(own: Daemon, harm: str) -> None:
    own.docker("network", "create", "--subnet", "10.232.20.0/24", "ahoy")
    run = ("run", "-d", "--network", "ahoy", "--stop-timeout", "0")
    own.docker(*run, "--name", "first", own.busybox, "sleep", "600")
    bridge = bridge_of(own, "ahoy")
    subprocess.run(harm.format(bridge=bridge), shell=True, check=True)
    own.docker(*run, "--name", "second", own.busybox, "sleep", "600")
    assert pings(own, "second", shown(own, "first", "ahoy")["IPAddress"])
    assert bridge in subprocess.check_output(["nft", "list", "ruleset"], text=True)
    assert "astray" not in links()


def test_a_killed_daemon_leaks_nothing(own: Daemon) -> None:
    before = links()
    own.docker("network", "create", "ahoy")
    own.docker("network", "create", "adrift")
    for one in ("first", "second"):
        own.docker("run", "-d", "--name", one, "--network", "ahoy", "-p", "80", own.busybox, "sleep", "600")
    own.docker("network", "connect", "adrift", "first")
    address = shown(own, "second", "ahoy")["IPAddress"]
    second = own.api.pid("second")
    own.kill9()
    os.kill(second, 9)
    own.start()
    assert shown(own, "first", "adrift")["IPAddress"] and shown(own, "second", "ahoy")["IPAddress"] == ""
    assert pings(own, "first", shown(own, "first", "ahoy")["Gateway"])
    own.docker("run", "-d", "--name", "third", "--network", "ahoy", own.busybox, "sleep", "600")
    assert pings(own, "third", shown(own, "first", "ahoy")["IPAddress"])
    assert address not in subprocess.check_output(["nft", "list", "ruleset"], text=True)
    own.docker("rm", "-f", "first", "second", "third")
    own.docker("network", "rm", "ahoy", "adrift")
    eventually(lambda: links() <= before, what=f"only {before} is left of {links()}")


def test_a_connection_that_a_crash_cut_short_is_taken_back(own: Daemon) -> None:
    own.docker("network", "create", "--subnet", "10.232.21.0/24", "ahoy")
    own.docker("network", "create", "beyond")
    own.docker("run", "-d", "--name", "one", "--network", "beyond", own.busybox, "sleep", "600")
    one = own.api.inspect("one")["Id"]
    ahoy, gateway = str(own.api.get("/networks/ahoy")["Id"]), default_route(own, "one")
    bridge, pid = bridge_of(own, "ahoy"), own.api.pid("one")
    own.kill9()
    # As a daemon leaves it that is killed after it has plugged the interface in and moved the default route.
    record = ("f" * 64, one, "10.232.21.9", "vethcut0", ahoy, "", "eth1", 0)
    with closing(sqlite3.connect(own.data_root / "sampan.db")) as database, database:
        database.execute(
            "INSERT INTO endpoints (id, container_id, address, veth, network_id, mac, interface, gw_priority)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            record,
        )
    inside = f"nsenter --target {pid} --net ip"
    for command in (
        f"ip link add vethcut0 master {bridge} type veth peer name eth1 netns {pid}",
        "ip link set vethcut0 up",
        f"{inside} addr add 10.232.21.9/24 dev eth1",
        f"{inside} link set eth1 up",
        f"{inside} route replace default via 10.232.21.1",
    ):
        subprocess.run(command, shell=True, check=True)
    own.start()
    assert set(own.api.inspect("one")["NetworkSettings"]["Networks"]) == {"beyond"}
    assert default_route(own, "one") == gateway
    assert "vethcut0" not in links()
    own.docker("run", "--rm", "--network", "ahoy", "--ip", "10.232.21.9", own.busybox, "true")


def test_a_disconnection_that_a_crash_cut_short_is_finished(own: Daemon) -> None:
    own.docker("network", "create", "ahoy")
    own.docker("run", "-d", "--name", "one", own.busybox, "sleep", "600")
    own.docker("network", "connect", "ahoy", "one")
    pid = own.api.pid("one")
    own.kill9()
    subprocess.run(f"nsenter --target {pid} --net ip link delete eth1", shell=True, check=True)
    own.start()
    assert set(own.api.inspect("one")["NetworkSettings"]["Networks"]) == {"bridge"}
    own.docker("network", "connect", "ahoy", "one")
    assert pings(own, "one", shown(own, "one", "ahoy")["Gateway"])


def test_address_pools(make_daemon: Callable[..., Daemon]) -> None:
    pools = [{"base": "10.232.64.0/26", "size": 28}, {"base": "10.232.65.0/28", "size": 29}]
    daemon = make_daemon(config=json.dumps({"default-address-pools": pools})).start()
    try:
        assert daemon.api.get("/info")["DefaultAddressPools"][0] == {"Base": "10.232.64.0/26", "Size": 28}

        def subnet(name: str) -> str:
            return str(daemon.api.get(f"/networks/{name}")["IPAM"]["Config"][0]["Subnet"])

        for number in range(6):
            daemon.docker("network", "create", f"ahoy{number}")
        given = [subnet(f"ahoy{number}") for number in range(6)]
        assert given[:4] == [f"10.232.64.{start}/28" for start in (0, 16, 32, 48)]
        assert given[4:] == ["10.232.65.0/29", "10.232.65.8/29"]
        full = daemon.docker("network", "create", "toomany", code=1)
        assert "all predefined address pools have been fully subnetted" in full.err
        daemon.docker("network", "rm", "ahoy2")
        daemon.docker("network", "create", "again")
        assert subnet("again") == given[2]
    finally:
        daemon.end()


def test_killed_while_networks_come_and_go(own: Daemon) -> None:
    before = links()

    def churn() -> None:
        for number in itertools.count():
            try:
                own.api("POST", "/networks/create", {"Name": f"ahoy{number % 4}"}, timeout=5)
                own.api("DELETE", f"/networks/ahoy{(number + 2) % 4}", timeout=5)
            except OSError:
                return

    for wait_s in (0.05, 0.11, 0.17, 0.23):
        worker = threading.Thread(target=churn)
        worker.start()
        time.sleep(wait_s)  # any moment will do
        own.kill9()
        worker.join()
        own.start()
        listed = {
            f"br-{one['Id'][:12]}": one for one in own.api.get("/networks") if one["Name"].startswith("ahoy")
        }
        assert {link for link in links() - before if link.startswith("br-")} == set(listed)
        ruleset = subprocess.check_output(["nft", "list", "table", "ip", f"sampan-{own.bridge}"], text=True)
        assert set(re.findall(r"br-[0-9a-f]{12}", ruleset)) == set(listed)
    for one in own.api.get("/networks"):
        own.api("DELETE", f"/networks/{one['Id']}")
    assert not [link for link in links() - before if link.startswith("br-")]


def test_a_clean_stop_and_a_start(own: Daemon) -> None:
    own.docker("network", "create", "--internal", "--label", "a=b", "ahoy")
    own.docker("create", "--name", "sleeper", "--network", "ahoy", own.busybox, "sleep", "600")
    before = own.api.get("/networks/ahoy")
    own.restart()
    assert own.api.get("/networks/ahoy") == before
    own.docker("start", "sleeper")
    assert pings(own, "sleeper", before["IPAM"]["Config"][0]["Gateway"])
    own.restart()
    own.docker("network", "connect", "bridge", "sleeper")
    assert pings(own, "sleeper", shown(own, "sleeper", "bridge")["Gateway"])
    own.docker("rm", "-f", "sleeper")
    own.docker("network", "rm", "ahoy")
