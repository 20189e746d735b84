"""An HTTP server of a test's own on a unix socket, in place of an engine."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path

Answer = Callable[[str, Message, bytes], object]


@contextmanager
def answering(path: Path, answer: Answer, headers: dict[str, str] | None = None) -> Iterator[str]:
    """Serve until the block's end; the address, as clients take it.

    Args:
        path: of the socket.
        answer: gives what is sent as JSON for a request's target, headers and body. It runs in a thread.
        headers: sent with each answer.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.dumps(answer(self.path, self.headers, sent)).encode()
            self.send_response(200)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_POST = do_GET

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_UNIX

        def server_bind(self) -> None:
            self.socket.bind(self.server_address)

    with Server(str(path), Handler) as server:  # type: ignore[arg-type]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown()
            thread.join()
