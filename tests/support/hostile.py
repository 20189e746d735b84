"""A scriptable HTTP server for registries that misbehave: each path has answers, of which the last one stays.

    with Hostile() as server:
        server.on("GET", "/v2/x/manifests/v1", reply(200, b"…"), hang())
        …
        server.asked          # every request: method, path, headers, body

An answer is a function of the connection and the request that writes raw bytes, so it may break every rule.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Link:
    """The server's end of a connection."""

    socket: socket.socket
    sent: int = 0
    keep: bool = True

    def write(self, data: bytes) -> None:
        """Send, and count what went out."""
        self.socket.sendall(data)
        self.sent += len(data)


Answer = Callable[[Link, Asked], None]


def reply(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    """A proper answer; headers that are given win."""
    fields = {"Content-Length": str(len(body)), **(headers or {})}

    def answer(link: Link, asked: Asked) -> None:
        link.write(head(status, fields) + (b"" if asked.method == "HEAD" else body))

    return answer


def head(status: int, headers: dict[str, str]) -> bytes:
    """A status line and headers; a header of None is left out."""
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{key}: {value}" for key, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def raw(*pieces: bytes, pause_s: float = 0, close: bool = True) -> Answer:
    """Exactly these bytes, a pause between them, then the end of the connection."""

    def answer(link: Link, asked: Asked) -> None:
        for piece in pieces:
            link.write(piece)
            time.sleep(pause_s)
        link.keep = not close

    return answer


def endless(start: bytes, piece: bytes, limit_bytes: int = 1 << 40) -> Answer:
    """A start, and then the same piece over and over until the client has enough."""

    def answer(link: Link, asked: Asked) -> None:
        link.keep = False
        link.write(start)
        while link.sent < limit_bytes:
            link.write(piece)

    return answer


def hang(start: bytes = b"", seconds: float = 60) -> Answer:
    """Some bytes, and then nothing while the connection stays."""

    def answer(link: Link, asked: Asked) -> None:
        link.write(start)
        link.keep = False
        link.socket.settimeout(seconds)
        try:
            link.socket.recv(1)  # until the client leaves
        except OSError:
            pass

    return answer


@dataclass
class _Rule:
    method: str
    path: re.Pattern[str]
    answers: list[Answer]


@dataclass
class Hostile:
    """The server; start it as a context.

    Args:
        certificate: (certificate, key) to serve TLS.
    """

    certificate: tuple[Path, Path] | None = None
    asked: list[Asked] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        self._rules: list[_Rule] = []
        self._links: list[socket.socket] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"{'https' if self.certificate else 'http'}://{self.host}"
        self._context: ssl.SSLContext | None = None
        if self.certificate:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*self.certificate)

    def on(self, method: str, path: str, *answers: Answer) -> None:
        """What to answer; `path` is a regular expression for path and query, the newest rule wins."""
        self._rules.insert(0, _Rule(method, re.compile(path), list(answers)))

    def paths(self, method: str = "") -> list[str]:
        """The paths that were asked for."""
        return [one.path for one in self.asked if method in ("", one.method)]

    def __enter__(self) -> Hostile:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        with self._lock:
            for link in self._links:
                try:
                    link.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        for thread in self._threads:
            thread.join(10)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        self._listener.settimeout(0.2)
        while self._listener.fileno() >= 0:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            connection.settimeout(60)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self._links.append(connection)
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._links.append(connection)
            self._requests(connection)
        except (OSError, ValueError):
            pass  # the client has left, as it may
        finally:
            with self._lock:
                self._links = [one for one in self._links if one.fileno() >= 0]
            connection.close()

    def _requests(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        try:
            while line := stream.readline(65536):
                if line[0] == 0x16 and self._context is None:
                    return  # a TLS handshake, from a client that tries https first
                words = line.decode("latin-1").split()
                asked = Asked(words[0], words[1], _headers(stream))
                asked.body = _body(stream, asked)
                self.asked.append(asked)
                link = Link(connection)
                try:
                    self._answer(asked)(link, asked)
                finally:
                    with self._lock:
                        self.sent += link.sent
                if not link.keep:
                    return
        finally:
            stream.close()

    def _answer(self, asked: Asked) -> Answer:
        with self._lock:
            for rule in self._rules:
                if rule.method in ("*", asked.method) and rule.path.fullmatch(asked.path):
                    return rule.answers.pop(0) if len(rule.answers) > 1 else rule.answers[0]
        return reply(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"no rule"}]}')


def _headers(stream: Iterable[bytes]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in stream:
        name, _, value = line.decode("latin-1").partition(":")
        if not value:
            break
        found[name.strip().lower()] = value.strip()
    return found


def _body(stream: object, asked: Asked) -> bytes:
    if asked.headers.get("transfer-encoding") == "chunked":
        parts = []
        while size := int(stream.readline(), 16):  # type: ignore[attr-defined]
            parts.append(stream.read(size))  # type: ignore[attr-defined]
            stream.readline()  # type: ignore[attr-defined]
        stream.readline()  # type: ignore[attr-defined]
        return b"".join(parts)
    return bytes(stream.read(int(asked.headers.get("content-length", "0"))))  # type: ignore[attr-defined]
