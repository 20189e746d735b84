"""The HTTP server over a real unix socket: requests, streams, hijack, limits, errors."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from sampan.errors import NotFound
from sampan.http import (
    HttpServer,
    Request,
    Response,
    Router,
    Routes,
    empty,
    json_response,
    stream,
    text,
    thread_stream,
)

routes = Routes()
seen: dict[str, object] = {}


@routes.get("/_ping")
async def ping(_: Request) -> Response:
    return text("OK")


@routes.head("/_ping")
async def ping_head(_: Request) -> Response:
    return empty(200)


@routes.get("/images/{name:path}/json")
async def image(request: Request) -> Response:
    return json_response({"name": request.params["name"], "version": str(request.api_version)})


@routes.post("/echo")
async def echo(request: Request) -> Response:
    return json_response(await request.json())


@routes.post("/count")
async def count(request: Request) -> Response:
    body = request.body_stream()

    def work() -> int:
        total = 0
        while piece := body.read(65536):
            total += len(piece)
        return total

    return json_response(await asyncio.to_thread(work))


@routes.post("/ignore")
async def ignore(_: Request) -> Response:
    raise NotFound("nothing here")


@routes.get("/broken")
async def broken(_: Request) -> Response:
    raise RuntimeError("secret\ntraceback")


@routes.get("/full")
async def full(_: Request) -> Response:
    raise OSError(28, "No space left on device", "/var/x")


@routes.get("/forever")
async def forever(_: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            await asyncio.Event().wait()
        finally:
            seen["forever"] = "ended"

    return stream(pieces())


@routes.get("/archive")
async def archive(request: Request) -> Response:
    def write(out: BinaryIO) -> None:
        if request.query.flag("early"):
            raise NotFound("no such archive")
        out.write(b"x" * 3_000_000)
        if request.query.flag("late"):
            raise OSError(5, "Input/output error")

    return thread_stream(write)


@routes.post("/odd")
async def odd(request: Request) -> Response | None:
    await request.hijack(headers=[("Odd", "\N{CYRILLIC CAPITAL LETTER ZHE}")])
    return None


@routes.get("/unsendable")
async def unsendable(_: Request) -> Response:
    return empty(200, {"Odd": "two\nlines"})


@routes.post("/attach")
async def attach(request: Request) -> Response | None:
    await request.json()
    connection = await request.hijack()
    with connection.socket as sock:
        loop = asyncio.get_running_loop()
        received = connection.prefix
        while b"\n" not in received:
            received += await loop.sock_recv(sock, 100)
        await loop.sock_sendall(sock, b"got " + received)
    return None


Talk = Callable[[str], Awaitable[None]]


def serve(tmp_path: Path, talk: Callable[[str, HttpServer], Awaitable[None]]) -> None:
    """Run `talk(path, server)` against a server."""

    async def main() -> None:
        path = str(tmp_path / "s")
        Path(path).unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        server = HttpServer(Router([routes]))
        await server.listen(sock)
        try:
            async with asyncio.timeout(20):
                await talk(path, server)
        finally:
            await server.stop(0.5)

    asyncio.run(main())


async def exchange(path: str, data: bytes, half_close: bool = False) -> bytes:
    """Send `data`, read until the server closes."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(data)
        if half_close:
            writer.write_eof()
        return await reader.read()
    finally:
        writer.close()


def ask(tmp_path: Path, data: bytes) -> tuple[int, bytes]:
    """One request that says `Connection: close`: the status and the rest of the answer."""
    answers = []

    async def talk(path: str, _: HttpServer) -> None:
        answers.append(await exchange(path, data))

    serve(tmp_path, talk)
    head, _, body = answers[0].partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def request(line: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [line + " HTTP/1.1", "Host: x", "Connection: close", *headers]
    if body:
        lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def message(body: bytes) -> str:
    return str(json.loads(body)["message"])


def test_answers_with_the_headers_clients_look_for(tmp_path: Path) -> None:
    async def talk(path: str, _: HttpServer) -> None:
        answer = await exchange(path, request("GET /v1.41/_ping"))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Api-Version: 1.51\r\n" in answer
        assert b"Ostype: linux\r\n" in answer
        assert answer.endswith(b"\r\n\r\nOK")
        answer = await exchange(path, request("HEAD /_ping"))
        assert answer.endswith(b"\r\n\r\n")

    serve(tmp_path, talk)


@pytest.mark.parametrize(
    ("path", "name", "version"),
    [
        ("/v1.24/images/a/json", "a", "1.24"),
        ("/images/reg.example%3A5000/a/b%3Alatest/json", "reg.example:5000/a/b:latest", "1.51"),
        ("http://docker/v1.30/images/a/b/json", "a/b", "1.30"),
    ],
)
def test_paths_and_versions(tmp_path: Path, path: str, name: str, version: str) -> None:
    status, body = ask(tmp_path, request(f"GET {path}"))
    assert (status, json.loads(body)) == (200, {"name": name, "version": version})


def test_versions_out_of_range(tmp_path: Path) -> None:
    status, body = ask(tmp_path, request("GET /v1.23/_ping"))
    assert status == 400
    assert message(body) == (
        "client version 1.23 is too old. Minimum supported API version is 1.24, "
        "please upgrade your client to a newer version"
    )
    status, body = ask(tmp_path, request("GET /v1.99/_ping"))
    assert message(body) == "client version 1.99 is too new. Maximum supported API version is 1.51"


def test_unknown_path_and_method(tmp_path: Path) -> None:
    for line in ("GET /nothing", "POST /_ping", "GET /images//json", "OPTIONS *"):
        status, body = ask(tmp_path, request(line))
        assert status == 404, line
        assert message(body).startswith("page not found"), line


def test_errors_are_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    status, body = ask(tmp_path, request("GET /broken"))
    assert (status, message(body)) == (500, "internal error: secret")
    ask(tmp_path, request("GET /broken?buildargs=mine"))
    assert "GET /broken: " in caplog.text and "mine" not in caplog.text
    status, body = ask(tmp_path, request("GET /full"))
    assert status == 500
    assert "no space left" in message(body)


@pytest.mark.parametrize(
    "body", [b"{", b"NaN", b'{"a": 1} {"b": 2}', b"[" * 100_000, b"\xff\xfe", b"1" * 10_000]
)
def test_bad_json(tmp_path: Path, body: bytes) -> None:
    status, answer = ask(tmp_path, request("POST /echo", body))
    assert status == 400
    assert message(answer).startswith("invalid JSON")


def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async def talk(path: str, _: HttpServer) -> None:
        first = b"GET /images/one/json HTTP/1.1\r\nHost: x\r\n\r\n"
        post = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        post += b'Content-Length: 3\r\n\r\n"2"'
        answer = await exchange(path, first + post + request("GET /images/three/json"))
        assert answer.index(b"one") < answer.index(b'"2"') < answer.index(b"three")

    serve(tmp_path, talk)


def test_large_chunked_body_reaches_a_thread(tmp_path: Path) -> None:
    piece = b"x" * 100_000
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for _ in range(50)) + b"0\r\n\r\n"
    status, body = ask(tmp_path, request("POST /count", b"", "Transfer-Encoding: chunked") + chunks)
    assert (status, json.loads(body)) == (200, 5_000_000)


def test_expect_continue(tmp_path: Path) -> None:
    async def talk(path: str, _: HttpServer) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"ab")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()

    serve(tmp_path, talk)


def test_error_answer_is_seen_by_a_client_that_is_still_sending(tmp_path: Path) -> None:
    async def talk(path: str, _: HttpServer) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"POST /ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n")
        writer.write(b"x" * 5_000_000)
        assert b"nothing here" in await reader.read()
        writer.close()

    serve(tmp_path, talk)


def test_archive_of_a_thread(tmp_path: Path) -> None:
    status, body = ask(tmp_path, request("GET /archive"))
    assert status == 200
    assert body.count(b"x") == 3_000_000
    assert body.endswith(b"0\r\n\r\n")
    status, body = ask(tmp_path, request("GET /archive?late=1"))
    assert status == 200
    assert not body.endswith(b"0\r\n\r\n")
    status, body = ask(tmp_path, request("GET /archive?early=1"))
    assert (status, message(body)) == (404, "no such archive")


def test_a_client_that_leaves_ends_the_work(tmp_path: Path) -> None:
    seen.clear()

    async def talk(path: str, server: HttpServer) -> None:
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /forever HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.05)
        assert not seen
        writer.close()
        while not seen or server.connections:
            await asyncio.sleep(0.01)
        assert server.idle_seconds() < 5

    serve(tmp_path, talk)
    assert seen == {"forever": "ended"}


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("upgrade", [True, False])
def test_hijack_keeps_early_bytes_and_the_connection(tmp_path: Path, upgrade: bool, split: bool) -> None:
    async def talk(path: str, _: HttpServer) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        wanted = "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else ""
        head = f"POST /attach HTTP/1.1\r\nHost: x\r\n{wanted}Content-Type: application/json\r\n"
        head += "Content-Length: 2\r\n\r\n{}"
        writer.write(head.encode() + b"early, ")
        answer = await reader.readuntil(b"\r\n\r\n") if split else b""
        writer.write(b"late\n")
        answer += await reader.read()
        first = b"HTTP/1.1 101 UPGRADED\r\n" if upgrade else b"HTTP/1.1 200 OK\r\n"
        assert answer.startswith(first)
        assert (b"Upgrade: tcp" in answer) is upgrade
        assert answer.endswith(b"\r\n\r\ngot early, late\n")
        writer.close()

    serve(tmp_path, talk)


def test_what_a_client_calls_an_upgrade_is_not_repeated(tmp_path: Path) -> None:
    async def talk(path: str, server: HttpServer) -> None:
        for name in (b"\xff\xfe", b"h2c, tcp", b"TCP"):
            head = b"POST /attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + name
            answer = await exchange(path, head + b"\r\nContent-Length: 0\r\n\r\nbytes\n")
            assert answer.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
            assert b"\r\nUpgrade: tcp\r\n\r\n" in answer

    serve(tmp_path, talk)


def test_a_connection_that_cannot_be_handed_over_is_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody reads from it any more: it would stay for ever."""

    async def talk(path: str, server: HttpServer) -> None:
        upgrade = b"Connection: Upgrade\r\nUpgrade: other\r\n"
        assert await exchange(path, b"POST /odd HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\r\n") == b""
        assert await exchange(path, b"GET /unsendable HTTP/1.1\r\nHost: x\r\n\r\n") == b""
        while server.connections:
            await asyncio.sleep(0.01)

    serve(tmp_path, talk)
    assert [record.message.partition(" error: ")[0] for record in caplog.records] == [
        "POST /odd: internal",
        "GET /unsendable: internal",
    ]


@pytest.mark.parametrize("line", ["POST /echo?x=%00", "GET /images/a%00b/json"])
def test_null_characters(tmp_path: Path, line: str) -> None:
    assert ask(tmp_path, request(line)) == (400, b'{"message":"the request holds a null character"}\n')
    for body in (rb'["a\u0000"]', rb'{"a":{"b\u0000":1}}'):
        assert message(ask(tmp_path, request("POST /echo", body))[1]) == "the request holds a null character"
    assert ask(tmp_path, request("POST /echo", rb'["a\\u0000"]')) == (200, b'["a\\\\u0000"]\n')


def test_stop_lets_short_requests_finish_and_ends_streams(tmp_path: Path) -> None:
    seen.clear()

    async def talk(path: str, server: HttpServer) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /forever HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"first\n")
        await server.stop(2)
        assert seen == {"forever": "ended"}
        writer.close()

    serve(tmp_path, talk)
