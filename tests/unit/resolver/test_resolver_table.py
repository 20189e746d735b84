"""Who is known to whom under which names."""

from __future__ import annotations

from sampan.resolver import wire
from sampan.resolver.protocol import (
    AskerOptions,
    Membership,
    Upstream,
    decode_asker,
    decode_member,
    encode,
)
from sampan.resolver.table import Table


def key(name: str) -> bytes:
    encoded = wire.encode_name(name)
    assert encoded is not None
    return encoded.lower()


def member(
    container: str, network: str, *names: str, address: str = "10.0.0.2", links: dict[str, str] | None = None
) -> Membership:
    return Membership(container, f"id-{network}", network, (container, *names), (address,), links or {})


def addresses(table: Table, asker: str, name: str) -> list[str]:
    entry = table.view(asker).find(key(name))
    return [] if entry is None else [".".join(map(str, record[-4:])) for record in entry.a]


def test_names_of_ones_own_networks_alone() -> None:
    table = Table()
    table.put(member("web", "front", address="10.0.0.2"))
    table.put(member("db", "back", "Store", address="10.1.0.2"))
    assert addresses(table, "web", "db") == []
    table.put(member("web", "back", address="10.1.0.3"))
    for name in ("db", "DB", "store", "store.back", "db.BACK"):
        assert addresses(table, "web", name) == ["10.1.0.2"], name
    assert addresses(table, "web", "db.front") == []
    assert addresses(table, "nobody", "db") == []
    table.remove("id-back", "web")
    assert addresses(table, "web", "db") == []
    assert addresses(table, "web", "web") == ["10.0.0.2"]


def test_the_network_joined_first_comes_first() -> None:
    table = Table()
    table.put(member("old", "back", address="10.1.0.8"))
    table.put(member("web", "front", address="10.0.0.2"))
    table.put(member("web", "back", address="10.1.0.2"))
    table.put(member("one", "back", "svc", address="10.1.0.9"))
    table.put(member("two", "front", "svc", address="10.0.0.9"))
    assert addresses(table, "web", "svc") == ["10.0.0.9"]
    assert addresses(table, "web", "svc.back") == ["10.1.0.9"]
    table.put(member("web", "front", "renamed", address="10.0.0.2"))
    assert addresses(table, "web", "svc") == ["10.0.0.9"]


def test_nothing_is_left_of_who_left() -> None:
    table = Table()
    for number in range(3):
        table.put(member(f"c{number}", "front", "svc", address=f"10.0.0.{number}"))
    assert len(addresses(table, "c0", "svc")) == 3
    table.put(member("c1", "front", address="10.0.0.1"))  # other names now
    assert addresses(table, "c0", "svc") == ["10.0.0.0", "10.0.0.2"]
    for number in range(3):
        table.remove("id-front", f"c{number}")
        table.remove("id-front", f"c{number}")
    assert table.networks == {}


def test_links_lead_to_peers() -> None:
    table = Table()
    table.put(member("web", "front", address="10.0.0.2", links={"Store": "db", "gone": "lost", "web": "db"}))
    table.put(member("db", "front", address="10.0.0.3"))
    assert addresses(table, "web", "store") == addresses(table, "web", "store.front") == ["10.0.0.3"]
    assert addresses(table, "web", "web") == ["10.0.0.3"]  # its own word for another
    assert addresses(table, "db", "store") == []
    view = table.view("web")
    assert view.find(key("gone")) is None and view.knows_link(key("gone")) and not view.knows_link(key("db"))


def test_addresses_have_names() -> None:
    table = Table()
    table.put(member("web", "front", address="10.0.0.2"))
    record = table.view("web").reverse(wire.reverse_key("10.0.0.2"))
    assert record is not None and record.endswith(b"\x03web\x05front\0")
    table.put(member("db", "back", address="10.1.0.2"))
    assert table.view("web").reverse(wire.reverse_key("10.1.0.2")) is None


def test_names_that_are_none_are_passed_over() -> None:
    table = Table()
    table.put(member("web", "front", "x" * 64, "a..b", ""))
    assert addresses(table, "web", "web") == ["10.0.0.2"]


def test_records_take_turns() -> None:
    table = Table()
    for number in range(4):
        table.put(member(f"c{number}", "front", "svc", address=f"10.0.0.{number}"))
    entry = table.view("c0").find(key("svc"))
    assert entry is not None
    assert {entry.turned(entry.a)[0][-1] for _ in range(4)} == {0, 1, 2, 3}


def test_what_is_told_arrives() -> None:
    one = member("web", "front", "svc", links={"db": "x"})
    assert decode_member(encode(one)) == one
    options = AskerOptions("web", (Upstream("10.0.0.1"), Upstream("fe80::1", True, 3)), True, True)
    assert decode_asker(encode(options)) == options
