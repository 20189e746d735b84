"""WebSocket: the examples of RFC 6455, frames in pieces of any size, what no client may send."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import cast

import pytest

from sampan.errors import InvalidParameter
from sampan.http import Request, websocket
from sampan.http.websocket import BINARY, CLOSE, PING, Decoder, ProtocolError, accept, frame


def test_frames_of_a_server() -> None:
    assert frame(websocket.TEXT, b"Hello") == bytes.fromhex("810548656c6c6f")
    assert frame(BINARY, b"x" * 256)[:4] == bytes.fromhex("827e0100")
    assert frame(BINARY, b"x" * 65536)[:10] == bytes.fromhex("827f0000000000010000")
    assert websocket.closing(1000) == bytes.fromhex("880203e8")


def masked(first: int, payload: bytes, mask: bytes = b"\x37\xfa\x21\x3d") -> bytes:
    """A frame as a client sends it."""
    head = bytearray(frame(0, payload)[: len(frame(0, payload)) - len(payload)])
    head[0] = first
    head[1] |= 0x80
    return bytes(head) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def test_the_example_of_a_masked_hello() -> None:
    data = bytes.fromhex("818537fa213d7f9f4d5158")
    assert masked(0x81, b"Hello") == data
    assert list(Decoder().feed(data)) == [(BINARY, b"Hello")]


def test_any_pieces_give_the_same_stream() -> None:
    dice = random.Random(3)
    for _ in range(50):
        wanted, sent = b"", b""
        pings = 0
        for number in range(6):
            payload = dice.randbytes(dice.choice((0, 1, 5, 125, 126, 3000, 70_000)))
            sent += masked(0x02 if number == 0 else 0x80 if number == 5 else 0x00, payload, dice.randbytes(4))
            wanted += payload
            if dice.random() < 0.3:
                sent += masked(0x80 | PING, b"?")
                pings += 1
        decoder, got, at = Decoder(), b"", 0
        while at < len(sent):
            end = at + dice.randrange(1, 9000)
            for opcode, payload in decoder.feed(sent[at:end]):
                if opcode == BINARY:
                    got += payload
                else:
                    assert (opcode, payload) == (PING, b"?")
                    pings -= 1
            at = end
        assert (got, pings) == (wanted, 0)


@pytest.mark.parametrize(
    "data",
    [
        frame(BINARY, b"no mask"),
        masked(0xC2, b"an extension"),
        masked(0x83, b"an unknown opcode"),
        masked(0x80 | PING, b"x" * 126),
        masked(CLOSE, b""),
    ],
)
def test_what_no_client_may_send(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(Decoder().feed(data))


def test_handshakes() -> None:
    given = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}

    def answered(**more: str) -> dict[str, str]:
        headers = given | {f"sec-websocket-{name}": value for name, value in more.items()}
        return dict(accept(cast("Request", SimpleNamespace(headers=headers, upgrade="websocket"))))

    key = {"Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}  # the example of section 1.3
    assert answered(key="dGhlIHNhbXBsZSBub25jZQ==") == key
    assert answered(key="dGhlIHNhbXBsZSBub25jZQ==", protocol="chat") == key | {
        "Sec-WebSocket-Protocol": "chat"
    }
    assert answered(key="dGhlIHNhbXBsZSBub25jZQ==", protocol="a, b") == key
    assert (
        answered(key="dGhlIHNhbXBsZSBub25jZQ==", protocol="\ufffd") == key
    )  # what cannot be repeated is not
    for more in ({}, {"key": "\ufffd"}, {"key": "x", "version": "12"}):
        with pytest.raises(InvalidParameter, match="the handshake is missing"):
            answered(**more)
