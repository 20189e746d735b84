"""Chunked bodies whatever pieces they come in, and what is none."""

from __future__ import annotations

import random

import pytest

from sampan.errors import InvalidParameter
from sampan.http.chunks import ChunkDecoder

CONTENT = b"hello 0123456789\r\n"
REST = b"0\r\nX-Trailer: 1\r\n\r\nGET / HTTP/1.1"
BODY = b"5\r\nhello\r\n1;name=value\r\n \r\n00A \r\n0123456789\r\n2\r\n\r\n\r\n" + REST


def decode(pieces: list[bytes]) -> tuple[bytes, bytes | None]:
    decoder = ChunkDecoder()
    content = b""
    for number, piece in enumerate(pieces):
        found, rest = decoder.feed(piece)
        content += b"".join(found)
        if rest is not None:
            return content, rest + b"".join(pieces[number + 1 :])
    return content, None


def test_whole() -> None:
    assert decode([BODY]) == (CONTENT, REST)


def test_a_byte_at_a_time() -> None:
    assert decode([BODY[n : n + 1] for n in range(len(BODY))]) == (CONTENT, REST)


@pytest.mark.parametrize("cut", range(len(BODY)))
def test_cut_anywhere(cut: int) -> None:
    assert decode([BODY[:cut], BODY[cut:]]) == (CONTENT, REST)


def test_large_bodies_in_random_pieces() -> None:
    dice = random.Random(5)
    parts = [dice.randbytes(dice.randrange(1, 70_000)) for _ in range(40)]
    wire = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    pieces = []
    while wire:
        size = dice.randrange(1, 50_000)
        pieces.append(wire[:size])
        wire = wire[size:]
    assert decode(pieces) == (b"".join(parts), b"0\r\n\r\n")


@pytest.mark.parametrize(
    "wrong",
    [
        b"\r\n", b"xyz\r\n", b"-5\r\nhello\r\n", b"+5\r\nhello\r\n", b"0x5\r\nhello\r\n",
        b"5\nhello\r\n", b"5\r\nhelloo\r\n", b"5\r\nhello\n",
        b"f" * 17 + b"\r\n", b"5;" + b"x" * 300, b"5 5\r\nhello\r\n", b";x\r\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [1, 4096])
def test_what_is_no_chunked_body_is_refused(wrong: bytes, step: int) -> None:
    wrong += b"5\r\nhello\r\n0\r\n\r\n"
    with pytest.raises(InvalidParameter, match="malformed request body"):
        decode([wrong[n : n + step] for n in range(0, len(wrong), step)])
