"""Networks of the user's through what happens to them: tampering, and a daemon that is killed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable

import pytest

from support.engine import Daemon
from support.machine import eventually
from support.nets import bridge_of, links, pings, shown


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
