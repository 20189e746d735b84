"""One HTTP/1.1 connection: `protocol` reads the requests, a task per request runs the handler.

Requests are answered one after the other; what a client pipelines waits unread. While a handler runs the
socket is still read, so that a client's departure is seen. The transport is a socket's or `tls.TlsPump`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from sampan.errors import InvalidParameter, NotFound
from sampan.http.body import Body
from sampan.http.chunks import ChunkDecoder
from sampan.http.failures import describe
from sampan.http.lending import LentSocket
from sampan.http.protocol import END, NEED_DATA, PAUSED, Head, Malformed, Protocol
from sampan.http.query import Query
from sampan.http.request import NULL_CHARACTER, ClientGone, Hijacked, Request
from sampan.http.response import Response
from sampan.http.sending import REASONS, Sender
from sampan.http.versions import NEWEST, split_version

if TYPE_CHECKING:
    from sampan.http.server import HttpServer

log = logging.getLogger("sampan.http")

HEAD_TIMEOUT_S = 30.0
IDLE_TIMEOUT_S = 300.0
PIPELINE_LIMIT_BYTES = 64 << 10
DRAIN_LIMIT_BYTES = 256 << 10
LINGER_S = 5.0


class Connection(asyncio.Protocol):
    """The server's end of one client connection.

    Args:
        server: the server it belongs to.
    """

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.gone = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._protocol = Protocol()
        self._transport: Any = None
        self._sender: Sender  # with the transport
        self._body: Body | None = None
        self._chunks: ChunkDecoder | None = None
        self._task: asyncio.Task[None] | None = None
        self._paused = False
        self._hijacked = False
        self._lingering = False
        self._eof = False
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._sender = Sender(self.server, self._protocol, transport, self.gone)
        self.server.connections.add(self)
        self._set_deadline(HEAD_TIMEOUT_S)

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        if self._body is None:
            # The head alone first, so that a chunked body does not get into the protocol.
            end = data.find(b"\r\n\r\n") + 4
            if 4 <= end < len(data):
                self._receive(data[:end])
                data = data[end:]
        if self._lingering:
            return
        if self._chunks is not None:
            self._take_chunks(data)
        else:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        try:
            self._protocol.receive(data)
        except RuntimeError:  # there is data behind what was taken for the end
            self._transport.abort()
            return
        self._advance()

    def _take_chunks(self, data: bytes) -> None:
        assert self._chunks is not None
        try:
            pieces, rest = self._chunks.feed(data)
        except InvalidParameter as error:
            if self._body is not None:
                self._body.fail(error)
            self._pause_reading()
            return
        if rest is not None:
            self._chunks = None  # what is left to read is the protocol's
        self._feed([*pieces])
        if rest is not None:
            self._receive(rest)

    def eof_received(self) -> bool:
        self._eof = True
        if self._lingering or self._task is None:
            return False
        self._client_gone()
        return True  # the answer to a complete request is still sent

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._eof = True
        self.resume_writing()
        if not self._hijacked:
            self._client_gone()
        if self._body is not None and self._body.lent:
            self._wake_borrower()

    def pause_writing(self) -> None:
        self._sender.pause()

    def resume_writing(self) -> None:
        self._sender.resume()

    @property
    def peer(self) -> str:
        """The client's address and port, "" for a unix socket."""
        name = self._transport.get_extra_info("peername")
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""

    @property
    def caller(self) -> tuple[int, int] | None:
        """The uid and gid of the process at the other end of a unix socket (SO_PEERCRED); None for TCP."""
        sock = self._transport.get_extra_info("socket")
        if sock is None or sock.family != socket.AF_UNIX:
            return None
        _, uid, gid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return uid, gid

    # --- time ---

    def _set_deadline(self, seconds: float) -> None:
        self._deadline = self._loop.time() + seconds if seconds else 0.0
        if self._deadline and (self._timer is None or self._timer.when() > self._deadline):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if not self._deadline or self._transport.is_closing():
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._on_timer)
        elif self._lingering or not self._protocol.trailing:
            self._transport.abort()
        else:
            self._refuse(408, "the request did not arrive in time")

    # --- reading ---

    def _advance(self) -> None:
        pieces: list[bytes | bytearray | memoryview] = []
        self._take_events(pieces)
        self._feed(pieces)

    def _feed(self, pieces: list[bytes | bytearray | memoryview]) -> None:
        """Pass on what was received of the body, in one piece: waking the reader costs more than joining."""
        if pieces and self._body is not None:
            more = self._body.feed(b"".join(pieces))
            if not self._lend(self._body) and not more:
                self._pause_reading()
        pieces.clear()

    def _lend(self, body: Body) -> bool:
        """Let the reader have the socket for what is left of the body, if it wants that and it can be."""
        if self._chunks is None or not body.wants_socket or self._eof or self._transport.is_closing():
            return False
        sock = self._transport.get_extra_info("socket")
        if sock is None:  # TLS
            return False
        self._pause_reading()

        def give_back(rest: bytes) -> None:
            self._loop.call_soon_threadsafe(self._take_back, rest)

        body.lend(LentSocket(sock.dup(), self._chunks, give_back))
        return True

    def _wake_borrower(self) -> None:
        with contextlib.suppress(OSError):  # the client may have closed it
            self._transport.get_extra_info("socket").shutdown(socket.SHUT_RD)

    def _take_back(self, rest: bytes) -> None:
        self._resume_reading()
        if rest and not self._lingering:
            self._chunks = None
            self._receive(rest)

    def _take_events(self, pieces: list[bytes | bytearray | memoryview]) -> None:
        while not self._hijacked and not self._lingering:
            try:
                event = self._protocol.next_event()
            except Malformed as error:
                self._feed(pieces)
                self._malformed(error)
                return
            if event is NEED_DATA:
                late = self._deadline > self._loop.time() + HEAD_TIMEOUT_S
                if late and self._task is None and self._protocol.trailing:
                    self._set_deadline(HEAD_TIMEOUT_S)  # these were the first bytes of the next head
                return
            if event is PAUSED:
                if len(self._protocol.trailing) > PIPELINE_LIMIT_BYTES:
                    self._pause_reading()
                return
            if isinstance(event, Head):
                if event.chunked and not self._protocol.trailing:
                    self._chunks = ChunkDecoder()
                self._start(event)
            elif isinstance(event, bytes):
                pieces.append(event)
            elif event is END:
                self._feed(pieces)
                if self._body is not None:
                    self._body.finish()
            else:
                return

    def _pause_reading(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._paused and not self._transport.is_closing() and not self._hijacked:
            self._paused = False
            self._transport.resume_reading()

    def _client_gone(self) -> None:
        self.gone.set()
        if self._body is not None:
            self._body.fail(ConnectionResetError("the client went away in the middle of its request"))
        if self._task is not None and self._sender.streaming:
            self._task.cancel()

    def _malformed(self, error: Malformed) -> None:
        if self._task is None:
            self._refuse(error.status, f"malformed request: {error}")
        elif self._body is not None:
            self._body.fail(InvalidParameter(f"malformed request body: {error}"))

    def _refuse(self, status: int, message: str) -> None:
        """Answer what could not be read as a request, and hang up."""
        body = self.server.error_body(status, message)
        head = (
            f"HTTP/1.1 {status} {REASONS.get(status, 'Bad Request')}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._transport.write(head.encode() + body)
        self._linger()

    def _linger(self) -> None:
        """Close without a reset eating the answer: the client's remaining bytes are read and dropped."""
        self._lingering = True
        self._resume_reading()
        if self._eof or self._transport.is_closing():
            self._transport.close()
            return
        try:
            self._transport.write_eof()
        except OSError:
            self._transport.abort()
            return
        self._set_deadline(LINGER_S)

    # --- one request ---

    def _start(self, head: Head) -> None:
        self._set_deadline(0)
        self._body = Body(self._loop, self._send_continue, self._resume_reading)
        self._sender.streaming = False
        self.server.request_started()
        self._task = self._loop.create_task(self._serve(head, self._body))

    async def _serve(self, head: Head, body: Body) -> None:
        response: Response | None = None
        try:
            response = await self._answer(head, body)
            if response is not None and not self._hijacked:
                await self._sender.send(response, head.method == "HEAD")
            elif response is not None or not self._hijacked:
                self._transport.abort()  # also when the hand-over failed: nobody reads from it any more
        except asyncio.CancelledError:
            self._transport.abort()
        except ConnectionError:
            self._transport.abort()
        except Exception as error:  # an answer that cannot be sent must not keep its client waiting
            log.exception("%s: %s", _named(head), describe(error))
            self._transport.abort()
        finally:
            if response is not None:
                response.close()
            body.drop()
            self._task = None
            self.server.request_finished()
        await self._next(body)

    async def _answer(self, head: Head, body: Body) -> Response | None:
        method = head.method
        try:
            try:
                request = self._parse(head, body)
                found = self.server.router.match(method, request.path)
                if found is None:
                    raise NotFound(
                        f"page not found: this version does not offer {method} {request.path[:200]}"
                    )
                handler, request.params = found
                if log.isEnabledFor(logging.DEBUG):
                    log.debug("%s %s", method, request.path)
                return await handler(request)
            except (ClientGone, ConnectionError):
                if self.gone.is_set():
                    return None
                raise
        except Exception as error:  # the boundary: each becomes an answer, unexpected ones are logged
            return self.server.error_response(error, _named(head))

    def _parse(self, head: Head, body: Body) -> Request:
        if not head.version.startswith("1."):
            self._sender.close_wanted = True
            raise InvalidParameter(f"HTTP/{head.version} is not spoken here, only HTTP/1.1")
        if "content-length" in head.headers and "transfer-encoding" in head.headers:
            self._sender.close_wanted = True
            raise InvalidParameter("a request has Content-Length or Transfer-Encoding, never both")
        target = head.target.partition("#")[0]
        if not target.startswith("/"):  # absolute form, as proxies send it
            scheme, mark, rest = target.partition("://")
            if not mark or scheme.lower() not in ("http", "https"):
                raise NotFound("page not found")
            target = "/" + rest.partition("/")[2]
        if "%00" in target:
            raise InvalidParameter(NULL_CHARACTER)
        raw_path, _, raw_query = target.partition("?")
        path = unquote(raw_path, errors="strict" if "%" in raw_path else "replace")
        version = NEWEST
        if self.server.versioned:
            version, path = split_version(path)
        return Request(self, head.method, path, Query(raw_query), head.headers, version, body)

    def _send_continue(self) -> None:
        if self._protocol.continue_awaited and not self._transport.is_closing():
            self._sender.write(self._protocol.go_on())

    async def _next(self, body: Body) -> None:
        """Between two requests: make sure the body is over, then look for the next one."""
        if self._hijacked or self._transport.is_closing():
            return
        if body.lent:
            self._linger()
            return
        dropped = 0
        try:
            while not body.complete and dropped <= DRAIN_LIMIT_BYTES:
                if self._protocol.continue_awaited:
                    break
                data = body.take_now()
                if not data:
                    data = await asyncio.wait_for(body.read_some(), LINGER_S)
                dropped += len(data)
        except (OSError, InvalidParameter, TimeoutError):
            self._linger()
            return
        if self._hijacked or self._transport.is_closing():
            return
        if self._sender.close_wanted or not body.complete or not self._protocol.answered:
            self._linger()
            return
        if self._eof:
            self._transport.close()
            return
        self._body = None
        self._protocol.next_cycle()
        self._resume_reading()
        self._set_deadline(IDLE_TIMEOUT_S)
        self._advance()

    # --- hijack ---

    async def hijack(
        self, request: Request, content_type: str, headers: Sequence[tuple[str, str]]
    ) -> Hijacked:
        """See `Request.hijack`."""
        upgrade = request.upgrade
        early = b""
        if request.body.complete:
            early = request.body.take_now()
        elif upgrade:
            await request.body.read(DRAIN_LIMIT_BYTES)
        else:
            early = request.body.take_now()
        if self._eof and self._transport.is_closing():
            raise ClientGone
        self._hijacked = True
        # From here to the last line no byte may be read: it would be lost to whom the socket goes next.
        self._pause_reading()
        prefix = early + self._protocol.trailing
        if not upgrade:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n"
        elif not headers:
            head = (
                f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\n"
                "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
            )
        else:
            more = "".join(f"{name}: {value}\r\n" for name, value in headers)
            head = (
                f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n{more}\r\n"
            )
        self._transport.write(head.encode("latin-1"))
        await self._sender.flushed()
        if self._transport.is_closing():
            raise ClientGone
        detach = getattr(self._transport, "detach", None)
        if detach is not None:
            return Hijacked(await detach(), prefix)
        own: socket.socket = self._transport.get_extra_info("socket").dup()
        self._transport.close()  # closes its own descriptor only; the connection lives on in the dup
        return Hijacked(own, prefix)

    # --- stopping ---

    def stop(self, now: bool) -> None:
        """Leave: at once when idle, streaming, or told `now`; else after the present answer."""
        if self._hijacked:
            return
        if self._task is None:
            self._transport.close()
        elif now or self._sender.streaming:
            self._task.cancel()
        else:
            self._sender.close_wanted = True


def _named(head: Head) -> str:
    """A request for the log: without its query, in which there may be secrets, as in build arguments."""
    return f"{head.method} {head.target.partition('?')[0][:300]}"
