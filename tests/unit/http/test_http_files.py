"""Answers from files, streams of known length, and servers that speak without versions."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from sampan.http import FileResponse, HttpServer, Request, Response, Router, Routes, files, stream, text

SIZE = 3_000_000
routes = Routes()


@routes.get("/file")
@routes.head("/file")
async def file(request: Request) -> Response:
    fd = os.open(request.engine, os.O_RDONLY)
    offset, length = request.query.integer("offset"), request.query.integer("length", SIZE)
    return FileResponse(fd, offset, length)


@routes.get("/v2/x")
async def unversioned(request: Request) -> Response:
    return text(request.path)


@routes.get("/stream")
async def pieces(_: Request) -> Response:
    async def three() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"abc"

    return stream(three(), "text/plain", headers={"X-More": "yes"}, length=9)


@routes.get("/short")
async def short(_: Request) -> Response:
    async def two() -> AsyncIterator[bytes]:
        yield b"ab"
        raise OSError("the rest is lost")

    return stream(two(), "text/plain", length=9)


def serve(tmp_path: Path, body: Callable[[int], Awaitable[None]]) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))

    async def main() -> None:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        server = HttpServer(Router([routes]), engine=path, headers=(("Server", "x"),), versioned=False)
        await server.listen(sock)
        before = set(os.listdir("/proc/self/fd"))
        async with asyncio.timeout(30):
            await body(sock.getsockname()[1])
        await server.stop(1)
        assert len(os.listdir("/proc/self/fd")) <= len(before)

    asyncio.run(main())


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str, method: str = "GET"
) -> tuple[bytes, bytes]:
    writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    return head, b"" if method == "HEAD" else await reader.readexactly(length)


def test_files_on_one_connection(tmp_path: Path) -> None:
    async def body(port: int) -> None:
        data = (tmp_path / "file").read_bytes()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for offset, length in (
            (0, SIZE),
            (1, 10),
            (0, files.SMALL_FILE_BYTES + 1),
            (SIZE - 5, 5),
            (0, 0),
            (7, 2_000_000),
        ):
            head, got = await ask(reader, writer, f"/file?offset={offset}&length={length}")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert got == data[offset : offset + length]
        head, got = await ask(reader, writer, "/file", "HEAD")
        assert (b"\r\nContent-Length: 3000000\r\n" in head, got) == (True, b"")
        assert (await ask(reader, writer, "/v2/x"))[1] == b"/v2/x"
        head, got = await ask(reader, writer, "/stream")
        assert b"Transfer-Encoding" not in head
        assert (b"\r\nX-More: yes\r\n" in head, got) == (True, b"abcabcabc")
        writer.close()

    serve(tmp_path, body)


def test_a_file_that_ends_early_cuts_the_connection(tmp_path: Path) -> None:
    async def body(port: int) -> None:
        for target in (f"/file?length={SIZE + 1}", "/file?offset=2999999&length=10", "/short"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await ask(reader, writer, target)
            writer.close()

    serve(tmp_path, body)


def test_a_reader_that_stops_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "STALL_S", 0.3)

    async def body(port: int) -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            for _ in range(3):  # more than the buffers of both ends hold
                client.sendall(b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.sleep(1.5)
            client.setblocking(False)
            got, loop = 0, asyncio.get_running_loop()
            try:
                while piece := await loop.sock_recv(client, 1 << 20):
                    got += len(piece)
            except ConnectionResetError:
                pass
            assert got < 3 * SIZE

    serve(tmp_path, body)


def test_a_client_that_leaves_in_the_midst(tmp_path: Path) -> None:
    async def body(port: int) -> None:
        for _ in range(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readexactly(1000)
            writer.transport.abort()
        await asyncio.sleep(0.2)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert (await ask(reader, writer, "/v2/x"))[1] == b"/v2/x"
        writer.close()

    serve(tmp_path, body)
