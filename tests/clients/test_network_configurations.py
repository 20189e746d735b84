"""`network create --config-only` and `--config-from`, by docker's client and ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from support.cli import Cli
from support.engine import Daemon, Engine
from support.nets import links, shown

Names = Callable[[], str]


@pytest.fixture
def made(cli: Cli, engine: Engine, name: Names) -> Iterator[Callable[..., str]]:
    """Makes networks; those made last go first."""
    names: list[str] = []

    def make(*options: str) -> str:
        names.append(name())
        cli("network", "create", *options, names[-1])
        return names[-1]

    yield make
    for one in reversed(names):
        engine.api("DELETE", f"/networks/{one}")


def test_a_network_is_made_after_a_configuration(
    cli: Cli, engine: Engine, made: Callable[..., str], busybox: str, name: Names
) -> None:
    before = links()
    plan = made(
        *("--config-only", "--subnet", "10.230.7.0/24", "--gateway", "10.230.7.9", "--label", "tier=front"),
        *("--ipv6", "--subnet", "fd3d:7::/64", "-o", "com.docker.network.driver.mtu=1400"),
    )
    assert links() == before
    (shape,) = json.loads(cli("network", "inspect", plan).out)
    assert shape["ConfigOnly"] and shape["Driver"] == "null" and shape["Labels"] == {"tier": "front"}
    assert [pool["Subnet"] for pool in shape["IPAM"]["Config"]] == ["10.230.7.0/24", "fd3d:7::/64"]
    one = made("--config-from", plan)
    (shape,) = json.loads(cli("network", "inspect", one).out)
    assert (
        shape["ConfigFrom"] == {"Network": plan} and not shape["ConfigOnly"] and shape["Driver"] == "bridge"
    )
    assert shape["Labels"] == {"tier": "front"} and shape["EnableIPv6"]
    assert shape["IPAM"]["Config"][0] == {"Subnet": "10.230.7.0/24", "Gateway": "10.230.7.9"}
    box = name()
    cli("run", "-d", "--name", box, "--network", one, "--ip", "10.230.7.77", busybox, "sleep", "60")
    assert "mtu 1400" in cli("exec", box, "ip", "link", "show", "eth0").out
    assert shown(engine, box, one)["GlobalIPv6Address"].startswith("fd3d:7::")
    used = cli("network", "rm", plan, code=1)
    assert f'configuration network "{plan}" is in use' in used.err
    cli("rm", "-f", box)
    cli("network", "prune", "-f")
    assert json.loads(cli("network", "inspect", plan).out), "a configuration is not pruned"
    assert cli("network", "inspect", one, code=1).code == 1


def test_what_cannot_be(cli: Cli, engine: Engine, made: Callable[..., str], busybox: str) -> None:
    plan, plain = made("--config-only", "--subnet", "10.230.8.0/24"), made()
    for words, said in (
        (f"network create --config-only --config-from {plan} xx", "cannot depend on another configuration"),
        ("network create --config-only --internal xx", "only contain network specific fields"),
        (
            f"network create --config-from {plan} --subnet 10.230.9.0/24 xx",
            "not supported if the network depends",
        ),
        (f"network create --config-from {plan} --label a=b xx", "not supported if the network depends"),
        (f"network create --config-from {plain} xx", "is not a configuration network"),
        ("network create --config-from nosuch xx", "network nosuch not found"),
        ("network create --config-only --subnet 10.230.8.1/24 xx", "it should be 10.230.8.0/24"),
        (f"network create --config-only {plan}", "already exists"),
        (f"run --rm --network {plan} {busybox} true", "configuration-only network"),
    ):
        done = cli(*words.split(), code=None)
        assert done.code != 0 and said in done.err, (words, done.err)
    assert not [each for each in engine.api.get("/networks") if each["Name"] == "xx"]


def test_it_outlives_the_daemon(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    try:
        daemon.docker("network", "create", "--config-only", "--subnet", "10.230.10.0/24", "plan")
        daemon.docker("network", "create", "--config-from", "plan", "one")
        daemon.kill9()
        daemon.start()
        assert daemon.api.get("/networks/plan")["ConfigOnly"]
        assert daemon.docker("network", "rm", "plan", code=1).code == 1
        daemon.docker("run", "--rm", "--network", "one", daemon.busybox, "true")
        daemon.docker("network", "rm", "one", "plan")
        assert "not be set up" not in daemon.log_text()
    finally:
        daemon.end()
