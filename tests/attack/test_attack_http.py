"""Hostile bytes on the API socket: each gets a clean refusal, and the next client is served."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from sampan.http import HttpServer, Request, Response, Router, Routes, connection, json_response, text

routes = Routes()


@routes.get("/_ping")
async def ping(_: Request) -> Response:
    return text("OK")


@routes.post("/echo")
async def echo(request: Request) -> Response:
    return json_response(await request.json())


def attack(tmp_path: Path, data: bytes) -> bytes:
    """What the server answers to `data`; a fresh client must be served afterwards."""

    async def main() -> bytes:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "s"))
        server = HttpServer(Router([routes]))
        await server.listen(sock)
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(data)
            answer = await reader.read()
            writer.close()
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            writer.close()
            await server.stop(0.2)
        return answer

    return asyncio.run(main())


SMUGGLED = b"0\r\n\r\nGET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03junk\r\n\r\n", b"400"),
        (b"GET\r\n\r\n", b"400"),
        (b"GET /_ping HTTP/9.9\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /_ping HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n", b"400"),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nA: " + b"y" * 600_000, b"431"),
        (b"GET /" + b"a" * 600_000, b"431"),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", b"400"),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999999999999999\r\n\r\n", b"400"),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", b"501"),
        (
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
            + SMUGGLED,
            b"400",
        ),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n" + b"1" * 5_000_000, b"400"),
        (b"GET /%ff%fe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"400"),
    ],
)
def test_malformed_requests(tmp_path: Path, data: bytes, status: bytes) -> None:
    answer = attack(tmp_path, data)
    assert answer.split()[1] == status
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b'{"message":' in answer
    assert b"Traceback" not in answer


def test_slow_heads_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.2)
    assert attack(tmp_path, b"GET /_ping HT").split()[1] == b"408"
    (tmp_path / "s").unlink()
    assert attack(tmp_path, b"") == b""
