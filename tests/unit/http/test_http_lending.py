"""Large chunked bodies that a thread reads from the socket itself: whole, cut short, broken, given up."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.errors import NotFound
from sampan.http import HttpServer, Request, Response, Router, Routes, text
from sampan.http.body import LEND_BYTES, BodyStream

routes = Routes()
LARGE = 12 * LEND_BYTES
HEAD = b"PUT /store HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class Seen:
    """What the worker threads of the handlers saw."""

    def __init__(self) -> None:
        self.content = b""
        self.lent = False
        self.error: Exception | None = None
        self.reading = threading.Event()
        self.left = threading.Event()


seen = Seen()


def store(body: BodyStream, directory: str) -> None:
    """Half of it by `read`, half of it straight to a file."""
    path = os.path.join(directory, "stored")
    try:
        with open(path, "wb", buffering=0) as file:
            while piece := body.read(70_000):
                file.write(piece)
                while body.copy_to(file.fileno(), 90_001) and random.random() < 0.9:
                    if file.tell() > LARGE // 2:
                        seen.reading.set()
    except Exception as error:
        seen.error = error
        raise
    finally:
        seen.content = Path(path).read_bytes()
        seen.lent = body._body._lent is not None
        seen.left.set()


@routes.put("/store")
async def put(request: Request) -> Response:
    body = request.body_stream(direct=True)
    await asyncio.to_thread(store, body, str(request.engine))
    return text("stored")


@routes.put("/some")
async def some(request: Request) -> Response:
    body = request.body_stream(direct=True)
    await asyncio.to_thread(lambda: [body.read(1) for _ in range(4 * LEND_BYTES)])
    raise NotFound("enough")


@routes.get("/_ping")
async def ping(_: Request) -> Response:
    return text("OK")


def chunks(content: bytes, dice: random.Random) -> bytes:
    parts = []
    at = 0
    while at < len(content):
        size = dice.choice([1, 3, 4096, 32768, dice.randrange(1, 100_000)])
        part = content[at : at + size]
        parts.append(b"%x\r\n%b\r\n" % (len(part), part))
        at += size
    return b"".join(parts)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    seen.__init__()  # type: ignore[misc]
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) <= len(before)


def serve(tmp_path: Path, talk: Callable[[socket.socket], None], tcp: bool = False) -> None:
    """Run `talk(connection)` in a thread against a server."""

    async def main() -> None:
        if tcp:
            listener = socket.create_server(("127.0.0.1", 0))
        else:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(tmp_path / "s"))
        address = listener.getsockname()
        server = HttpServer(Router([routes]), engine=str(tmp_path))
        await server.listen(listener)

        def work() -> None:
            with socket.socket(socket.AF_INET if tcp else socket.AF_UNIX) as client:
                client.settimeout(30)
                client.connect(address)
                talk(client)

        try:
            async with asyncio.timeout(60):
                await asyncio.to_thread(work)
        finally:
            await server.stop(0.5)

    asyncio.run(main())


def answer(client: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received or not received.endswith((b"stored", b"OK", b"}\n")):
        data = client.recv(65536)
        assert data, received
        received += data
    return received


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_whole_and_the_connection_goes_on(tmp_path: Path, seed: int, tcp: bool) -> None:
    dice = random.Random(seed)
    content = dice.randbytes(LARGE + seed)

    def talk(client: socket.socket) -> None:
        for _ in range(2):
            wire = HEAD + chunks(content, dice) + b"0\r\nX-Trailer: 1\r\n\r\n"
            at = 0
            while at < len(wire):
                size = dice.randrange(1, 300_000)
                client.sendall(wire[at : at + size])
                at += size
            assert answer(client).endswith(b"\r\n\r\nstored")
            assert seen.content == content
            assert seen.lent
        client.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(client).endswith(b"OK")

    serve(tmp_path, talk, tcp)


def test_a_request_right_behind_it_is_answered(tmp_path: Path) -> None:
    def talk(client: socket.socket) -> None:
        wire = HEAD + chunks(bytes(LARGE), random.Random(1)) + b"0\r\n\r\n"
        client.sendall(wire + b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = b"".join(iter(lambda: client.recv(65536), b""))
        assert received.count(b"HTTP/1.1 200 OK") == 2
        assert received.endswith(b"OK")

    serve(tmp_path, talk)
    assert seen.lent


def test_small_bodies_stay_with_the_loop(tmp_path: Path) -> None:
    def talk(client: socket.socket) -> None:
        client.sendall(HEAD + chunks(b"x" * 1000, random.Random(1)) + b"0\r\n\r\n")
        assert answer(client).endswith(b"stored")

    serve(tmp_path, talk)
    assert seen.content == b"x" * 1000
    assert not seen.lent


@pytest.mark.parametrize("half", [False, True])
def test_a_client_that_leaves_in_the_middle_is_an_error(tmp_path: Path, half: bool) -> None:
    def talk(client: socket.socket) -> None:
        client.sendall(HEAD + chunks(bytes(LARGE), random.Random(1)))
        assert seen.reading.wait(20)
        if half:
            client.shutdown(socket.SHUT_WR)
        else:
            client.close()
        assert seen.left.wait(20)

    serve(tmp_path, talk)
    assert isinstance(seen.error, ConnectionError)
    assert seen.content == bytes(LARGE)
    assert seen.lent


def test_a_server_that_stops_lets_no_thread_wait(tmp_path: Path) -> None:
    """A client that sends nothing more, and a daemon that ends."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)

    def talk(first: socket.socket) -> None:
        client.connect(first.getpeername())
        client.sendall(HEAD + chunks(bytes(LARGE), random.Random(1)))
        assert seen.reading.wait(20)

    with client:
        serve(tmp_path, talk)
        assert seen.left.wait(20)
        assert isinstance(seen.error, ConnectionError)
        with pytest.raises(ConnectionError):
            for _ in range(100):
                client.sendall(bytes(LARGE))


def test_what_is_no_chunk_far_into_the_body_is_refused(tmp_path: Path) -> None:
    def talk(client: socket.socket) -> None:
        client.sendall(HEAD + chunks(bytes(LARGE), random.Random(1)) + b"nonsense\r\n")
        assert b"malformed request body: a chunk has no size" in answer(client)
        client.settimeout(20)
        assert client.recv(100) == b""

    serve(tmp_path, talk)
    assert seen.lent


def test_a_client_that_still_sends_gets_the_answer(tmp_path: Path) -> None:
    """The handler has read enough; more than the socket holds is on its way."""

    def talk(client: socket.socket) -> None:
        client.sendall(HEAD.replace(b"/store", b"/some") + chunks(bytes(8 * LARGE), random.Random(1)))
        assert b'"enough"' in answer(client)

    serve(tmp_path, talk)
