"""TLS with half-close: the end of a client's input travels, and the output after it too."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from sampan.http import HttpServer, Request, Response, Router, Routes, text

routes = Routes()


@routes.get("/_ping")
async def ping(_: Request) -> Response:
    return text("OK" * 100_000)


@routes.post("/attach")
async def attach(request: Request) -> None:
    """Read to the end of input, then answer: `docker run -i wc -c`."""
    connection = await request.hijack()
    loop = asyncio.get_running_loop()
    with connection.socket as sock:
        size = len(connection.prefix)
        while data := await loop.sock_recv(sock, 65536):
            size += len(data)
        await loop.sock_sendall(sock, b"%d bytes\n" % size)


@routes.put("/store")
async def store(request: Request) -> Response:
    body = request.body_stream(direct=True)
    size = len(await asyncio.to_thread(body.read))
    return text(f"{size} bytes")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
         "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout",
         str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


class Client(threading.Thread):
    """A blocking TLS client that can half-close, as Go's can."""

    def __init__(self, port: int, folder: Path, request: bytes, finish: bool) -> None:
        super().__init__()
        self.port, self.folder, self.request, self.finish = port, folder, request, finish
        self.answer = b""

    def run(self) -> None:
        context = ssl.create_default_context(cafile=str(self.folder / "cert.pem"))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock:

            def until(step: object) -> bytes:
                while True:
                    try:
                        result = step()  # type: ignore[operator]
                        sock.sendall(outgoing.read())
                        return result or b""
                    except ssl.SSLWantReadError:
                        sock.sendall(outgoing.read())
                        data = sock.recv(65536)
                        if not data:
                            return b""
                        incoming.write(data)

            until(tls.do_handshake)
            tls.write(self.request)
            sock.sendall(outgoing.read())
            if self.finish:
                try:
                    tls.unwrap()
                except ssl.SSLError:
                    pass
                sock.sendall(outgoing.read())
            try:
                while data := until(lambda: tls.read(65536)):
                    self.answer += data
            except ssl.SSLZeroReturnError:
                pass  # both sides have said goodbye


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_half_close(certificate: Path, newest: ssl.TLSVersion) -> None:
    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = newest
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        sock = socket.create_server(("127.0.0.1", 0))
        server = HttpServer(Router([routes]))
        await server.listen(sock, context)
        port = sock.getsockname()[1]

        ping = Client(
            port, certificate, b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", False
        )
        ping.start()
        await asyncio.to_thread(ping.join, 10)
        assert ping.answer.endswith(b"OK" * 100_000)

        head = b"POST /attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        client = Client(port, certificate, head + b"x" * 600_000, True)
        client.start()
        await asyncio.to_thread(client.join, 10)
        assert client.answer.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
        assert client.answer.endswith(b"\r\n\r\n600000 bytes\n")

        # A thread that would read from the socket itself gets what TLS makes of it.
        head = b"PUT /store HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"8000\r\n" + bytes(0x8000) + b"\r\n"
        sender = Client(port, certificate, head + 64 * chunk + b"0\r\n\r\n", False)
        sender.start()
        await asyncio.to_thread(sender.join, 10)
        assert sender.answer.endswith(b"\r\n\r\n2097152 bytes")
        await server.stop(0.5)

    asyncio.run(main())
