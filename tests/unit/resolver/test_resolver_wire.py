"""Questions and answers on the wire, with dnspython as the judge of both."""

from __future__ import annotations

import random

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.rrset
import pytest

from sampan.resolver import wire


def parsed(query: dns.message.Message) -> wire.Query:
    """The query as we read it."""
    found = wire.parse(query.to_wire())
    assert isinstance(found, wire.Query)
    return found


@pytest.mark.parametrize(
    "name", ["web", "Web.Front", "a.b.c.d.e", ".", "x" * 63 + ".y", "_dmarc.example.org"]
)
@pytest.mark.parametrize("kind", ["A", "AAAA", "PTR", "TXT", "HTTPS"])
@pytest.mark.parametrize("edns", [None, 512, 1232, 65535])
def test_questions_are_read_as_others_write_them(name: str, kind: str, edns: int | None) -> None:
    made = dns.message.make_query(name, kind, use_edns=False if edns is None else 0, payload=edns)
    query = parsed(made)
    assert query.ident == made.id
    assert query.key == dns.name.from_text(name).canonicalize().to_wire()
    assert (query.kind, query.klass) == (dns.rdatatype.from_text(kind), 1)
    assert query.edns_bytes == (edns or 0) and query.udp_bytes == (edns or 512)
    assert query.single_label == (name not in (".",) and "." not in name)


def test_small_edns_sizes_count_as_512_and_options_are_passed_over() -> None:
    made = dns.message.make_query("web", "A", use_edns=0, payload=100, want_dnssec=True)
    made.use_edns(0, payload=100, options=[dns.edns.GenericOption(10, b"12345678")], ednsflags=dns.flags.DO)
    query = parsed(made)
    assert query.udp_bytes == 512 and query.dnssec_ok
    sent = dns.message.from_wire(wire.forwarded(query, 7))
    assert sent.id == 7 and sent.question == made.question and not sent.options
    assert sent.ednsflags & dns.flags.DO and sent.flags & dns.flags.RD


def test_answers_are_read_by_others() -> None:
    made = dns.message.make_query("Web", "A", use_edns=0, payload=4096)
    records = [wire.address_record(f"10.0.0.{number}")[1] for number in (2, 3)]
    found = dns.message.from_wire(wire.answer(parsed(made), records))
    assert made.is_response(found)
    assert [item.address for item in found.answer[0]] == ["10.0.0.2", "10.0.0.3"]
    assert found.answer[0].name == made.question[0].name and found.answer[0].ttl == 600
    assert found.edns == 0 and found.rcode() == dns.rcode.NOERROR
    kind, record = wire.address_record("fd00::7")
    assert kind == dns.rdatatype.AAAA
    found = dns.message.from_wire(wire.answer(parsed(dns.message.make_query("web", "AAAA")), [record]))
    assert [item.address for item in found.answer[0]] == ["fd00::7"]
    target = wire.encode_name("web.front")
    assert target is not None
    found = dns.message.from_wire(
        wire.answer(
            parsed(dns.message.make_query("2.0.0.10.in-addr.arpa", "PTR")), [wire.pointer_record(target)]
        )
    )
    assert found.answer[0].to_text().endswith("IN PTR web.front.")


@pytest.mark.parametrize("limit", [512, 513, 520, 1232, 4096])
def test_what_does_not_fit_is_left_out_and_said(limit: int) -> None:
    records = [wire.address_record(f"10.0.{number}.1")[1] for number in range(200)]
    query = parsed(dns.message.make_query("web", "A", use_edns=0, payload=limit))
    data = wire.answer(query, records, limit=limit)
    found = dns.message.from_wire(data)
    count = sum(len(rrset) for rrset in found.answer)
    assert len(data) <= limit and bool(found.flags & dns.flags.TC) == (count < 200)
    assert count == 200 or len(data) + 16 > limit


def test_reverse_names() -> None:
    for address in ("10.1.2.3", "fd00::1:2"):
        assert wire.reverse_key(address) == dns.reversename.from_address(address).to_wire()


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64, ".".join(["x" * 60] * 5)])
def test_what_is_no_domain_name(name: str) -> None:
    assert wire.encode_name(name) is None


def test_an_upstreams_answer_has_to_be_to_the_question() -> None:
    made = dns.message.make_query("Example.ORG", "A")
    query = parsed(made)
    answer = dns.message.make_response(dns.message.make_query("example.org", "A", id=9))
    answer.answer.append(dns.rrset.from_text("example.org.", 60, "IN", "A", "192.0.2.1"))
    reply = wire.parse_reply(query, answer.to_wire())
    assert reply is not None and reply.whole
    found = dns.message.from_wire(wire.handed_on(query, reply, 512))
    assert found.id == made.id and found.question[0].name.to_text() == "Example.ORG."
    assert str(found.answer[0][0]) == "192.0.2.1"
    for other in ("example.com", "ample.org", "x.example.org"):
        assert (
            wire.parse_reply(query, dns.message.make_response(dns.message.make_query(other, "A")).to_wire())
            is None
        )
    for kind in ("AAAA", "ANY"):
        wrong = dns.message.make_response(dns.message.make_query("example.org", kind))
        assert wire.parse_reply(query, wrong.to_wire()) is None
    assert wire.parse_reply(query, made.to_wire()) is None  # no response
    assert wire.parse_reply(query, b"") is None
    refusal = wire.parse_reply(query, b"\0\7\x81\x85" + bytes(8))
    assert refusal is not None and not refusal.whole
    found = dns.message.from_wire(wire.handed_on(query, refusal, 512))
    assert made.is_response(found) and found.rcode() == dns.rcode.REFUSED


def test_an_upstreams_large_answer_is_cut_to_nothing() -> None:
    query = parsed(dns.message.make_query("example.org", "A"))
    answer = dns.message.make_response(dns.message.make_query("example.org", "A"))
    addresses = [f"192.0.2.{number}" for number in range(100)]
    answer.answer.append(dns.rrset.from_text_list("example.org.", 60, "IN", "A", addresses))
    reply = wire.parse_reply(query, answer.to_wire())
    assert reply is not None
    found = dns.message.from_wire(wire.handed_on(query, reply, 512))
    assert found.flags & dns.flags.TC and not found.answer
    assert len(dns.message.from_wire(wire.handed_on(query, reply, 65535)).answer[0]) == 100


def test_any_bytes_can_be_read() -> None:
    """Nothing raises, and what we take for a question dnspython does not take for something else."""
    dice = random.Random(7)
    good = [
        dns.message.make_query("web.front", "A").to_wire(),
        dns.message.make_query("web", "AAAA", use_edns=0, payload=1232).to_wire(),
    ]
    taken = 0
    for _ in range(3000):
        data = bytearray(dice.choice(good))
        for _ in range(dice.randrange(4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        if dice.random() < 0.3:
            del data[dice.randrange(len(data)) :]
        found = wire.parse(bytes(data))
        if isinstance(found, wire.Refusal):
            assert dns.message.from_wire(found.answer).flags & dns.flags.QR
        if isinstance(found, wire.Query):
            taken += 1
            dns.message.from_wire(wire.answer(found, [wire.address_record("10.0.0.1")[1]]))
            sent = dns.message.from_wire(wire.forwarded(found, 1))
            assert sent.question[0].name.canonicalize().to_wire() == found.key
    assert taken > 800
