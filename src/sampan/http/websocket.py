"""The server's side of WebSocket as a bare stream of bytes, without extensions (RFC 6455).

Where a message begins and ends says nothing to who wants a stream, so payload is passed on as it arrives.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Iterator

from sampan.errors import InvalidParameter
from sampan.http.request import Request

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
NORMAL, PROTOCOL_ERROR = 1000, 1002  # why a connection is closed
_CONTINUATION = 0
_MASK_BYTES = 4
_CONTROL_LIMIT_BYTES = 125
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


_TOKEN = re.compile("[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class ProtocolError(Exception):
    """The client sends what is no WebSocket frame of a client's."""


def accept(request: Request) -> list[tuple[str, str]]:
    """The headers that agree to a client's opening handshake (section 4.2).

    Raises:
        InvalidParameter: it is none.
    """
    key = request.headers.get("sec-websocket-key", "").strip()
    version = request.headers.get("sec-websocket-version")
    if request.upgrade != "websocket" or not key or not key.isascii() or version != "13":
        raise InvalidParameter("this is for WebSocket clients (version 13): the handshake is missing")
    digest = hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()
    answer = [("Sec-WebSocket-Accept", base64.b64encode(digest).decode())]
    protocol = request.headers.get("sec-websocket-protocol", "").strip()
    if _TOKEN.fullmatch(protocol):
        answer.append(
            ("Sec-WebSocket-Protocol", protocol)
        )  # what it says of the stream is the client's to know
    return answer


def frame(opcode: int, payload: bytes) -> bytes:
    """A whole message in one frame, as a server sends it (section 5.2)."""
    size = len(payload)
    if size <= _CONTROL_LIMIT_BYTES:
        head = struct.pack(">BB", 0x80 | opcode, size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 127, size)
    return head + payload


def closing(code: int) -> bytes:
    """The frame that ends the server's side."""
    return frame(CLOSE, struct.pack(">H", code))


class Decoder:
    """What a client sends, frame by frame or in pieces of them."""

    def __init__(self) -> None:
        self._waiting = bytearray()  # less than a head, or less than a control frame
        self._opcode = 0
        self._mask = b""
        self._left = 0  # payload of the present data frame that is still to come

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Payload and control frames, in their order: pieces of messages come as `BINARY` in any case.

        Raises:
            ProtocolError: this is none of a client's.
        """
        self._waiting += data
        while True:
            if self._left:
                piece = bytes(self._waiting[: self._left])
                if not piece:
                    return
                del self._waiting[: len(piece)]
                self._left -= len(piece)
                plain = _unmask(piece, self._mask)
                turn = len(piece) % _MASK_BYTES
                self._mask = self._mask[turn:] + self._mask[:turn]
                yield BINARY, plain
                continue
            head = self._head()
            if head is None:
                return
            opcode, size, taken = head
            if opcode >= CLOSE:
                if len(self._waiting) < taken + size:
                    return
                payload = _unmask(bytes(self._waiting[taken : taken + size]), self._mask)
                del self._waiting[: taken + size]
                yield opcode, payload
            else:
                del self._waiting[:taken]
                self._left = size

    def _head(self) -> tuple[int, int, int] | None:
        """Opcode, size of the payload and of the head; None before all of it is there."""
        waiting = self._waiting
        if len(waiting) < 2:
            return None
        opcode, size = waiting[0] & 0x0F, waiting[1] & 0x7F
        if waiting[0] & 0x70 or opcode not in (_CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise ProtocolError("an extension that was not agreed on")
        if not waiting[1] & 0x80:
            raise ProtocolError("a frame without a mask")
        if opcode >= CLOSE and (size > _CONTROL_LIMIT_BYTES or not waiting[0] & 0x80):
            raise ProtocolError("a control frame in pieces")
        at = 2
        if size >= 126:
            at += 2 if size == 126 else 8
            if len(waiting) < at:
                return None
            size = int.from_bytes(waiting[2:at], "big")
        if len(waiting) < at + _MASK_BYTES:
            return None
        self._mask = bytes(waiting[at : at + _MASK_BYTES])
        return opcode, size, at + _MASK_BYTES


def _unmask(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    pad = (mask * (size // _MASK_BYTES + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")
