"""`sampan.http.protocol`: what it reads by itself is what h11 reads, and so is what it writes."""

from __future__ import annotations

import random

import pytest

from sampan.http.protocol import CLOSED, END, NEED_DATA, PAUSED, Event, Head, Malformed, Protocol

GET = b"GET /v1.50/containers/c%20c/json?a=1 HTTP/1.1\r\nHost: d\r\nUser-Agent: Client/28 (linux)\r\n\r\n"
POST = (
    b"POST /exec/1/start HTTP/1.1\r\nhost:d\r\nContent-Length: 4\r\nConnection: Upgrade\r\n"
    b"Content-Type:\tapplication/json \r\nUpgrade: tcp\r\nX-Empty:\r\n\r\n"
)


def _events(protocol: Protocol) -> list[Event]:
    events: list[Event] = []
    while not events or events[-1] not in (NEED_DATA, PAUSED, CLOSED):
        events.append(protocol.next_event())
    return events


def _read(raw: bytes, *, by_h11: bool) -> tuple[list[Event], bool]:
    """All that comes of these bytes, parts of the body as one; and whether h11 was asked."""
    protocol = Protocol()
    if by_h11:
        protocol.receive(raw[:3])  # a head in two pieces
        assert protocol.next_event() is NEED_DATA
        raw = raw[3:]
    try:
        protocol.receive(raw)
        events = _events(protocol)
    except Malformed as error:
        return [str(error).encode()], protocol._h11 is not None
    body = b"".join(event for event in events if isinstance(event, bytes))
    return [*(event for event in events if not isinstance(event, bytes)), body], protocol._h11 is not None


@pytest.mark.parametrize("raw", [GET, POST, POST + b"{}\r\n", POST + b"{}\r\nmore", GET + GET])
def test_usual_requests_are_read_without_h11_and_alike(raw: bytes) -> None:
    ours, by_h11 = _read(raw, by_h11=False)
    assert not by_h11
    theirs, by_h11 = _read(raw, by_h11=True)
    assert by_h11
    if b"Upgrade" in raw:  # h11 waits for the answer at once, and we when something came; both mean the same
        ours = [PAUSED if event is NEED_DATA and END in ours else event for event in ours]
    assert ours == theirs


@pytest.mark.parametrize(
    "line",
    [
        b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Connection: close", b"Content-Length: 1, 1",
        b"Content-Length: +1", b"Content-Length:", b"Host: other", b"A: 1\r\nA: 2", b"A : 1", b"A: 1\r\n 2",
        b"A: \x00", b"A: \x7f", b"\xe4: 1", b": 1", b"A", b"A: 1\n", b"A: 1\rB: 2", b"Connection: a, b",
    ],
)  # fmt: skip
def test_unusual_headers_are_left_to_h11(line: bytes) -> None:
    raw = b"GET / HTTP/1.1\r\nHost: d\r\n" + line + b"\r\n\r\n"
    assert _read(raw, by_h11=False)[1]


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.0", b"GET / HTTP/1.2", b"GET  / HTTP/1.1", b"get / HTTP/1.1", b"GET * HTTP/1.1",
        b"GET http://d/ HTTP/1.1", b"GET /\xe4 HTTP/1.1", b"GET /a b HTTP/1.1", b"GET /",
    ],
)  # fmt: skip
def test_unusual_request_lines_are_left_to_h11(line: bytes) -> None:
    assert _read(line + b"\r\nHost: d\r\n\r\n", by_h11=False)[1]


def test_a_request_without_a_host_is_refused() -> None:
    protocol = Protocol()
    protocol.receive(b"GET / HTTP/1.1\r\nA: 1\r\n\r\n")
    with pytest.raises(Malformed, match="Host"):
        protocol.next_event()


def test_nothing_is_read_otherwise_than_by_h11() -> None:
    """Broken requests: whoever reads one differently from others can be made to smuggle a second."""
    chance = random.Random(7)
    pieces = [
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b",",
        b"\0",
        b"\x80",
        b"0",
        b"9",
        b"Host: d\r\n",
        b"%",
    ]
    pieces += [b"Content-Length: 2\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"]
    alone = 0
    for _ in range(3000):
        raw = bytearray(chance.choice((GET, POST)))
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            at = chance.randrange(3, len(raw))
            if chance.random() < 0.3:
                del raw[at : at + chance.randrange(1, 4)]
            else:
                raw[at:at] = chance.choice(pieces)
        ours, by_h11 = _read(bytes(raw), by_h11=False)
        if by_h11:
            continue
        alone += 1
        theirs, _ = _read(bytes(raw), by_h11=True)
        assert ours[0] == theirs[0] and ours[-1] == theirs[-1], bytes(raw)
        assert (END in ours) == (END in theirs), bytes(raw)
    assert alone > 300


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("status", "headers", "parts"),
    [
        (200, [("Server", "S"), ("Content-Length", "3")], [b"abc"]),
        (200, [("Server", "S"), ("Content-Type", "text/plain")], [b"abc", b"", b"d" * 300]),
        (204, [], []),
        (304, [("A", "")], []),
        (404, [("Content-Length", "0")], []),
    ],
)
def test_answers_are_written_as_by_h11(
    method: str, status: int, headers: list[tuple[str, str]], parts: list[bytes]
) -> None:
    written: list[bytes] = []
    for cut in (0, 3):
        protocol = Protocol()
        request = GET.replace(b"GET", method.encode())
        for piece in filter(None, (request[:cut], request[cut:])):
            protocol.receive(piece)
            protocol.next_event()
        _events(protocol)
        data = protocol.head(status, "Reason", headers)
        for part in parts if method == "GET" else ():
            data += protocol.data(part)
        written.append((data + protocol.end()).lower())
        assert protocol.answered
    assert written[0] == written[1]


def test_an_answer_that_says_so_is_the_last() -> None:
    protocol = Protocol()
    protocol.receive(GET)
    _events(protocol)
    protocol.head(200, "OK", [("Content-Length", "0"), ("Connection", "close")])
    protocol.end()
    assert not protocol.answered


def test_requests_behind_one_another_are_read_in_turn() -> None:
    protocol = Protocol()
    protocol.receive(POST + b"{}\r\n" + GET + GET[:10])
    for target in ("/exec/1/start", "/v1.50/containers/c%20c/json?a=1"):
        head, *_ = _events(protocol)
        assert isinstance(head, Head) and head.target == target
        protocol.head(204, "No Content", [])
        protocol.end()
        protocol.next_cycle()
    assert protocol.next_event() is NEED_DATA
    protocol.receive(GET[10:])
    assert isinstance(protocol.next_event(), Head)


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\rb", "a\0"])
def test_a_header_of_two_lines_is_not_sent(value: str) -> None:
    protocol = Protocol()
    protocol.receive(GET)
    _events(protocol)
    with pytest.raises(ValueError, match="more than one line"):
        protocol.head(200, "OK", [("Location", value)])


def test_a_body_of_another_length_than_announced_is_an_error() -> None:
    protocol = Protocol()
    protocol.receive(GET)
    _events(protocol)
    protocol.head(200, "OK", [("Content-Length", "3")])
    protocol.data(b"ab")
    with pytest.raises(ValueError, match="shorter"):
        protocol.end()
    with pytest.raises(ValueError, match="longer"):
        protocol.skip(2)
