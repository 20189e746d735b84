"""hosts, hostname and resolv.conf: their content is Docker's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.errors import InvalidParameter
from sampan.network import plan_resolution, write_hostname, write_hosts, write_resolv_conf
from sampan.resolver.protocol import Upstream

LOOPBACK = (
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
)


def test_hosts_names_the_container_last(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    write_hosts(file, hostname="web", addresses=["172.18.0.2"], extra_hosts=["db:10.0.0.9", "v6:::1"])
    assert file.read_text() == LOOPBACK + "10.0.0.9\tdb\n::1\tv6\n172.18.0.2\tweb\n"
    assert file.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(("hostname", "domainname"), [("web", "example.org"), ("web.example.org", "")])
def test_a_full_name_comes_with_the_bare_one(tmp_path: Path, hostname: str, domainname: str) -> None:
    file = tmp_path / "hosts"
    write_hosts(file, hostname=hostname, domainname=domainname, addresses=["172.18.0.2"])
    assert file.read_text().endswith("172.18.0.2\tweb.example.org web\n")


def test_without_an_address_there_is_only_the_loopback(tmp_path: Path) -> None:
    write_hosts(tmp_path / "hosts", hostname="web")
    assert (tmp_path / "hosts").read_text() == LOOPBACK


def test_the_hosts_network_has_the_hosts_file_unless_names_are_added(tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.write_text("127.0.0.1 localhost\n10.0.0.1 machine\n")
    file = tmp_path / "hosts"
    write_hosts(file, hostname="web", host_mode=True, host_path=host)
    assert file.read_text() == host.read_text()
    write_hosts(file, hostname="web", host_mode=True, host_path=host, extra_hosts=["db:10.0.0.9"])
    assert file.read_text() == LOOPBACK + "10.0.0.9\tdb\n"


def test_host_gateway_is_the_bridge(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    write_hosts(file, hostname="web", extra_hosts=["host:host-gateway"], host_gateway="172.18.0.1")
    assert "172.18.0.1\thost\n" in file.read_text()
    with pytest.raises(InvalidParameter, match="host-gateway"):
        write_hosts(file, hostname="web", extra_hosts=["host:host-gateway"])


@pytest.mark.parametrize(
    "entry", ["db", ":10.0.0.1", "db:nowhere", "a b:1.2.3.4", "db:1.2.3", "x\ny:1.2.3.4"]
)
def test_a_wrong_extra_host_is_refused(tmp_path: Path, entry: str) -> None:
    with pytest.raises(InvalidParameter, match="add-host"):
        write_hosts(tmp_path / "hosts", hostname="web", extra_hosts=[entry])
    assert not list(tmp_path.iterdir())


def test_hostname_ends_with_a_newline_and_ignores_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        write_hostname(tmp_path / "hostname", "web")
    finally:
        os.umask(old)
    assert (tmp_path / "hostname").read_text() == "web\n"
    assert (tmp_path / "hostname").stat().st_mode & 0o777 == 0o644


def _resolv(tmp_path: Path, host: str, **arguments: object) -> list[str]:
    source = tmp_path / "host-resolv.conf"
    source.write_text(host)
    write_resolv_conf(tmp_path / "resolv.conf", host_path=source, **arguments)  # type: ignore[arg-type]
    lines = (tmp_path / "resolv.conf").read_text().splitlines()
    return [line.replace(str(source), "HOST") for line in lines if line and not line.startswith("# Gen")]


def test_the_hosts_resolvers_are_taken_over_without_its_loopback(tmp_path: Path) -> None:
    host = "; note\nnameserver 127.0.0.53\nnameserver 10.0.0.53\nnameserver fe80::1\nsearch a.org b.org\n"
    host += "options edns0 trust-ad\nsortlist 1.2.3.4\n"
    assert _resolv(tmp_path, host) == [
        "nameserver 10.0.0.53",
        "search a.org b.org",
        "options edns0 trust-ad",
        "sortlist 1.2.3.4",
        "# Based on host file: 'HOST'",
        "# Overrides: []",
    ]


def test_public_resolvers_stand_in_when_none_is_left(tmp_path: Path) -> None:
    lines = _resolv(tmp_path, "nameserver 127.0.0.1\nnameserver ::1\n")
    assert lines[:2] == ["nameserver 8.8.8.8", "nameserver 8.8.4.4"]
    assert "# Used default nameservers." in lines


def test_the_hosts_network_keeps_the_loopback_resolver(tmp_path: Path) -> None:
    assert _resolv(tmp_path, "nameserver 127.0.0.53\n", host_mode=True)[0] == "nameserver 127.0.0.53"


def test_options_replace_what_the_host_has(tmp_path: Path) -> None:
    host = "nameserver 10.0.0.53\nsearch a.org\noptions edns0\n"
    lines = _resolv(tmp_path, host, servers=["127.0.0.5"], search=["."], options=["ndots:2"])
    assert lines[:2] == ["nameserver 127.0.0.5", "options ndots:2"]
    assert lines[-1] == "# Overrides: [nameservers search options]"


def test_a_server_must_be_an_address(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"dns\.example"):
        _resolv(tmp_path, "", servers=["dns.example"])


def test_the_resolver_stands_in_for_the_hosts_servers(tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.write_text(
        "nameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver fd00::1\nsearch a.example\noptions edns0\n"
    )
    plan = plan_resolution(host_path=host)
    assert plan.content.decode() == (
        "# Generated by Sampan, anew at each start of the container.\n\nnameserver 127.0.0.11\n"
        "search a.example\noptions edns0 ndots:0\n\n"
        f"# Based on host file: '{host}' (internal resolver)\n"
        "# ExtServers: [host(127.0.0.53) 10.0.0.1 host(fd00::1)]\n# Overrides: []\n"
        "# Option ndots from: internal\n"
    )
    assert plan.upstreams == (Upstream("127.0.0.53", True), Upstream("10.0.0.1"), Upstream("fd00::1", True))
    assert not plan.ndots_set


def test_the_resolver_asks_given_servers_from_the_container(tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.write_text("nameserver 10.0.0.1\noptions ndots:3\n")
    odd = plan_resolution(servers=["2001:DB8:0::53"], host_path=host)
    assert [one.address for one in odd.upstreams] == ["2001:db8::53"]  # as the kernel names who answers
    plan = plan_resolution(servers=["127.0.0.1", "10.9.9.9", "127.0.0.11"], host_path=host)
    assert plan.upstreams == (Upstream("127.0.0.1"), Upstream("10.9.9.9"))
    assert plan.ndots_set and b"options ndots:3\n" in plan.content
    assert b"# Overrides: [nameservers]\n# Option ndots from: host\n" in plan.content
    plan = plan_resolution(search=["."], options=["ndots:x", "rotate"], host_path=host)
    assert b"options rotate ndots:0\n" in plan.content and b"\nsearch " not in plan.content
    assert not plan.ndots_set
    with pytest.raises(InvalidParameter, match="bad nameserver address"):
        plan_resolution(servers=["ns.example.org"], host_path=host)


def test_the_resolver_asks_public_servers_where_the_host_names_none(tmp_path: Path) -> None:
    plan = plan_resolution(host_path=tmp_path / "missing")
    assert [one.address for one in plan.upstreams] == ["8.8.8.8", "8.8.4.4"]
    assert b"# Used default nameservers.\n" in plan.content
