"""Requests of the Engine API over a unix socket, one connection each: HTTP/1.1 by h11 (RFC 9112).

With a connection of its own each call can be given up at any moment: closing it is all there is to do.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlencode

import h11

from sampan import __version__
from sampan.client.errors import ConnectionFailed, from_status
from sampan.client.starting import start

API_VERSION = "1.51"
CHUNK_BYTES = 256 * 1024
Query = Mapping[str, Any]


def part(text: str) -> str:
    """A name as one part of a path; the slashes of an image's name stay."""
    return quote(text, safe="/:@")


class Reply:
    """An answer whose body has not been read. Close it, or read it to its end."""

    def __init__(
        self,
        transport: Transport,
        connection: socket.socket,
        machine: h11.Connection,
    ) -> None:
        self._transport = transport
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._machine = machine
        self.status = 0
        self.headers: dict[str, str] = {}

    async def head(self) -> None:
        """Read up to the body."""
        while True:
            event = await self._event()
            if isinstance(event, h11.Response) or (
                isinstance(event, h11.InformationalResponse) and event.status_code == 101
            ):
                self.status = event.status_code
                self.headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                return
            if not isinstance(event, h11.InformationalResponse):
                raise ConnectionFailed("the daemon closed the connection before it answered")

    def hijacked(self) -> bytes:
        """What has arrived of a stream that is no longer HTTP; the rest is `receive`d."""
        return bytes(self._machine.trailing_data[0])

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        while True:
            event = await self._event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            else:
                raise ConnectionFailed("the daemon closed the connection in the middle of an answer")

    async def read(self) -> bytes:
        """The whole body."""
        try:
            return b"".join([piece async for piece in self.pieces()])
        finally:
            self.close()

    async def _event(self) -> Any:
        try:
            while (event := self._machine.next_event()) is h11.NEED_DATA:
                self._machine.receive_data(await self.receive())
        except (h11.RemoteProtocolError, OSError) as error:
            raise ConnectionFailed(f"the connection to the daemon broke: {error}") from error
        return event

    async def receive(self) -> bytes:
        """The next bytes; none at the end.

        Not through asyncio's streams: those drop what has arrived when the other side stops to read.
        """
        return await self._loop.sock_recv(self._connection, CHUNK_BYTES)

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        await self._loop.sock_sendall(self._connection, data)

    def end_sending(self) -> None:
        """Close our half."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Give the connection up; the daemon ends what it still did for it."""
        if self in self._transport.open:
            self._transport.open.discard(self)
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            # After whoever waits for it has been woken: a closed descriptor wakes nobody.
            self._loop.call_soon(self._loop.call_soon, self._connection.close)


class Transport:
    """The way to one daemon.

    Args:
        path: of its unix socket.
        start: whether to start the daemon when nobody answers.
    """

    def __init__(self, path: str, start: bool) -> None:
        self.path = path
        self._start = start
        self.version = API_VERSION
        self.open: set[Reply] = set()

    async def request(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        upgrade: bool = False,
    ) -> Reply:
        """Send one request and read the head of its answer.

        Args:
            path: already escaped, without the version.
            query: None and False are left out, True is 1, dicts and lists are sent as JSON.
            body: bytes, an async iterable of bytes (sent chunked), or what JSON can say.
            upgrade: ask for the connection itself.

        Raises:
            SampanError: of the class that the answer's status means.
            ConnectionFailed: nobody answers.
        """
        machine = h11.Connection(h11.CLIENT)
        reply = Reply(self, await self._connect(), machine)
        self.open.add(reply)
        try:
            await self._send(machine, reply, method, path, query, body, headers, upgrade)
            await reply.head()
            if reply.status >= 400:
                raise from_status(reply.status, _message(await reply.read(), reply.status))
        except BaseException:
            reply.close()
            raise
        return reply

    async def call(self, method: str, path: str, query: Query | None = None, body: Any = None) -> Any:
        """One request and its JSON answer; None when there is no body."""
        text = await (await self.request(method, path, query, body)).read()
        return json.loads(text) if text.strip() else None

    def close(self) -> None:
        """Close every connection."""
        for reply in list(self.open):
            reply.close()

    async def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        connected = False
        try:
            await asyncio.get_running_loop().sock_connect(connection, self.path)
            connected = True
            return connection
        except PermissionError as error:
            raise ConnectionFailed(
                f"permission denied at the socket {self.path}: run as root, or join the socket's group"
            ) from error
        except OSError as error:
            if not self._start:
                raise ConnectionFailed(
                    f"cannot connect to the Sampan daemon at unix://{self.path}; is it running?"
                ) from error
        finally:
            if not connected:
                connection.close()
        await start(self.path)
        self._start = False
        try:
            return await self._connect()
        finally:
            self._start = True  # it leaves by itself when it has nothing to do

    async def _send(
        self,
        machine: h11.Connection,
        reply: Reply,
        method: str,
        path: str,
        query: Query | None,
        body: Any,
        headers: Mapping[str, str] | None,
        upgrade: bool,
    ) -> None:
        fields = {"Host": "sampan", "User-Agent": f"sampan-python/{__version__}", **(headers or {})}
        streamed = isinstance(body, AsyncIterable)
        content = b""
        if isinstance(body, bytes):
            content = body
        elif streamed:
            fields["Transfer-Encoding"] = "chunked"
        elif body is not None:
            content = json.dumps(body).encode()
            fields["Content-Type"] = "application/json"
        if not streamed and (content or method in ("POST", "PUT")):
            fields["Content-Length"] = str(len(content))
        if upgrade:
            fields |= {"Connection": "Upgrade", "Upgrade": "tcp"}
        target = f"/v{self.version}{path}" + (f"?{_encoded(query)}" if query else "")
        request = h11.Request(method=method, target=target, headers=list(fields.items()))
        try:
            head = _bytes(machine, request)
            if streamed:
                await reply.send(head)
                async for piece in body:
                    await reply.send(_bytes(machine, h11.Data(piece)))
                await reply.send(_bytes(machine, h11.EndOfMessage()))
            else:
                head += _bytes(machine, h11.Data(content)) if content else b""
                await reply.send(head + _bytes(machine, h11.EndOfMessage()))
        except ConnectionError:
            # The daemon may have refused before the body's end: its answer says why, if there is one.
            if not streamed:
                raise ConnectionFailed("the daemon closed the connection") from None


def _bytes(machine: h11.Connection, event: Any) -> bytes:
    return machine.send(event) or b""


def _encoded(query: Query) -> str:
    parts: list[tuple[str, str]] = []
    for name, value in query.items():
        if value is None or value is False or value == {}:
            continue
        if value is True:
            value = "1"
        elif isinstance(value, (dict, list)):
            value = json.dumps(value)
        parts.append((name, str(value)))
    return urlencode(parts)


def _message(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace").strip() or f"the daemon answered with status {status}"
