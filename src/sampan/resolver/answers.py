"""The addresses in an upstream's answer, for containers whose policies open what names are answered with.

RFC 1035, 4.1: the records behind the question, each with a name that may point back into the message. Only
what the question's name leads to, by CNAME or itself, counts as its address.
"""

from __future__ import annotations

import socket
import struct

from sampan.resolver.wire import AAAA, IN, A, Query

_HEADER = struct.Struct(">HHHHHH")
_RECORD = struct.Struct(">HHIH")
_TTL = struct.Struct(">I")
_CNAME = 5
_SIZES = {A: (socket.AF_INET, 4), AAAA: (socket.AF_INET6, 16)}
_POINTER = 0xC0
_MOST_STEPS = 128  # of one name: labels and pointers
_MOST_RECORDS = 256
_TTL_SIGN = 1 << 31  # RFC 2181, 8: such a one is zero


class Malformed(ValueError):
    """The answer breaks off, or goes in circles."""


def addresses(query: Query, data: bytes, longest_ttl_s: int) -> tuple[list[tuple[str, int]], bytes]:
    """The addresses that the question's name has by an answer, each with the seconds that it is good
    for; and the answer, in which nothing is to be kept for longer than `longest_ttl_s`.

    Args:
        data: an answer that is known to repeat the question.

    Raises:
        Malformed: it cannot be read.
    """
    try:
        return _addresses(query, data, longest_ttl_s)
    except (IndexError, struct.error):
        raise Malformed("it breaks off") from None


def _addresses(query: Query, data: bytes, longest_ttl_s: int) -> tuple[list[tuple[str, int]], bytes]:
    count = _HEADER.unpack_from(data)[3]
    if count > _MOST_RECORDS:
        raise Malformed(f"it has {count} records")
    at = _HEADER.size + len(query.question)
    found: list[tuple[bytes, str, int]] = []
    aliases: dict[bytes, tuple[bytes, int]] = {}
    shortened = bytearray(data)
    for _ in range(count):
        name, at = _name(data, at)
        kind, klass, ttl_s, length = _RECORD.unpack_from(data, at)
        ttl_s = 0 if ttl_s & _TTL_SIGN else min(ttl_s, longest_ttl_s)
        _TTL.pack_into(shortened, at + 4, ttl_s)
        at += _RECORD.size
        if at + length > len(data):
            raise Malformed("it breaks off")
        if klass == IN and kind in _SIZES:
            family, size = _SIZES[kind]
            if length != size:
                raise Malformed("an address is not one")
            found.append((name, socket.inet_ntop(family, data[at : at + size]), ttl_s))
        elif klass == IN and kind == _CNAME:
            aliases[name] = _name(data, at)[0], ttl_s
        at += length
    names = {query.key}
    name = query.key
    while name in aliases and aliases[name][0] not in names:
        name = aliases[name][0]
        names.add(name)
    return [(address, ttl_s) for owner, address, ttl_s in found if owner in names], bytes(shortened)


def _name(data: bytes, at: int) -> tuple[bytes, int]:
    """A name in lower case and without pointers, and where what follows it begins."""
    labels, end = bytearray(), -1
    for _ in range(_MOST_STEPS):
        length = data[at]
        if length >= _POINTER:
            end = at + 2 if end < 0 else end
            at = (length & ~_POINTER) << 8 | data[at + 1]
        elif length > 63:
            raise Malformed("a name is not one")
        else:
            label = data[at : at + length + 1]
            if len(label) <= length:
                raise Malformed("it breaks off")
            labels += label
            at += length + 1
            if not length:
                return bytes(labels).lower(), at if end < 0 else end
    raise Malformed("a name goes in circles")


def spelled(key: bytes) -> str:
    """A name on the wire as text, without a dot at its end; what is no printable ASCII as `\\DDD`."""
    labels, at = [], 0
    while key[at]:
        label = key[at + 1 : at + 1 + key[at]]
        labels.append("".join(chr(c) if 0x21 <= c < 0x7F and c not in b".\\" else f"\\{c:03}" for c in label))
        at += key[at] + 1
    return ".".join(labels)
