"""A plain HTTP client for an engine's unix socket, as far from our own code as it can be."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


class UnixConnection(http.client.HTTPConnection):
    """`http.client` over a unix socket."""

    def __init__(self, path: str, timeout: float = 60) -> None:
        super().__init__("localhost", timeout=timeout)
        self.unix_path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.unix_path)


@dataclass(frozen=True)
class Answer:
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body decoded."""
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The text of an error answer."""
        return str(self.json()["message"])


class Api:
    """Requests to one engine; each on its own connection."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> Answer:
        """One request; a dict or list as body is sent as JSON, bytes and iterables of bytes as they are."""
        sent = dict(headers or {})
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        chunked = body is not None and not isinstance(body, bytes) and isinstance(body, Iterable)
        connection = UnixConnection(self.path, timeout)
        try:
            connection.request(method, target, body=body, headers=sent, encode_chunked=chunked)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, target: str) -> Any:
        """The decoded answer of a GET that must succeed."""
        answer = self("GET", target)
        assert answer.status == 200, f"GET {target}: {answer.status} {answer.body!r}"
        return answer.json()

    def containers(self) -> list[dict[str, Any]]:
        """Every container, running or not."""
        listed: list[dict[str, Any]] = self.get("/containers/json?all=1")
        return listed

    def inspect(self, container: str) -> dict[str, Any]:
        """One container in full."""
        shown: dict[str, Any] = self.get(f"/containers/{container}/json")
        return shown

    def pid(self, container: str) -> int:
        """The pid of a running container's first process, in our own pid namespace."""
        pid = int(self.inspect(container)["State"]["Pid"])
        assert pid > 0, f"{container} does not run"
        return pid

    def remove(self, container: str) -> None:
        """Remove a container, running or not, there or not."""
        answer = self("DELETE", f"/containers/{container}?force=1&v=1")
        assert answer.status in (204, 404, 409), answer.body
