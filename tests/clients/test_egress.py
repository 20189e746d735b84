"""Egress policies: what containers with one reach, and do not, in a world that the test makes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import dns.rcode
import pytest

from support.engine import Engine
from support.machine import eventually
from support.names import ask, texts
from support.needs import program
from support.nets import shown
from support.outside import (
    Outside,
    Servers,
    connected,
    echoes,
    netns_of,
    reach,
    refusals,
    tcp,
    udp,
)

REFUSED = "Connection refused"

Names = Callable[[], str]
Network = Callable[..., str]
Up = Callable[..., str]


@pytest.fixture
def sandboxed(engine: Engine, name: Names, busybox: str, world: Outside) -> Up:
    """Starts a container with a policy and this world's DNS; its name."""

    def start(policy: str, *options: str) -> str:
        one = name()
        words = ("run", "-d", "--name", one, "--stop-timeout", "0", "--label", f"sampan.egress={policy}")
        engine.docker(*words, "--dns", world.dns, *options, busybox, "sleep", "600")
        return one

    return start


def test_without_a_policy_all_is_open(engine: Engine, world: Outside, up: Up) -> None:
    one = up()
    assert tcp(engine, one, world.addresses[0]) == "" and udp(engine, one, world.addresses[0])


@pytest.mark.parametrize("own_network", [False, True])
def test_deny_lets_nothing_out(
    engine: Engine, world: Outside, sandboxed: Up, network: Network, own_network: bool
) -> None:
    one = sandboxed("deny", *(("--network", network()) if own_network else ()))
    for address in (world.addresses[0], world.PRIVATE):
        assert tcp(engine, one, address) == REFUSED
        assert not udp(engine, one, address)
    before = len(world.questions)
    answer = ask(netns_of(engine, one), "example.com", edns=1232)
    assert answer.rcode() == dns.rcode.NXDOMAIN and "18" in str(answer.options[0].to_text())
    assert len(world.questions) == before


def test_names_open_what_they_are_answered_with(engine: Engine, world: Outside, sandboxed: Up) -> None:
    first, second, third, *_ = world.addresses
    world.zone |= {
        "pypi.org": [f"A {first}"],
        "deb.debian.org": ["CNAME cdn.example.net"],
        "cdn.example.net": [f"A {second}"],
        "evil.org": [f"A {third}"],
    }
    one = sandboxed("allow:pypi.org,*.debian.org:443")
    assert tcp(engine, one, first) == REFUSED  # not before it was asked for
    assert texts(ask(netns_of(engine, one), "PyPI.org")) == [first]
    assert tcp(engine, one, first) == tcp(engine, one, first, 443) == ""
    assert udp(engine, one, first)
    assert texts(ask(netns_of(engine, one), "deb.debian.org", tcp=True)) == ["cdn.example.net.", second]
    assert tcp(engine, one, second, 443) == "" and udp(engine, one, second, 443)
    assert tcp(engine, one, second, 80) == REFUSED
    for name in ("evil.org", "debian.org", "cdn.example.net", "xpypi.org", "pypi.org.evil.org"):
        before = len(world.questions)
        assert ask(netns_of(engine, one), name).rcode() == dns.rcode.NXDOMAIN, name
        assert len(world.questions) == before
    assert tcp(engine, one, third) == REFUSED
    assert ask(netns_of(engine, one), "pypi.org", "AAAA").answer == []
    engine.docker("exec", one, "nslookup", "pypi.org")


def test_names_with_ranges_of_ports(engine: Engine, world: Outside, sandboxed: Up) -> None:
    first, *_ = world.addresses
    world.zone |= {"low.org": [f"A {first}"], "high.org": [f"A {first}"]}
    one = sandboxed("allow:low.org:79-200,high.org:100-8000,*.org:80-80")
    netns = netns_of(engine, one)
    for _ in range(2):  # the second time what is there is prolonged
        assert texts(ask(netns, "low.org")) == [first]
    assert tcp(engine, one, first) == "" and udp(engine, one, first)
    assert tcp(engine, one, first, 443) == REFUSED
    assert texts(ask(netns, "high.org")) == [first]  # the same address, ports that overlap
    assert tcp(engine, one, first, 443) == "" and tcp(engine, one, first) == ""
    shown = engine.api.get(f"/containers/{one}/egress")["Open"]
    assert {(it["Port"], it["LastPort"]) for it in shown} == {(79, 99), (100, 200), (201, 8000), (80, 80)}
    policy = {"Policy": "allow:high.org:400-500"}
    assert engine.api("PUT", f"/containers/{one}/egress", policy).status in (200, 204)
    assert tcp(engine, one, first, 443) == "" and tcp(engine, one, first) == REFUSED


def test_addresses_and_networks(engine: Engine, world: Outside, sandboxed: Up) -> None:
    first, second, third, *_ = world.addresses
    one = sandboxed(f"allow:{first},{second}:443,10.0.0.0/8:80-100,10.99.0.0/16:80")
    assert tcp(engine, one, first) == "" and udp(engine, one, first)
    assert tcp(engine, one, second, 443) == "" and tcp(engine, one, second) == REFUSED
    assert tcp(engine, one, world.PRIVATE) == "" and tcp(engine, one, world.PRIVATE, 443) == REFUSED
    assert tcp(engine, one, third) == REFUSED
    assert subprocess.run(
        ["nsenter", f"--net={netns_of(engine, one)}", "busybox", "ping", "-c1", "-W5", first], check=False
    ).returncode == 0  # fmt: skip


def test_neighbours_and_published_ports(
    engine: Engine, world: Outside, sandboxed: Up, network: Network, up: Up
) -> None:
    net = network()
    one = sandboxed("deny", "--network", net, "-p", "8123:80")
    other = up("--network", net)
    own, theirs = (shown(engine, container, net)["IPAddress"] for container in (one, other))
    assert texts(ask(netns_of(engine, one), other)) == [theirs]
    with contextlib.ExitStack() as undo:
        for container, address in ((one, own), (other, theirs)):
            servers = Servers(netns_of(engine, container), [address], (80,), [])
            undo.callback(servers.close)
        assert tcp(engine, one, theirs) == "" and udp(engine, one, theirs)
        assert tcp(engine, other, own) == ""
        assert reach(world.netns, world.router, 8123) == ""  # the answers of a published port get out


def test_ipv6_is_judged_as_ipv4_is(
    engine: Engine, world: Outside, sandboxed: Up, network: Network, up: Up
) -> None:
    if not world.addresses6:
        pytest.skip("takes a kernel with IPv6")
    first, second, third = world.addresses6
    world.zone |= {"six.org": [f"AAAA {first}", f"A {world.addresses[0]}"], "port.org": [f"AAAA {second}"]}
    net = network("--ipv6")
    open_, closed = up("--network", net), sandboxed("deny", "--network", net)
    assert tcp(engine, open_, first) == "" and udp(engine, open_, first)
    assert "denied" in tcp(engine, closed, first) or tcp(engine, closed, first) == REFUSED
    assert not udp(engine, closed, first)
    assert ask(netns_of(engine, closed), "six.org", "AAAA").rcode() == dns.rcode.NXDOMAIN
    one = sandboxed(f"allow:six.org,port.org:443,[{third}]:80", "--network", net)
    assert (
        tcp(engine, one, first) == tcp(engine, one, second, 443) == REFUSED
    )  # not before they were asked for
    assert texts(ask(netns_of(engine, one), "six.org", "AAAA")) == [first]
    assert tcp(engine, one, first) == "" and udp(engine, one, first)
    assert tcp(engine, one, world.addresses[0]) == REFUSED, "which the other question is for"
    assert texts(ask(netns_of(engine, one), "port.org", "AAAA")) == [second]
    assert tcp(engine, one, second, 443) == "" and tcp(engine, one, second) == REFUSED
    assert tcp(engine, one, third) == "" and tcp(engine, one, third, 443) == REFUSED
    assert f": {first} (six.org)" in engine.sampan("network", "policy", "show", one).out
    eventually(lambda: refusals(engine, closed, lambda it: (it["Address"], it["Port"]) == (first, 80)))
    # Neighbours are no egress, and are found by their names.
    theirs = shown(engine, open_, net)["GlobalIPv6Address"]
    assert theirs in texts(ask(netns_of(engine, closed), open_, "AAAA"))
    servers = Servers(netns_of(engine, open_), [theirs], (80,), [])
    try:
        assert tcp(engine, closed, theirs) == ""
    finally:
        servers.close()
    # What is changed holds for what is open, and stays when the tables are flushed.
    with connected(engine, one, third) as kept:
        engine.sampan("network", "policy", "set", one, "allow:[2600::]:80")
        assert not echoes(kept) and tcp(engine, one, first) == REFUSED
    engine.sampan("network", "policy", "set", one, f"allow:{third}")
    assert tcp(engine, one, third, 443) == ""
    engine.sampan("network", "policy", "set", one, "none")
    assert tcp(engine, one, first) == ""


def test_a_policy_in_a_network_of_ipv6_alone(
    engine: Engine, world: Outside, sandboxed: Up, network: Network
) -> None:
    if not world.addresses6:
        pytest.skip("takes a kernel with IPv6")
    first, second, _ = world.addresses6
    one = sandboxed(f"allow:{first}", "--network", network("--ipv6", "--ipv4=false"), "-p", "[::]:8125:80")
    assert tcp(engine, one, first) == "" and tcp(engine, one, second) == REFUSED
    (place,) = engine.api.inspect(one)["NetworkSettings"]["Networks"].values()
    servers = Servers(netns_of(engine, one), [place["GlobalIPv6Address"]], (80,), [])
    try:
        assert reach(world.netns, world.router6, 8125) == "", "the answers of a published port get out"
    finally:
        servers.close()


def test_a_policy_is_changed_while_a_container_runs(engine: Engine, world: Outside, up: Up) -> None:
    first, second, *_ = world.addresses
    world.zone["later.org"] = [f"A {second}"]
    one = up("--dns", world.dns)
    open_one, kept = connected(engine, one, first), connected(engine, one, second)
    with open_one, kept:
        assert echoes(open_one) and echoes(kept)
        engine.sampan("network", "policy", "set", one, f"allow:{second}")
        assert not echoes(open_one) and echoes(kept)
        assert tcp(engine, one, first) == REFUSED and tcp(engine, one, second) == ""
        engine.sampan("network", "policy", "set", one, "allow:later.org")
        assert not echoes(kept) and tcp(engine, one, second) == REFUSED
    assert "127.0.0.11" in engine.docker("exec", one, "cat", "/etc/resolv.conf").out
    assert texts(ask(netns_of(engine, one), "later.org")) == [second]
    assert tcp(engine, one, second) == ""
    engine.sampan("network", "policy", "set", one, "deny")
    assert tcp(engine, one, second) == REFUSED
    engine.sampan("network", "policy", "set", one, "none")
    assert tcp(engine, one, first) == ""


def test_a_network_has_a_policy(
    engine: Engine, world: Outside, network: Network, up: Up, sandboxed: Up
) -> None:
    first, second, *_ = world.addresses
    world.zone["network.org"] = [f"A {first}"]
    net = network("-o", "sampan.egress=allow:network.org")
    one = up("--network", net, "--dns", world.dns)
    own = sandboxed(f"allow:{second}", "--network", net)
    assert texts(ask(netns_of(engine, one), "network.org")) == [first]
    assert tcp(engine, one, first) == "" and tcp(engine, one, second) == REFUSED
    assert tcp(engine, own, first) == REFUSED and tcp(engine, own, second) == ""
    engine.sampan("network", "policy", "set", net, f"allow:{second}:443")
    assert engine.api.get(f"/networks/{net}")["Options"] == {"sampan.egress": f"allow:{second}:443"}
    assert tcp(engine, one, first) == REFUSED and tcp(engine, one, second, 443) == ""
    assert tcp(engine, own, second) == ""
    assert ask(netns_of(engine, one), "network.org").rcode() == dns.rcode.NXDOMAIN
    engine.sampan("network", "policy", "set", own, "none")  # then the network's
    assert tcp(engine, own, second) == REFUSED and tcp(engine, own, second, 443) == ""
    engine.sampan("network", "policy", "set", net, "none")
    assert tcp(engine, one, first) == "" and engine.api.get(f"/networks/{net}")["Options"] == {}


def test_what_was_refused_is_told(engine: Engine, world: Outside, sandboxed: Up) -> None:
    first = world.addresses[0]
    one = sandboxed("deny")
    assert tcp(engine, one, first, 443) == REFUSED
    ask(netns_of(engine, one), "Secret.Evil.org")
    eventually(
        lambda: (
            refusals(engine, one, lambda it: it["Kind"] == "packet")
            and refusals(engine, one, lambda it: it["Kind"] == "name")
        )
    )
    packet = refusals(engine, one, lambda it: it["Kind"] == "packet")[0]
    assert (packet["Address"], packet["Protocol"], packet["Port"]) == (first, "tcp", 443)
    assert packet["Container"] == one and str(packet["Time"]).endswith("Z")
    assert refusals(engine, one, lambda it: it["Kind"] == "name")[0]["Name"] == "secret.evil.org"


def test_our_own_flags_and_what_is_shown(engine: Engine, world: Outside, name: Names, busybox: str) -> None:
    first = world.addresses[0]
    world.zone["shown.org"] = [f"A {first}"]
    one, net = name(), name()
    engine.sampan("network", "create", "--egress", "allow:shown.org:80", net)
    words = ("run", "-d", "--name", one, "--stop-timeout", "0", "--dns", world.dns, "--network", net)
    engine.sampan(*words, "--egress", "allow:shown.org, 10.0.0.0/8", busybox, "sleep", "600")
    assert engine.api.inspect(one)["HostConfig"]["Egress"] == "allow:shown.org,10.0.0.0/8"
    ask(netns_of(engine, one), "shown.org")
    lines = engine.sampan("network", "policy", "show", one).lines
    assert lines[0] == "allow:shown.org,10.0.0.0/8" and len(lines) == 2
    assert lines[1].startswith("open until 2") and lines[1].endswith(f": {first} (shown.org)")
    assert engine.sampan("network", "policy", "show", net).lines == ["allow:shown.org:80"]
    engine.sampan("network", "policy", "set", one, "none")
    assert "Egress" not in engine.api.inspect(one)["HostConfig"]
    lines = engine.sampan("network", "policy", "show", one).lines
    assert lines[:2] == ["none", f"in {net}: allow:shown.org:80"]
    assert len(lines) == 3 and lines[2].endswith(f": {first}:80 (shown.org)"), "as the network's has it"
    found = json.loads(engine.sampan("network", "policy", "show", "--format", "json", one).out)
    assert found["Networks"] == {net: {"Policy": "allow:shown.org:80", "Own": False}}
    engine.docker("rm", "-f", one)
    engine.docker("network", "rm", net)


def test_the_log_goes_on(engine: Engine, world: Outside, sandboxed: Up) -> None:
    one = sandboxed("deny")
    argv = engine.sampan.argv("network", "policy", "log", "-f", one)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=engine.sampan.environment, text=True) as follower:
        assert follower.stdout is not None
        ask(netns_of(engine, one), "first.org")
        assert follower.stdout.readline().rstrip().endswith(f" {one} refused name first.org")
        tcp(engine, one, world.addresses[0], 443)
        assert follower.stdout.readline().rstrip().endswith(f" {one} refused tcp {world.addresses[0]}:443")
        follower.terminate()
    lines = engine.sampan("network", "policy", "log", one).lines
    assert len(lines) == 2 and all(line[:2] == "20" for line in lines)
    engine.docker("restart", one)
    assert engine.sampan("network", "policy", "log", one).lines[:2] == lines


def test_the_log_of_a_network_is_that_of_all_in_it(
    engine: Engine, world: Outside, network: Network, up: Up, sandboxed: Up
) -> None:
    net = network("-o", "sampan.egress=deny")
    first, second, apart = up("--network", net), up("--network", net), sandboxed("deny")
    for container, asked in ((first, "first.org"), (second, "second.org"), (apart, "apart.org")):
        ask(netns_of(engine, container), asked)
    eventually(lambda: len(engine.sampan("network", "policy", "log", net).lines) == 2)
    assert [line.split()[-1] for line in engine.sampan("network", "policy", "log", net).lines] == [
        "first.org",
        "second.org",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--label", "sampan.egress=allow:"), "write deny for that"),
        (("--label", "sampan.egress=none of it"), "must be deny, or allow:"),
        (("--label", "sampan.egress=deny", "--network", "host"), "an egress policy and --network host"),
        (("--label", "sampan.egress=deny", "--network", "container:{}"), "give the policy to the container"),
    ],
)
def test_what_cannot_be_is_refused(engine: Engine, up: Up, options: tuple[str, ...], words: str) -> None:
    other = up()
    before = len(engine.api.containers())
    given = [option.format(other) for option in options]
    done = engine.docker("create", *given, engine.busybox, "true", code=1)
    assert words in done.err and len(engine.api.containers()) == before


def test_what_cannot_be_set_is_refused(engine: Engine, up: Up, network: Network, name: Names) -> None:
    one, net, host = up(), network(), up("--network", "host")
    for path, policy, status, words in (
        (f"/containers/{one}", "deny all", 400, "must be deny, or allow:"),
        (f"/containers/{one}", "", 400, "must be an egress policy"),
        (f"/containers/{host}", "deny", 400, "--network host"),
        ("/containers/nobody", "deny", 404, "No such container: nobody"),
        ("/networks/bridge", "deny", 403, "give one to containers"),
        (f"/networks/{net}", "allow:", 400, "write deny"),
        ("/networks/nowhere", "deny", 404, "network nowhere not found"),
    ):
        answer = engine.api("PUT", f"{path}/egress", {"Policy": policy})
        assert answer.status == status and words in answer.message, path
    done = engine.docker("network", "create", "-o", "sampan.egress=allow:x y", name(), code=1)
    assert "egress policy: x y: must be a name" in done.err
    body = {"Image": engine.busybox, "Labels": {"sampan.egress": "deny"}, "HostConfig": {"Egress": "none"}}
    assert engine.api("POST", "/containers/create", body).status == 400
    assert (
        "no such container or network: nobody"
        in engine.sampan("network", "policy", "show", "nobody", code=1).err
    )


def test_an_image_cannot_loosen_a_networks_policy(
    engine: Engine, world: Outside, network: Network, name: Names, busybox: str
) -> None:
    made, one = name(), name()
    holder = engine.docker("create", "--name", one, busybox).out.strip()
    engine.docker("commit", "-c", "LABEL sampan.egress=allow:0.0.0.0/0", holder, made)
    engine.docker("rm", one)
    net = network("-o", "sampan.egress=deny")
    engine.docker("run", "-d", "--name", one, "--stop-timeout", "0", "--network", net, made, "sleep", "600")
    assert tcp(engine, one, world.addresses[0]) == REFUSED
    engine.docker("rm", "-f", one)
    engine.docker("rmi", made)


def test_who_shares_a_namespace_shares_its_policy(
    engine: Engine, world: Outside, sandboxed: Up, up: Up
) -> None:
    one = sandboxed("deny")
    other = up("--network", f"container:{one}")
    assert tcp(engine, other, world.addresses[0]) == REFUSED
    assert "127.0.0.11" in engine.docker("exec", other, "cat", "/etc/resolv.conf").out


PROJECT = """
version: "2.4"
services:
  boxed:
    image: {busybox}
    command: [sleep, "600"]
    stop_grace_period: 0s
    labels: {{sampan.egress: "allow:{first}"}}
  plain:
    image: {busybox}
    command: [sleep, "600"]
    stop_grace_period: 0s
networks:
  default:
    driver_opts: {{sampan.egress: deny}}
"""


@program("docker-compose")
def test_compose_says_it_by_labels_and_driver_options(
    engine: Engine, world: Outside, busybox: str, tmp_path: Path
) -> None:
    first, second, *_ = world.addresses
    project = tmp_path / "policed"
    project.mkdir()
    (project / "docker-compose.yml").write_text(PROJECT.format(busybox=busybox, first=first))
    environment = {"DOCKER_HOST": engine.host, "PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def compose(*words: str) -> None:
        done = subprocess.run(
            ["docker-compose", *words],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    compose("up", "-d")
    try:
        boxed, plain = (
            engine.docker("ps", "-q", "--filter", f"label=com.docker.compose.service={service}").out.strip()
            for service in ("boxed", "plain")
        )
        assert tcp(engine, boxed, first) == "" and tcp(engine, boxed, second) == REFUSED
        assert tcp(engine, plain, first) == REFUSED
        (address,) = (
            one["IPAddress"] for one in engine.api.inspect(boxed)["NetworkSettings"]["Networks"].values()
        )
        assert address in texts(ask(netns_of(engine, plain), "boxed"))
    finally:
        compose("down")
