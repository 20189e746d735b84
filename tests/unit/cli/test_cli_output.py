"""Human words, tables, JSON text, lists; expected texts were printed by the docker binary."""

import pytest

from sampan.cli import human
from sampan.cli.jsontext import dump, parse, parse_at, pretty
from sampan.cli.listing import align
from sampan.cli.moments import timestamp


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (999, "999B"), (1913, "1.91kB"), (4430000, "4.43MB"), (72_800_000, "72.8MB"), (10**9, "1GB")],
)
def test_sizes(count, text):
    assert human.size(count) == text


def test_other_sizes():
    assert human.exact_size(1984000) == "1.984MB"
    assert human.binary_size(25_275_000_000) == "23.54GiB"


def test_times():
    assert human.epoch("1970-01-01T00:00:00Z") == 0
    assert human.epoch("2024-02-29T12:30:15.5+02:00") == 1709202615.5
    assert human.ellipsis("abcdef", 4) == "abc…"
    assert human.width("漢字") == 4
    assert timestamp("1700000000", "since") == "1700000000"
    assert timestamp("2024-02-29T10:30:15.5Z", "since") == "1709202615.500000000"
    with pytest.raises(ValueError, match='failed to parse value as time or duration: "10x"'):
        timestamp("10x", "since")


def test_json_in_and_out():
    value = {"a": [1, 2.5, "é\n<"], "b": {}, "c": [], "d": None, "e": True}
    assert parse(dump(value)) == value
    assert pretty({"a": [1], "b": {}}) == '{\n    "a": [\n        1\n    ],\n    "b": {}\n}'
    assert parse_at(' {"a":1} {"b":2}', 0) == ({"a": 1}, 8)
    for wrong in ("", "{", "[1", "nul"):
        with pytest.raises(ValueError):
            parse(wrong)


def test_columns(capsys):
    align([["ID", "NAME"], ["abc", "x"], ["a-long-identifier", ""]])
    assert capsys.readouterr().out == (
        "ID                  NAME\nabc                 x\na-long-identifier   \n"
    )


def test_ports_in_a_cell():
    from sampan.cli.commands.ps import ports

    def published(private, public, address="0.0.0.0"):
        return {"PrivatePort": private, "PublicPort": public, "IP": address, "Type": "tcp"}

    given = [published(80, 8080), published(81, 8081), {"PrivatePort": 90, "Type": "udp"}]
    assert ports(given) == "90/udp, 0.0.0.0:8080->80/tcp, 0.0.0.0:8081->81/tcp"
    given = [published(81, 81, "::"), published(80, 80, "::"), published(83, 83, "::")]
    assert ports(given) == "[::]:80-81->80-81/tcp, [::]:83->83/tcp"


def test_an_event_in_one_line(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    from sampan.cli.commands.events import text

    event = {
        "Type": "container",
        "Action": "start",
        "Actor": {"ID": "abc", "Attributes": {"name": "x", "image": "y"}},
        "timeNano": 1700000000123456789,
    }
    assert text(event) == "2023-11-14T22:13:20.123456789Z container start abc (image=y, name=x)"
