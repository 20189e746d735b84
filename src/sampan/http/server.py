"""The HTTP server: listening sockets, the connections that came in by them, errors turned into answers."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import sys
from collections.abc import Sequence
from typing import Any

from sampan.errors import InvalidParameter, SampanError
from sampan.http.connection import Connection
from sampan.http.failures import describe
from sampan.http.request import ServerInfo
from sampan.http.response import Response, dump_json, empty, json_response
from sampan.http.routing import Router
from sampan.http.tls import TlsPump

log = logging.getLogger("sampan.http")

BACKLOG = 1024
_SHORTAGES = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)


class HttpServer:
    """Serves a router on any number of sockets.

    Args:
        router: the routes.
        engine: what handlers find as `request.engine`.
        info: what handlers find as `request.server`.
        headers: what every answer has; those of Docker's API when not given.
        versioned: whether paths may begin with a version of Docker's API (`/v1.41/…`).
    """

    def __init__(
        self,
        router: Router,
        engine: Any = None,
        info: ServerInfo | None = None,
        headers: Sequence[tuple[str, str]] | None = None,
        versioned: bool = True,
    ) -> None:
        self.router = router
        self.engine = engine
        self.info = info or ServerInfo()
        self.versioned = versioned
        self.headers = (
            headers
            if headers is not None
            else (
                ("Api-Version", str(self.info.api_version)),
                ("Docker-Experimental", "false"),
                ("Ostype", "linux"),
                ("Server", f"Sampan/{self.info.version} (linux)"),
            )
        )
        self.connections: set[Connection] = set()
        self.stopping = False
        self._servers: list[asyncio.AbstractServer] = []
        self._active = 0
        self._last_activity = asyncio.get_running_loop().time()

    async def listen(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Accept connections on a bound socket, unix or TCP; `tls` wraps them in TLS."""
        loop = asyncio.get_running_loop()
        sock.setblocking(False)

        def factory() -> asyncio.Protocol:
            return Connection(self) if tls is None else TlsPump(tls, Connection(self))

        if sock.family == socket.AF_UNIX:
            # The file is its owner's to remove: ours goes with the listener, a service manager's stays.
            keep: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
            server: asyncio.AbstractServer = await loop.create_unix_server(
                factory, sock=sock, backlog=BACKLOG, **keep
            )
        else:
            server = await loop.create_server(factory, sock=sock, backlog=BACKLOG)
        self._servers.append(server)

    # --- activity, for those who wonder whether the daemon is still needed ---

    def request_started(self) -> None:
        """A handler begins."""
        self._active += 1

    def request_finished(self) -> None:
        """A handler has answered."""
        self._active -= 1
        self._last_activity = asyncio.get_running_loop().time()

    def idle_seconds(self) -> float:
        """How long there has been neither a request nor an open connection; 0.0 while there is one."""
        now = asyncio.get_running_loop().time()
        if self._active or self.connections:
            self._last_activity = now
        return now - self._last_activity

    # --- errors ---

    def error_body(self, status: int, message: str) -> bytes:
        """The JSON that tells of an error in a request that no handler saw."""
        return dump_json({"message": message})

    def error_response(self, error: BaseException, where: str) -> Response:
        """The answer that tells a client of `error`; the unexpected goes to the log with its traceback."""
        if isinstance(error, SampanError):
            if error.status == 304:
                return empty(304)
            if error.status == 500:
                log.error("%s: %s", where, error.message)
            return json_response({"message": error.message}, error.status)
        if isinstance(error, UnicodeDecodeError):
            return json_response({"message": "the path is not UTF-8"}, InvalidParameter.status)
        full = isinstance(error, OSError) and error.errno in _SHORTAGES  # no fault of ours, so no traceback
        log.error("%s: %s", where, describe(error), exc_info=None if full else error)
        return json_response({"message": describe(error)}, 500)

    # --- stopping ---

    async def stop(self, grace_s: float = 5.0) -> None:
        """Stop listening, end streams, let other requests finish for `grace_s` seconds, cut the rest."""
        self.stopping = True
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.stop(now=False)
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_s
        while self.connections and loop.time() < end:
            await asyncio.sleep(0.02)
            if not self._active:
                break
        for connection in list(self.connections):
            connection.stop(now=True)
        for _ in range(50):
            if not self.connections and not self._active:
                break
            await asyncio.sleep(0.02)
