"""Host ports: who gets which, and what is said when it cannot be."""

from __future__ import annotations

import socket

import pytest

from sampan.errors import InvalidParameter
from sampan.network.ports import Binding, PortTable, PortTaken


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_port_belongs_to_one() -> None:
    table, port = PortTable(), free_port()
    (one,) = table.claim("a", [Binding("tcp", 80, "", str(port))])
    assert (one.host_ip, one.host_port) == ("0.0.0.0", port)
    for address in ("", "127.0.0.1"):
        with pytest.raises(PortTaken, match=f"Bind for .*:{port} failed: port is already allocated"):
            table.claim("b", [Binding("tcp", 80, address, str(port))])
    table.claim("b", [Binding("udp", 80, "", str(port))])
    assert table.disown("a") == [one] and "a" not in table.all()
    with pytest.raises(PortTaken, match="already allocated"):  # the firewall has not let go of it yet
        table.claim("c", [Binding("tcp", 80, "127.0.0.1", str(port))])
    table.free([one])
    table.claim("c", [Binding("tcp", 80, "127.0.0.1", str(port))])
    with pytest.raises(PortTaken):
        table.claim("d", [Binding("tcp", 80, "", str(port))])
    assert set(table.all()) == {"b", "c"}


def test_all_or_none() -> None:
    table, port = PortTable(), free_port()
    table.claim("a", [Binding("tcp", 80, "127.0.0.1", str(port))])
    other = free_port()
    with pytest.raises(PortTaken):
        table.claim("b", [Binding("tcp", 1, "", str(other)), Binding("tcp", 2, "127.0.0.1", str(port))])
    table.claim("b", [Binding("tcp", 1, "", str(other))])


def test_any_port_and_any_of_a_range() -> None:
    table = PortTable()
    given = table.claim("a", [Binding("tcp", 80, "127.0.0.1"), Binding("tcp", 81, "127.0.0.1", "0")])
    assert len({one.host_port for one in given}) == 2 and all(one.host_port > 1023 for one in given)
    (again,) = table.claim("b", [Binding("tcp", 80, "127.0.0.1")])
    assert again.host_port not in {one.host_port for one in given}
    port = free_port()
    places = [table.claim(f"r{n}", [Binding("udp", 80, "127.0.0.1", f"{port}-{port + 2}")]) for n in range(3)]
    assert {one.host_port for (one,) in places} == {port, port + 1, port + 2}
    with pytest.raises(PortTaken, match="all ports are allocated"):
        table.claim("r4", [Binding("udp", 80, "127.0.0.1", f"{port}-{port + 2}")])


def test_what_the_host_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        for address in ("", "127.0.0.1"):
            with pytest.raises(PortTaken, match="address already in use"):
                PortTable().claim("a", [Binding("tcp", 80, address, port)])
        PortTable().claim("a", [Binding("tcp", 80, "127.0.0.2", port)])
    with pytest.raises(PortTaken, match="cannot assign requested address"):
        PortTable().claim("a", [Binding("tcp", 80, "203.0.113.9", port)])


def test_restored_after_a_restart() -> None:
    table, port = PortTable(), free_port()
    published = table.claim("a", [Binding("tcp", 80, "", str(port))])
    later = PortTable()
    later.restore("a", published)
    with pytest.raises(PortTaken):
        later.claim("b", [Binding("tcp", 80, "", str(port))])
    assert later.disown("a") == published and later.disown("a") == []
    later.free(published)


@pytest.mark.parametrize("port", ["x", "70000", "10-5", "-1", "1-", "80-80000"])
def test_no_port(port: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid port"):
        Binding("tcp", 80, "", port).choices()


@pytest.mark.parametrize("address", ["::", "::1", "nowhere", "1.2.3"])
def test_no_address(address: str) -> None:
    with pytest.raises(InvalidParameter):
        Binding("tcp", 80, address).address()
