"""One request as a handler sees it."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, NoReturn

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter
from sampan.http.body import Body, BodyStream
from sampan.http.query import Query
from sampan.http.response import RAW_STREAM
from sampan.http.versions import NEWEST, OLDEST, ApiVersion

if TYPE_CHECKING:
    from sampan.http.connection import Connection

JSON_LIMIT_BYTES = 4 << 20
NULL_CHARACTER = "the request holds a null character"


@dataclass(slots=True)
class ServerInfo:
    """What the server says of itself.

    Attributes:
        version: Sampan's version.
        hosts: the addresses it listens on, as URLs.
        debug: whether debugging is on (it can change while the daemon runs).
        labels: the engine's labels.
    """

    version: str = "0"
    hosts: list[str] = field(default_factory=list)
    debug: bool = False
    labels: list[str] = field(default_factory=list)
    api_version: ApiVersion = NEWEST
    min_api_version: ApiVersion = OLDEST


@dataclass(slots=True)
class Hijacked:
    """A client's connection after HTTP has left it.

    Attributes:
        socket: the connection, or for TLS one end of a socket pair that stands for it; the receiver closes
            it. It is non-blocking, and as that flag lives in the open file description, whoever gets the
            descriptor by SCM_RIGHTS has it non-blocking too and must not change it under another's feet.
        prefix: bytes the client has sent behind its request already.
    """

    socket: socket.socket
    prefix: bytes


class ClientGone(Exception):
    """The client went away while a handler waited; nobody is left to answer."""


class Request:
    """A request's head, its body, and the way back to the connection.

    Attributes:
        method: "GET", "POST", …
        path: decoded, without the version prefix.
        params: the parameters of the route's pattern.
        query: the query part.
        headers: names in lower case; a repeated header's values are joined by ", ".
        api_version: what the client asked for, else the newest.
        engine: the engine that the server was given.
        server: what the server says of itself.
        body: the body as an asynchronous iterator of bytes.
    """

    __slots__ = (
        "_connection",
        "api_version",
        "body",
        "engine",
        "headers",
        "method",
        "params",
        "path",
        "query",
        "server",
    )

    def __init__(
        self,
        connection: Connection,
        method: str,
        path: str,
        query: Query,
        headers: dict[str, str],
        api_version: ApiVersion,
        body: Body,
    ) -> None:
        self._connection = connection
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.api_version = api_version
        self.body = body
        self.params: dict[str, str] = {}
        self.engine: Any = connection.server.engine
        self.server: ServerInfo = connection.server.info

    # --- body ---

    async def read(self, limit: int = JSON_LIMIT_BYTES) -> bytes:
        """The whole body.

        Raises:
            InvalidParameter: it is longer than `limit` bytes.
        """
        return await self.body.read(limit)

    async def json(self, limit: int = JSON_LIMIT_BYTES) -> Any:
        """The body as JSON; None when it is empty.

        Raises:
            InvalidParameter: another content type, longer than `limit` bytes, not JSON, or a text in it
                holds a null character, which the kernel would take for its end.
        """
        data = await self.body.read(limit)
        if not data.strip():
            return None
        content_type = self.headers.get("content-type", "")
        if content_type.split(";", 1)[0].strip().lower() != "application/json":
            raise InvalidParameter(
                f"unsupported Content-Type header ({content_type}): must be 'application/json'"
            )
        try:
            value = json.loads(data, parse_constant=_no_constant)
        except RecursionError:
            raise InvalidParameter("invalid JSON: nested too deeply") from None
        except ValueError as error:
            raise InvalidParameter(f"invalid JSON: {error}") from None
        if b"\\u0000" in data and _has_null(value):
            raise InvalidParameter(NULL_CHARACTER)
        return value

    def body_stream(self, direct: bool = False) -> BodyStream:
        """The body as a file for a worker thread; reads raise OSError when the client goes away.

        Args:
            direct: let the thread read large bodies from the socket itself, when it does little else with
                them than to write them to a file (`copy_to`); else the loop receives while the thread works.
        """
        return self.body.stream(direct)

    # --- the connection ---

    @property
    def upgrade(self) -> str:
        """The protocol the client wants to change to, in lower case ("tcp", "websocket"); "" for none."""
        if "upgrade" not in self.headers.get("connection", "").lower():
            return ""
        return self.headers.get("upgrade", "").strip().lower()

    async def hijack(
        self, content_type: str = RAW_STREAM, headers: Sequence[tuple[str, str]] = ()
    ) -> Hijacked:
        """Answer, and take the connection out of the server's hands.

        A client that asked for an upgrade gets `101 UPGRADED` to `tcp`, whatever it has named, as with
        dockerd; another one `200 OK` and the raw stream behind it. What can fail should fail before: from
        here on an error can only be told on the stream. The handler returns None afterwards.

        Args:
            content_type: of the stream; not sent when there are `headers`.
            headers: of an upgrade to a protocol of its own, which the client has named.

        Raises:
            ClientGone: the client has left already.
        """
        return await self._connection.hijack(self, content_type, headers)

    @property
    def peer(self) -> str:
        """The client's address, "" for a unix socket."""
        return self._connection.peer

    @property
    def caller(self) -> tuple[int, int] | None:
        """The client's uid and gid on this machine; None when it does not come by a unix socket."""
        return self._connection.caller

    async def disconnected(self) -> None:
        """Return when the client has closed its side."""
        await self._connection.gone.wait()


def _has_null(value: Any) -> bool:
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, str) and "\0" in one:
            return True
        if isinstance(one, dict):
            todo += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            todo += one
    return False


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
