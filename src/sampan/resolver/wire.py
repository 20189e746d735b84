"""Questions and answers on the wire: RFC 1035 (messages), RFC 6891 (EDNS0), RFC 7766 (TCP).

Only what a server of few record types and a careful forwarder need: one question in, without compression; an
answer of ready-made records out; and of what an upstream says no more than whose answer it is. Nothing behind
the question of a forwarded answer is looked at, so nothing there can confuse this process.
"""

from __future__ import annotations

import ipaddress
import struct

from sampan.dataclasses import dataclass

A, PTR, AAAA, OPT, ANY = 1, 12, 28, 41, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
IN = 1
ZONE_TRANSFERS = (251, 252)
PLAIN_UDP_BYTES = 512
LARGEST_BYTES = 65535
TTL_S = 600  # Docker's

_HEADER = struct.Struct(">HHHHHH")
_PAIR = struct.Struct(">HH")
_OPT = struct.Struct(">BHHBBHH")
_RECORD = struct.Struct(">HHIH")
_RESPONSE, _OPCODE, _TRUNCATED, _RECURSION_AVAILABLE, _RCODE = 0x8000, 0x7800, 0x0200, 0x0080, 0x000F
_KEPT = 0x0110  # RD and CD, which an answer repeats
_FORWARDED = 0x0130  # RD, AD and CD
_DNSSEC_OK = 0x8000
_BADVERS = 1  # upper bits of extended rcode 16
_OWN_EDNS_BYTES = 4096
_PROHIBITED = struct.pack(">HHH", 15, 2, 18)  # EDNS option Extended DNS Error: 18, Prohibited
_TO_QUESTION = b"\xc0\x0c"  # a pointer to the question's name
_FAILURES = frozenset({FORMERR, SERVFAIL, NOTIMP, REFUSED})


@dataclass(slots=True)
class Query:
    """One question.

    Attributes:
        question: name, type and class as they came.
        key: the name in lower case, as on the wire, which is how tables know it.
        edns_bytes: how much the asker takes over UDP; 0 when it did not say, by EDNS0.
        dnssec_ok: EDNS0's DO bit.
    """

    ident: int
    flags: int
    question: bytes
    key: bytes
    kind: int
    klass: int
    edns_bytes: int
    dnssec_ok: bool

    @property
    def single_label(self) -> bool:
        """Whether the name has no dot."""
        return len(self.key) > 1 and self.key[0] + 2 == len(self.key)

    @property
    def udp_bytes(self) -> int:
        """How large an answer over UDP may be."""
        return max(self.edns_bytes, PLAIN_UDP_BYTES)


@dataclass(slots=True)
class Refusal:
    """What is no question that we take, with the answer to it."""

    answer: bytes


def parse(data: bytes) -> Query | Refusal | None:
    """Read a query; None for what deserves no answer at all."""
    if len(data) < _HEADER.size:
        return None
    ident, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & _RESPONSE:
        return None
    if flags & _OPCODE:
        return _refuse(ident, flags, NOTIMP)
    if questions != 1 or answers or authorities or additional > 1:
        return _refuse(ident, flags, FORMERR)
    at = _HEADER.size
    try:
        while length := data[at]:
            if length > 63:
                return _refuse(ident, flags, FORMERR)
            at += length + 1
    except IndexError:
        return _refuse(ident, flags, FORMERR)
    at += 1
    end = at + _PAIR.size
    if at - _HEADER.size > 255 or len(data) < end:
        return _refuse(ident, flags, FORMERR)
    kind, klass = _PAIR.unpack_from(data, at)
    edns_bytes, dnssec_ok = 0, False
    if additional:
        if len(data) < end + _OPT.size:
            return _refuse(ident, flags, FORMERR)
        root, record, edns_bytes, _, version, bits, length = _OPT.unpack_from(data, end)
        if root or record != OPT or len(data) != end + _OPT.size + length:
            return _refuse(ident, flags, FORMERR)
        if version:
            opt = _OPT.pack(0, OPT, _OWN_EDNS_BYTES, _BADVERS, 0, 0, 0)
            head = _HEADER.pack(ident, _RESPONSE | flags & _KEPT, 1, 0, 0, 1)
            return Refusal(head + data[_HEADER.size : end] + opt)
        edns_bytes, dnssec_ok = max(edns_bytes, PLAIN_UDP_BYTES), bool(bits & _DNSSEC_OK)
    elif len(data) != end:
        return _refuse(ident, flags, FORMERR)
    return Query(
        ident,
        flags,
        data[_HEADER.size : end],
        data[_HEADER.size : at].lower(),
        kind,
        klass,
        edns_bytes,
        dnssec_ok,
    )


def _refuse(ident: int, flags: int, rcode: int) -> Refusal:
    bits = _RESPONSE | flags & (_OPCODE | _KEPT) | rcode
    return Refusal(_HEADER.pack(ident, bits, 0, 0, 0, 0))


def answer(
    query: Query,
    records: list[bytes],
    rcode: int = NOERROR,
    limit: int = LARGEST_BYTES,
    *,
    prohibited: bool = False,
) -> bytes:
    """An answer of our own; what does not fit within `limit` is left out, and it is marked as truncated.

    Args:
        prohibited: say so, to who understands it (RFC 8914).
    """
    flags = _RESPONSE | _RECURSION_AVAILABLE | query.flags & _KEPT | rcode
    opt = b""
    if query.edns_bytes:
        more = _PROHIBITED if prohibited else b""
        bits = _DNSSEC_OK if query.dnssec_ok else 0
        opt = _OPT.pack(0, OPT, _OWN_EDNS_BYTES, 0, 0, bits, len(more)) + more
    body = b"".join(records)
    room = limit - _HEADER.size - len(query.question) - len(opt)
    if len(body) > room:
        flags |= _TRUNCATED
        fitting, used = [], 0
        for record in records:
            used += len(record)
            if used > room:
                break
            fitting.append(record)
        records, body = fitting, b"".join(fitting)
    head = _HEADER.pack(query.ident, flags, 1, len(records), 0, 1 if opt else 0)
    return head + query.question + body + opt


def address_record(address: str) -> tuple[int, bytes]:
    """Type and record of an address, for the name in the question."""
    packed = ipaddress.ip_address(address).packed
    kind = A if len(packed) == 4 else AAAA
    return kind, _TO_QUESTION + _RECORD.pack(kind, IN, TTL_S, len(packed)) + packed


def pointer_record(target: bytes) -> bytes:
    """A PTR record for the name in the question; `target` as on the wire."""
    return _TO_QUESTION + _RECORD.pack(PTR, IN, TTL_S, len(target)) + target


def encode_name(name: str) -> bytes | None:
    """A name as on the wire; None for one that cannot be a domain name."""
    labels = name.encode().removesuffix(b".").split(b".")
    if not all(0 < len(label) < 64 for label in labels):
        return None
    encoded = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return encoded if len(encoded) <= 255 else None


def reverse_key(address: str) -> bytes:
    """The name that a PTR query for an address has, as on the wire."""
    encoded = encode_name(ipaddress.ip_address(address).reverse_pointer)
    assert encoded is not None
    return encoded


def forwarded(query: Query, ident: int) -> bytes:
    """The question for an upstream: written anew, so that nothing else of what the asker sent gets there."""
    head = _HEADER.pack(ident, query.flags & _FORWARDED, 1, 0, 0, 1 if query.edns_bytes else 0)
    if not query.edns_bytes:
        return head + query.question
    bits = _DNSSEC_OK if query.dnssec_ok else 0
    return head + query.question + _OPT.pack(0, OPT, query.edns_bytes, 0, 0, bits, 0)


@dataclass(slots=True)
class Reply:
    """What an upstream said.

    Attributes:
        whole: it repeats the question and can be handed on.
    """

    data: bytes
    rcode: int
    whole: bool


def parse_reply(query: Query, data: bytes) -> Reply | None:
    """An upstream's answer to this question, whose id is known to be right; None for anything else."""
    if len(data) < _HEADER.size:
        return None
    _, flags, questions, *_ = _HEADER.unpack_from(data)
    if not flags & _RESPONSE or flags & _OPCODE:
        return None
    rcode = flags & _RCODE
    if questions == 0 and rcode in _FAILURES and len(data) == _HEADER.size:
        return Reply(data, rcode, whole=False)
    end = _HEADER.size + len(query.question)
    same = data[_HEADER.size : end - 4].lower() == query.key and data[end - 4 : end] == query.question[-4:]
    return Reply(data, rcode, whole=True) if questions == 1 and same else None


def handed_on(query: Query, reply: Reply, limit: int) -> bytes:
    """An upstream's answer as the asker gets it: its own id and spelling, and no more than it takes."""
    if not reply.whole:
        return answer(query, [], reply.rcode)
    data, end = reply.data, _HEADER.size + len(query.question)
    if len(data) <= limit:
        return _PAIR.pack(query.ident, _PAIR.unpack_from(data)[1]) + data[4:12] + query.question + data[end:]
    bits = _PAIR.unpack_from(data)[1] | _TRUNCATED
    return _HEADER.pack(query.ident, bits, 1, 0, 0, 0) + query.question
