"""What egress policies say, and what of an upstream's answer opens something."""

from __future__ import annotations

import time
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_interface

import dns.message
import dns.rrset
import pytest

from sampan.errors import InvalidParameter
from sampan.network.egress import Opening, Policy
from sampan.network.egress.openings import Held, Openings
from sampan.network.egress.policy import Destination, Name, apart, parse, reachable_by_name
from sampan.resolver.answers import Malformed, addresses, spelled
from sampan.resolver.permits import Permits
from sampan.resolver.wire import Query, encode_name
from sampan.resolver.wire import parse as parse_query


def test_what_is_written_is_what_is_meant() -> None:
    found = parse(" allow:PyPI.org, *.debian.org.:443,10.0.0.0/8,192.0.2.7:80-90,*,bücher.example ")
    assert found.names == (
        Name("pypi.org"), Name("*.debian.org", (443, 443)), Name("*"), Name("xn--bcher-kva.example"),
    )  # fmt: skip
    assert found.destinations == (
        Destination(IPv4Network("10.0.0.0/8")),
        Destination(IPv4Network("192.0.2.7/32"), (80, 90)),
    )
    assert parse(found.text) == found
    six = parse("allow:2001:DB8::/32,[2600::1]:443,[2600::]:1-9")
    assert six.destinations == (
        Destination(IPv6Network("2001:db8::/32")),
        Destination(IPv6Network("2600::1/128"), (443, 443)),
        Destination(IPv6Network("2600::/128"), (1, 9)),
    )
    assert six.text == "allow:2001:db8::/32,[2600::1]:443,[2600::]:1-9"
    assert parse("deny").names == parse("deny").destinations == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be deny, or allow:"),
        ("drop", "must be deny, or allow:"),
        ("allow:", "write deny for that"),
        ("allow:a,,b", "must be a name"),
        ("allow:10.0.0.1/8", "has host bits set"),
        ("allow:10.0.0.256", "10.0.0.256"),
        ("allow:a.*.org", "a.*.org"),
        ("allow:*.", "must be a name"),
        ("allow:-a.org", "-a.org"),
        ("allow:pypi.org:https", "'https' is neither a port"),
        ("allow:10.0.0.1:0", "ports go from 1 to 65535"),
        ("allow:10.0.0.1:90-80", "the lower one first"),
        ("allow:pypi.org:90-80", "the lower one first"),
        ("allow:[2001:db8::1]:0", "ports go from 1 to 65535"),
        ("allow:[2001:db8::1]443", "behind the bracket"),
        ("allow:2001:db8::1/32", "has host bits set"),
        ("allow:2001:db8::x", "2001:db8::x"),
        ("allow:fe80::/64", "nothing is sent to link-local"),
        ("allow:" + ",".join(["a"] * 257), "256 are the most"),
        ("allow:" + ".".join(["a" * 60] * 5), "must be a name"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    with pytest.raises(InvalidParameter) as failure:
        parse(text)
    assert words in failure.value.message and "\n" not in failure.value.message


def test_names_match_themselves_or_what_is_below() -> None:
    policy = parse("allow:pypi.org,*.debian.org:443")
    assert policy.ports_of("deb.debian.org") == {(443, 443)} and policy.ports_of("pypi.org") == {None}
    assert policy.matching("a.b.debian.org") and policy.matching("pypi.org")
    for name in ("debian.org", "xdebian.org", "x.pypi.org", "org", ""):
        assert not policy.matching(name), name
    permits = Permits(name.pattern for name in policy.names)
    for name, allowed in (
        ("pypi.org", True), ("deb.debian.org", True), ("a.b.debian.org", True), ("debian.org", False),
        ("xdebian.org", False), ("pypi.org.evil", False), ("org", False),
    ):  # fmt: skip
        key = encode_name(name)
        assert key is not None and permits.allow(key) is allowed, name
    assert not permits.allow(b"\0") and Permits(("*",)).allow(b"\0")


def test_ranges_of_names_are_cut_so_that_none_overlap() -> None:
    policy = parse("allow:a.org:1-100,b.org:50-200,b.org:60,*.org:100-150,c.net")
    assert policy.ports_of("a.org") == {(1, 49), (50, 99), (100, 100), (101, 150)}
    assert policy.ports_of("b.org") == {(50, 99), (100, 100), (101, 150), (151, 200), (60, 60)}
    assert policy.ports_of("c.net") == {None} and policy.ports_of("d.net") == set()


def opened(policy: Policy, names: dict[str, set[str]], until: float) -> Openings:
    made, source = Openings(), IPv4Address("10.0.0.2")
    made.put(
        {
            Opening(source, IPv4Address(address), ports): Held(until, {name})
            for address, whose in names.items()
            for name in whose
            for ports in policy.ports_of(name)
        }
    )
    return made


def test_another_policy_opens_anew_what_names_were_answered_with() -> None:
    source, until = IPv4Address("10.0.0.2"), time.monotonic() + 100
    old = parse("allow:a.org:1-100,b.org,c.org:7")
    held = opened(old, {"11.0.0.1": {"a.org"}, "11.0.0.2": {"b.org"}, "11.0.0.3": {"c.org"}}, until)
    changed = held.under(source, parse("allow:a.org:50-200,c.org:7,d.org"), 10)
    assert {(str(one.destination), one.ports): now and now.names for one, now in changed.items()} == {
        ("11.0.0.1", (1, 100)): None,
        ("11.0.0.1", (50, 200)): {"a.org"},
        ("11.0.0.2", None): None,
    }
    assert all(now is None or now.until == until for now in changed.values())
    held.put(changed)
    widened = held.under(source, parse("allow:a.org:50-200,a.org:7,a.org:8,c.org:7"), 3)
    assert sorted(one.ports or (0, 0) for one in widened) in ([(7, 7)], [(8, 8)])  # no more than that


def test_a_label_with_a_dot_in_it_is_not_below_a_name() -> None:
    key = b"\x0fevil.debian.org\x00"  # one label
    assert not Permits(("*.debian.org", "evil.debian.org")).allow(key)
    assert spelled(key) == "evil\\046debian\\046org" and not parse("allow:*.org").matching(spelled(key))


def test_destinations_are_cut_so_that_none_overlap() -> None:
    given = parse(
        "allow:10.0.0.0/8:443,10.1.0.0/16,10.2.0.0/16:400-500,10.2.3.0/24:443,0.0.0.0/0:22,[::/0]:22,2600::/16"
    ).destinations
    pieces = [one for one in apart(given) if one.network.version == 4]
    six = [one for one in apart(given) if one.network.version == 6]
    assert Destination(IPv6Network("2600::/16")) in six and len(six) == 17
    given = tuple(one for one in given if one.network.version == 4)

    def allowed(among: list[Destination], address: str, port: int) -> int:
        return sum(
            IPv4Address(address) in one.network
            and (one.ports is None or one.ports[0] <= port <= one.ports[1])
            for one in among
        )

    for address in (
        "10.0.0.0",
        "10.1.0.1",
        "10.1.255.255",
        "10.2.3.4",
        "10.2.9.9",
        "10.255.255.255",
        "9.9.9.9",
    ):
        for port in (21, 22, 23, 399, 400, 443, 444, 500, 501):
            assert allowed(pieces, address, port) == min(1, allowed(list(given), address, port)), (
                address,
                port,
            )


@pytest.mark.parametrize(
    "address",
    "127.0.0.1 10.0.0.1 172.17.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.251 "
    "255.255.255.255 198.18.0.1 240.0.0.1".split(),
)
def test_no_name_leads_into_private_places(address: str) -> None:
    assert not reachable_by_name(IPv4Address(address))


@pytest.mark.parametrize(
    "address",
    "::1 :: fd00::1 fe80::1 ff02::1 ff0e::1 2001:db8::1 ::ffff:9.9.9.9 64:ff9b::a00:1 2002:a00:1::1 "
    "2002:7f00:1:: 2001:0:1::1 fec0::1".split(),
)
def test_nor_does_one_that_has_an_ipv6_address(address: str) -> None:
    assert not reachable_by_name(IPv6Address(address))


def test_addresses_of_the_world_are_reached_by_name() -> None:
    for address in ("2600::1", "2a00:1450::1", "64:ff9b::909:909", "2002:909:909::1"):
        assert reachable_by_name(IPv6Address(address)), address


def test_openings_are_known_again_by_their_elements() -> None:
    for source, destination in (("10.0.0.2", "9.9.9.9"), ("fd00::2", "2600::9")):
        for ports in (None, (443, 443), (80, 90)):
            opening = Opening(ip_interface(source).ip, ip_interface(destination).ip, ports)
            assert {Opening.of(element) for _, element in opening.elements(9)} == {opening}


def asked(name: str, kind: str = "A") -> Query:
    query = parse_query(dns.message.make_query(name, kind).to_wire())
    assert isinstance(query, Query)
    return query


def answered(name: str, *records: tuple[str, int, str, str]) -> bytes:
    message = dns.message.make_response(dns.message.make_query(name, "A"))
    for owner, ttl, kind, value in records:
        message.answer.append(dns.rrset.from_text(owner, ttl, "IN", kind, value))
    return message.to_wire()


def test_only_what_the_name_leads_to_counts() -> None:
    data = answered(
        "Www.Example.org",
        ("www.example.org.", 5, "CNAME", "cdn.example.net."),
        ("cdn.example.net.", 99999, "A", "9.9.9.9"),
        ("other.example.net.", 60, "A", "8.8.8.8"),
    )
    found, kept = addresses(asked("www.example.org"), data, 3600)
    assert found == [("9.9.9.9", 3600)]
    assert [rrset.ttl for rrset in dns.message.from_wire(kept).answer] == [5, 3600, 60]


def test_addresses_of_either_family_count() -> None:
    data = answered("a.org", ("a.org.", 7, "AAAA", "2600::9"), ("a.org.", 5, "A", "9.9.9.9"))
    assert addresses(asked("a.org"), data, 60)[0] == [("2600::9", 7), ("9.9.9.9", 5)]


def test_names_in_circles_and_broken_answers() -> None:
    data = answered("a.org", ("a.org.", 1, "CNAME", "b.org."), ("b.org.", 1, "CNAME", "a.org."))
    assert addresses(asked("a.org"), data, 60)[0] == []
    whole = answered("a.org", ("a.org.", 1, "A", "9.9.9.9"))
    for length in range(len(asked("a.org").question) + 13, len(whole)):
        with pytest.raises(Malformed):
            addresses(asked("a.org"), whole[:length], 60)
    start = 12 + len(asked("a.org").question)
    loop = whole[:start] + bytes([0xC0 | start >> 8, start & 255]) + whole[start + 2 :]
    with pytest.raises(Malformed, match="circles"):
        addresses(asked("a.org"), loop, 60)


def test_a_negative_time_to_live_is_none() -> None:
    whole = bytearray(answered("a.org", ("a.org.", 1, "A", "9.9.9.9")))
    at = whole.index(b"\x00\x01\x00\x01\x00\x00\x00\x01")
    whole[at + 4] = 0x80
    assert addresses(asked("a.org"), bytes(whole), 60)[0] == [("9.9.9.9", 0)]
