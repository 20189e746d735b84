"""Host ports: who gets which, and what is said when it cannot be."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from sampan.errors import InvalidParameter
from sampan.network import holding
from sampan.network.ports import Binding, PortTable, PortTaken


@pytest.fixture
def table() -> Iterator[PortTable]:
    with contextlib.closing(PortTable()) as made:
        yield made


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_port_belongs_to_one(table: PortTable) -> None:
    port = free_port()
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


def test_all_or_none(table: PortTable) -> None:
    port = free_port()
    table.claim("a", [Binding("tcp", 80, "127.0.0.1", str(port))])
    other = free_port()
    with pytest.raises(PortTaken):
        table.claim("b", [Binding("tcp", 1, "", str(other)), Binding("tcp", 2, "127.0.0.1", str(port))])
    table.claim("b", [Binding("tcp", 1, "", str(other))])


def test_any_port_and_any_of_a_range(table: PortTable) -> None:
    given = table.claim("a", [Binding("tcp", 80, "127.0.0.1"), Binding("tcp", 81, "127.0.0.1", "0")])
    assert len({one.host_port for one in given}) == 2 and all(one.host_port > 1023 for one in given)
    (again,) = table.claim("b", [Binding("tcp", 80, "127.0.0.1")])
    assert again.host_port not in {one.host_port for one in given}
    port = free_port()
    places = [table.claim(f"r{n}", [Binding("udp", 80, "127.0.0.1", f"{port}-{port + 2}")]) for n in range(3)]
    assert {one.host_port for (one,) in places} == {port, port + 1, port + 2}
    with pytest.raises(PortTaken, match="all ports are allocated"):
        table.claim("r4", [Binding("udp", 80, "127.0.0.1", f"{port}-{port + 2}")])


def test_what_the_host_has(table: PortTable) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        for address in ("", "127.0.0.1"):
            with pytest.raises(PortTaken, match="address already in use"):
                table.claim("a", [Binding("tcp", 80, address, port)])
        table.claim("a", [Binding("tcp", 80, "127.0.0.2", port)])
    with pytest.raises(PortTaken, match="cannot assign requested address"):
        table.claim("a", [Binding("tcp", 80, "203.0.113.9", port)])


def test_restored_after_a_restart(table: PortTable) -> None:
    port = free_port()
    published = table.claim("a", [Binding("tcp", 80, "", str(port))])
    with contextlib.closing(PortTable()) as later:
        later.restore("a", published)  # who has the port, which is the table before, keeps it
        with pytest.raises(PortTaken):
            later.claim("b", [Binding("tcp", 80, "", str(port))])
        assert later.disown("a") == published and later.disown("a") == []
        later.free(published)


def test_held_while_it_is_anybodys(table: PortTable) -> None:
    port = free_port()
    published = table.claim("a", [Binding("tcp", 80, "", str(port)), Binding("udp", 80, "", str(port))])
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as late, pytest.raises(OSError, match="already in use"):
            late.bind(("127.0.0.1", port))
    table.free(table.disown("a"))
    table.restore("b", published)
    with socket.socket() as late, pytest.raises(OSError, match="already in use"):
        late.bind(("127.0.0.1", port))
    table.close()
    with socket.socket() as late:
        late.bind(("127.0.0.1", port))


def test_few_are_held_of_many(table: PortTable) -> None:
    published = table.claim(
        "a", [Binding("tcp", number, "127.0.0.3") for number in range(1, holding.MOST + 9)]
    )
    free = 0
    for one in published:
        with socket.socket() as late, contextlib.suppress(OSError):
            late.bind(("127.0.0.3", one.host_port))
            free += 1
    assert free == 8


@pytest.mark.parametrize("port", ["x", "70000", "10-5", "-1", "1-", "80-80000"])
def test_no_port(port: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid port"):
        Binding("tcp", 80, "", port).choices()


@pytest.mark.parametrize("address", ["fe80::1", "[fe80::1]", "nowhere", "1.2.3"])
def test_no_address(address: str) -> None:
    with pytest.raises(InvalidParameter):
        Binding("tcp", 80, address).address()


def test_no_address_is_one_of_each_family(table: PortTable) -> None:
    both = table.claim("one", [Binding("tcp", 80)], (4, 6))
    assert [one.host_ip for one in both] == ["0.0.0.0", "::"]
    assert len({one.host_port for one in both}) == 1
    assert [one.host_ip for one in table.claim("two", [Binding("tcp", 80)])] == ["0.0.0.0"]
    with pytest.raises(PortTaken, match=r"Bind for \[::\]:"):
        table.claim("three", [Binding("tcp", 80, "[::]", str(both[0].host_port))], (6,))
    with pytest.raises(InvalidParameter, match="no IPv4"):
        table.claim("four", [Binding("tcp", 80, "127.0.0.1")], (6,))


def test_a_process_forwards_where_the_kernel_cannot(table: PortTable) -> None:
    """From ::1, and from IPv6 to a container that has IPv4 alone."""
    for families, proxied in (((4,), True), ((4, 6), True)):
        (one,) = table.claim("one", [Binding("tcp", 80, "[::1]")], families)
        assert (one.host_ip, one.proxied) == ("::1", proxied)
        assert [held.family for _, held in table.sockets("one")] == [socket.AF_INET6]
        table.free(table.disown("one"))
    (far,) = Binding("tcp", 80, "2001:db8::1").places((4,), {})
    assert far.proxied
    (near,) = Binding("tcp", 80, "2001:db8::1").places((4, 6), {})
    assert not near.proxied
    for words in (("sctp", 80, "::1"), ("sctp", 80, "2001:db8::1")):
        with pytest.raises(InvalidParameter, match="sctp cannot be published"):
            Binding(*words).places((4,), {})
    both = Binding("tcp", 80, proxied=True).places((4,), {})
    assert [one.address for one in both] == ["0.0.0.0", "::"] and all(one.proxied for one in both)


def test_what_is_routed_takes_no_port_of_the_hosts(table: PortTable) -> None:
    port = free_port()
    wanted = [Binding("tcp", 80, "", str(port)), Binding("udp", 53, "[::]")]
    for owner in ("one", "two"):
        found = table.claim(owner, wanted[1:], (4, 6), {6: "routed"})
        assert [(one.host_ip, one.host_port, one.routed) for one in found] == [("::", 0, True)]
    four, six = table.claim("three", wanted[:1], (4, 6), {6: "routed"})
    assert (four.host_ip, four.host_port, four.routed) == ("0.0.0.0", port, False)
    assert (six.host_ip, six.routed) == ("::", True)
    with contextlib.closing(PortTable()) as later:
        later.restore("three", [four, six])
        assert later.of("three") == [four, six]


def test_a_port_that_one_family_cannot_have_is_taken_in_neither(table: PortTable) -> None:
    (six,) = table.claim("one", [Binding("tcp", 80, "::")], (6,))
    with pytest.raises(PortTaken):
        table.claim("two", [Binding("tcp", 80, "", str(six.host_port))], (4, 6))
    assert table.of("two") == []
    (four,) = table.claim("three", [Binding("tcp", 80, "0.0.0.0", str(six.host_port))], (4, 6))
    assert (four.host_ip, four.host_port) == ("0.0.0.0", six.host_port)
