"""Our networks beside the firewalls of others, in a network namespace that they share."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.engine import Daemon, Engine
from support.machine import eventually
from support.needs import program
from support.nets import FETCH, another_machine, bridge_of

Far = tuple[str, str, Callable[..., str]]
pytestmark = [program("nft", "nftables"), program("iptables"), program("ip", "iproute2")]

SERVE = "while :; do echo $(cat /proc/sys/kernel/hostname) | nc -l -p 80; done"
PORT = 21800

PLAIN = """
table inet hostfw {
    chain input { type filter hook input priority 0; policy accept; }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname "wg0" accept
    }
}
"""
# As `ufw enable` leaves it, with incoming and routed traffic denied; iptables-nft's own spelling of it.
UFW = """
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:ufw-before-input - [0:0]
:ufw-before-forward - [0:0]
:ufw-user-input - [0:0]
:ufw-user-forward - [0:0]
-A INPUT -j ufw-before-input
-A FORWARD -j ufw-before-forward
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
COMMIT
"""
# What matters of firewalld's table: everything forwarded that no zone accepts is rejected at the chain's end.
FIREWALLD = """
table inet firewalld {
    chain filter_INPUT { type filter hook input priority filter + 10; policy accept; }
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        jump filter_FORWARD_POLICIES
        ct state invalid drop
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD_POLICIES { }
}
"""
INPUT = """
table inet hostfw {
    chain input {
        type filter hook input priority 0; policy drop;
        iif lo accept
        ct state established,related accept
    }
}
"""
FIREWALLS = {
    "plain": ("nft -f -", PLAIN, "nft delete table inet hostfw"),
    "ufw": ("iptables-restore", UFW, "nft delete table ip filter"),
    "firewalld": ("nft -f -", FIREWALLD, "nft delete table inet firewalld"),
    "docker": (
        "sh",
        "iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN;"
        "iptables -I FORWARD -j DOCKER-USER",
        "nft delete table ip filter",
    ),
    "legacy": (
        "sh",
        "iptables-legacy -P FORWARD DROP; iptables-legacy -N DOCKER-USER;"
        "iptables-legacy -A DOCKER-USER -j RETURN; iptables-legacy -I FORWARD -j DOCKER-USER",
        "iptables-legacy -P FORWARD ACCEPT; iptables-legacy -F; iptables-legacy -X",
    ),
}
# What the line that we give does, where the program in it is not there to be run.
INSTEAD = {
    r"ufw route allow (in|out) on (\S+)": lambda found: (
        f"iptables -A ufw-user-forward -{found[1][0]} {found[2]} -j ACCEPT"
    ),
    r"firewall-cmd --permanent --zone=trusted --add-interface=(\S+)": lambda found: (
        f"nft add rule inet firewalld filter_FORWARD_POLICIES iifname {found[1]} accept"
    ),
    r"firewall-cmd --reload": lambda _: "true",
}


@pytest.fixture(scope="module")
def far() -> Iterator[Far]:
    with another_machine() as found:
        yield found


@pytest.fixture(params=FIREWALLS)
def firewall(request: pytest.FixtureRequest) -> Iterator[str]:
    program_, rules, removal = FIREWALLS[request.param]
    legacy = request.param == "legacy"
    if legacy and subprocess.run(["iptables-legacy", "-L"], capture_output=True, check=False).returncode:
        pytest.skip("needs a kernel with the older ip_tables (iptables-legacy)")
    subprocess.run(program_, input=rules, text=True, shell=True, check=True)
    try:
        yield request.param
    finally:
        subprocess.run(removal, shell=True, check=True)


def sh(command: str) -> str:
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout


def theirs() -> str:
    """All rules but ours, without their counters' values."""
    tables = [line for line in sh("nft list tables").splitlines() if " sampan-" not in line]
    rules = "".join(sh(f"nft -s list {table}") for table in sorted(tables))
    return rules + sh("iptables-legacy-save -t filter 2>/dev/null | grep -v '^#' | sed 's/ \\[.*//' || true")


def from_here(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            return connection.recv(10)
    except OSError:
        return b""


def reaches_out(daemon: Daemon, container: str, address: str) -> bool:
    return daemon.docker("exec", container, "ping", "-c1", "-W1", address, code=None).code == 0


def obstacles(daemon: Daemon) -> list[str]:
    return [line for line in daemon.api.get("/info")["Warnings"] or () if "what is forwarded" in line]


def test_what_is_in_the_way_is_named_with_the_line_that_mends_it(
    firewall: str, make_daemon: Callable[..., Daemon], far: Far
) -> None:
    before = theirs()
    daemon = make_daemon().start()
    try:
        here, there, run = far
        serve = ["--hostname", "box", "-p", f"{PORT}:80", daemon.busybox, "sh", "-c", SERVE]
        daemon.docker("run", "-d", "--name", "one", *serve)
        eventually(lambda: from_here(PORT) == b"box\n", what="from the host itself nothing is forwarded")
        assert not reaches_out(daemon, "one", there)
        (told,) = obstacles(daemon)
        assert daemon.bridge in told
        assert told in daemon.log_text()
        assert theirs() == before, "nobody else's rules are touched"
        remedy = told.partition("`")[2].partition("`")[0]
        for pattern, instead in INSTEAD.items():
            remedy = re.sub(pattern, instead, remedy)
        mended = sh(f"{remedy}; true") + theirs()
        assert reaches_out(daemon, "one", there), mended
        eventually(lambda: run("python3", "-c", FETCH, here, str(PORT)) == "box\n")
        assert obstacles(daemon) == []
        after = theirs()
        daemon.docker("network", "create", "ahoy")
        (told,) = obstacles(daemon)
        assert bridge_of(daemon, "ahoy") in told
        daemon.docker("network", "rm", "ahoy")
        daemon.docker("rm", "-f", "one")
        assert theirs() == after
    finally:
        daemon.end()
    assert theirs() == after


def test_a_firewall_that_comes_later_is_told_of(own: Daemon) -> None:
    assert obstacles(own) == []
    sh(f"nft -f - <<'E'\n{PLAIN}\nE")
    try:
        (told,) = obstacles(own)
        eventually(lambda: told in own.log_text(), 60)
    finally:
        sh("nft delete table inet hostfw")


@pytest.mark.parametrize("program_", ["ip6tables", "ip6tables-legacy"])
def test_one_for_ipv6_alone_is_told_of_where_networks_have_it(own: Daemon, program_: str) -> None:
    if subprocess.run([program_, "-S", "FORWARD"], capture_output=True, check=False).returncode:
        pytest.skip(f"needs a kernel that {program_} can ask")
    sh(f"{program_} -P FORWARD DROP")
    try:
        assert obstacles(own) == [], "the default bridge has no IPv6"
        own.docker("network", "create", "--ipv6", "six")
        (told,) = obstacles(own)
        assert "by IPv6 from and to containers" in told
        assert bridge_of(own, "six") in told and own.bridge not in told
        sh(told.partition("`")[2].partition("`")[0])
        assert obstacles(own) == []
    finally:
        sh(f"{program_} -P FORWARD ACCEPT; {program_} -F FORWARD")
        own.docker("network", "rm", "six")
        if program_ == "ip6tables":
            sh("nft delete table ip6 filter")


@pytest.mark.parametrize("harm", ["nft flush ruleset", "nft delete table sampan-{bridge}"])
def test_a_flush_heals_without_a_start(own: Daemon, far: Far, harm: str) -> None:
    here, there, run = far
    serve = ["--hostname", "box", "-p", f"{PORT}:80", own.busybox, "sh", "-c", SERVE]
    own.docker("run", "-d", "--name", "one", *serve)
    own.docker("network", "create", "ahoy")
    eventually(lambda: run("python3", "-c", FETCH, here, str(PORT)) == "box\n")
    before = sh(f"nft -s list table sampan-{own.bridge}")
    sh(harm.format(bridge=own.bridge))
    switch = Path(f"/proc/sys/net/ipv4/conf/{own.bridge}/route_localnet")
    eventually(lambda: f"table ip sampan-{own.bridge}" in sh("nft list tables"), 30)
    after = sh(f"nft -s list table sampan-{own.bridge}")
    assert sorted(re.findall(r"\S+", after)) == sorted(re.findall(r"\S+", before))
    assert switch.read_text() == "1\n"
    assert reaches_out(own, "one", there)
    eventually(lambda: run("python3", "-c", FETCH, here, str(PORT)) == "box\n")
    eventually(lambda: f"table sampan-{own.bridge} was removed or changed: put back" in own.log_text())


def test_the_hosts_input_rules_decide_about_proxied_ports_alone(own: Daemon, far: Far) -> None:
    here, _, run = far
    serve = [own.busybox, "sh", "-c", SERVE]
    own.docker("run", "-d", "--name", "nat", "--hostname", "nat", "-p", f"{PORT}:80", *serve)
    proxied = ["--label", "sampan.publish-mode=proxy", "-p", f"{PORT + 1}:80"]
    own.docker("run", "-d", "--name", "proxy", "--hostname", "proxy", *proxied, *serve)
    sh(f"nft -f - <<'E'\n{INPUT}\nE")
    try:
        eventually(lambda: run("python3", "-c", FETCH, here, str(PORT)) == "nat\n")
        assert run("python3", "-c", FETCH, here, str(PORT + 1)) == ""
        sh(f"nft add rule inet hostfw input ip saddr 198.51.100.0/24 tcp dport {PORT + 1} accept")
        eventually(lambda: run("python3", "-c", FETCH, here, str(PORT + 1)) == "proxy\n")
    finally:
        sh("nft delete table inet hostfw")


@pytest.mark.parametrize("allowed", ["192.0.2.0/24", "198.51.100.0/24"])
def test_the_recipes_that_restrict_a_port_by_a_rule_at_forward(own: Daemon, far: Far, allowed: str) -> None:
    here, there, run = far
    serve = [own.busybox, "sh", "-c", SERVE]
    own.docker("run", "-d", "--name", "one", "--hostname", "one", "-p", f"{PORT}:80", *serve)
    own.docker("run", "-d", "--name", "two", "--hostname", "two", "-p", f"{PORT + 1}:80", *serve)
    text = (Path(__file__).parents[3] / "docs" / "firewall.md").read_text()
    nft = re.findall(r"(?ms)^ +\$ (nft '?add [^\n]*\bmine\b.*?(?<!\\))$", text)
    (iptables,) = re.findall(r"`(iptables -I FORWARD [^`]*ctorigdstport[^`]*)`", text)
    assert len(nft) == 3 and all("8080" in one and "192.0.2.0/24" in one for one in (nft[-1], iptables))

    def get(port: int) -> str:
        return run("python3", "-c", FETCH, here, str(port))

    for recipe, removal in (
        ("\n".join(nft), "nft delete table inet mine"),
        (iptables, "nft delete table ip filter"),
    ):
        sh(recipe.replace("8080", str(PORT)).replace("192.0.2.0/24", allowed))
        try:
            eventually(lambda: get(PORT + 1) == "two\n", what="another port")
            if there.rpartition(".")[0] == allowed.rpartition(".")[0]:
                eventually(lambda: get(PORT) == "one\n")
            else:
                assert get(PORT) == ""
        finally:
            sh(removal)


@pytest.fixture
def docker(base: Path) -> Iterator[Engine]:
    """A real dockerd, which sets rules of its own where the tests' network namespace is the host's."""
    tmp_path = base / "dockerd"  # pytest's own paths are too long for its sockets
    tmp_path.mkdir()
    sh(
        "echo 0 > /proc/sys/net/ipv4/ip_forward"
    )  # when it switches that on itself, it drops what is forwarded
    path = tmp_path / "docker.sock"
    words = ["dockerd", "--data-root", str(tmp_path / "data"), "--exec-root", str(tmp_path / "exec")]
    words += ["--pidfile", str(tmp_path / "pid"), "--host", f"unix://{path}", "--bip", "10.245.0.1/24"]
    with (tmp_path / "log").open("wb") as log:
        started = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", *words], stdout=log, stderr=log
        )
    try:
        engine = Engine(str(path), tmp_path / "client")
        eventually(lambda: _answers(engine, started), 60)
        # Unless another daemon of the tests was quicker to switch it on again.
        sh("iptables -P FORWARD DROP")
        yield engine
    finally:
        started.terminate()
        try:
            started.wait(30)
        finally:
            started.kill()
            started.wait()
        for table in sh("nft list tables").splitlines():
            if " sampan-" not in table:
                sh(f"nft delete {table}")
        sh("ip link delete docker0; echo 1 > /proc/sys/net/ipv4/ip_forward")


def _answers(engine: Engine, started: subprocess.Popen[bytes]) -> bool:
    assert started.poll() is None
    try:
        return engine.api("GET", "/_ping", timeout=5).status == 200
    except OSError:
        return False


@program("dockerd", "docker.io")
def test_beside_a_real_dockerd(docker: Engine, make_daemon: Callable[..., Daemon], far: Far) -> None:
    here, there, run = far
    theirs_serve = ["--hostname", "docker", "-p", f"{PORT + 5}:80", docker.busybox, "sh", "-c", SERVE]
    docker.docker("run", "-d", "--name", "theirs", *theirs_serve)
    before = theirs()
    daemon = make_daemon().start()
    try:
        serve = ["--hostname", "box", "-p", f"{PORT}:80", daemon.busybox, "sh", "-c", SERVE]
        daemon.docker("run", "-d", "--name", "ours", *serve)
        (told,) = obstacles(daemon)
        assert "DOCKER-USER" in told
        taken = daemon.docker("run", "--rm", "-p", f"{PORT + 5}:80", daemon.busybox, "true", code=125)
        assert "address already in use" in taken.err
        assert theirs() == before
        sh(told.partition("`")[2].partition("`")[0])
        assert reaches_out(daemon, "ours", there)
        for port, who in ((PORT, "box\n"), (PORT + 5, "docker\n")):
            eventually(lambda port=port, who=who: run("python3", "-c", FETCH, here, str(port)) == who)
        assert docker.docker("exec", "theirs", "ping", "-c1", "-W5", there).code == 0
        after = theirs()
        daemon.docker("rm", "-f", "ours")
        assert theirs() == after
        docker.docker("rm", "-f", "theirs")
    finally:
        daemon.end()
