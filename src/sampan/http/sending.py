"""The answers' way out of a connection: heads, bodies of every kind, waiting for the client to take them."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any

from sampan.http.failures import describe
from sampan.http.files import PIECE_BYTES, SMALL_FILE_BYTES, STALL_S, finish, read_exactly, send_file
from sampan.http.protocol import NO_BODY, Protocol
from sampan.http.response import FileResponse, Response, StreamResponse, ThreadStreamResponse
from sampan.http.thread_writer import ThreadWriter
from sampan.threads import in_new_thread

if TYPE_CHECKING:
    from sampan.http.server import HttpServer

log = logging.getLogger("sampan.http")

WRITE_HIGH_BYTES = 512 << 10


class Sender:
    """What a connection sends.

    Args:
        server: the server it belongs to.
        protocol: the connection's, which encodes.
        transport: where to.
        gone: set when the client has left.

    Attributes:
        streaming: an endless answer is under way, which may be cut at any time.
        close_wanted: the answer says that the connection closes behind it.
    """

    def __init__(self, server: HttpServer, protocol: Protocol, transport: Any, gone: asyncio.Event) -> None:
        self.transport = transport
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self.streaming = False
        self.close_wanted = False
        self._server = server
        self._protocol = protocol
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._writable = True

    def pause(self) -> None:
        """The transport's buffer is full."""
        self._writable = False

    def resume(self) -> None:
        """It has room again, or nobody will read it any more."""
        self._writable = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def write(self, data: bytes | None) -> None:
        """Send bytes as they are."""
        if data:
            self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written.

        Raises:
            ConnectionError: the client is gone.
        """
        if self.transport.is_closing():
            raise BrokenPipeError("the client is gone")
        if not self._writable:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
            if self.transport.is_closing():
                raise BrokenPipeError("the client is gone")

    def send_head(self, response: Response, length: int | None) -> bytes:
        """The encoded head of `response`, for a body of `length` bytes or (None) of chunks."""
        headers = list(self._server.headers)
        if response.content_type:
            headers.append(("Content-Type", response.content_type))
        headers.extend(response.headers.items())
        if length is not None and response.status not in NO_BODY:
            headers.append(("Content-Length", str(length)))
        if self.close_wanted or self._server.stopping:
            headers.append(("Connection", "close"))
        status = response.status
        return self._protocol.head(status, REASONS.get(status, ""), headers)

    def write_piece(self, data: bytes) -> None:
        """Send a piece of a body whose head is out."""
        if data and not self.transport.is_closing():
            self.write(self._protocol.data(data))

    async def send(self, response: Response, head_only: bool) -> None:
        """Send an answer, with its body unless `head_only`.

        Raises:
            ConnectionError: the client is gone, or the answer could not be made whole.
        """
        if self.transport.is_closing():
            raise BrokenPipeError("the client is gone")
        if isinstance(response, ThreadStreamResponse) and not head_only:
            await self._send_from_thread(response)
        elif isinstance(response, StreamResponse) and not head_only:
            await self._send_stream(response)
        elif isinstance(response, FileResponse) and not head_only:
            await self._send_file(response)
        else:
            data = self.send_head(response, response.length)
            if response.body and not head_only and response.status not in NO_BODY:
                data += self._protocol.data(response.body)
            self.transport.write(data + self._protocol.end())

    async def _send_stream(self, response: StreamResponse) -> None:
        pieces = response.pieces
        try:
            self.write(self.send_head(response, response.length))
            self.streaming = response.length is None
            if self._gone.is_set():
                raise BrokenPipeError("the client is gone")
            async for piece in pieces:
                self.write_piece(piece)
                await self.drain()
            self.streaming = False
            self.write(self._protocol.end())
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:
            log.error("stream cut short: %s", describe(error))
            self.transport.abort()
        finally:
            self.streaming = False
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()

    async def _send_file(self, response: FileResponse) -> None:
        length = response.length or 0
        head = self.send_head(response, length)
        self._protocol.skip(length)
        sock: socket.socket | None = self.transport.get_extra_info("socket")
        try:
            if length <= SMALL_FILE_BYTES:
                self.transport.write(head + read_exactly(response.fd, response.offset, length))
            elif sock is None:
                self.write(head)
                await self._copy_file(response, length)
            else:
                self.write(head)
                await self.flushed()
                await send_file(self._loop, sock, response.fd, response.offset, length)
        except (EOFError, OSError) as error:
            if not isinstance(error, ConnectionError):
                log.error("file cut short: %s", describe(error))
            raise BrokenPipeError("the body was not sent whole") from error
        self._protocol.end()

    async def _copy_file(self, response: FileResponse, length: int) -> None:
        offset, end = response.offset, response.offset + length
        while offset < end:
            size = min(end - offset, PIECE_BYTES)
            work = self._loop.run_in_executor(None, read_exactly, response.fd, offset, size)
            self.transport.write(await finish(work))
            offset += size
            async with asyncio.timeout(STALL_S):
                await self.drain()

    async def flushed(self) -> None:
        """Wait until the kernel has everything that was written."""
        if not self.transport.get_write_buffer_size():
            return
        self.transport.set_write_buffer_limits(high=0)
        try:
            while self.transport.get_write_buffer_size():
                self._writable = False
                await self.drain()
        finally:
            self.transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)

    async def _send_from_thread(self, response: ThreadStreamResponse) -> None:
        writer = ThreadWriter(self._loop)
        work = in_new_thread(lambda: writer.run(response.writer), "answer")
        started = False
        try:
            while (piece := await writer.next_piece()) is not None:
                if not started:
                    started = True
                    self.write(self.send_head(response, None))
                self.write_piece(piece)
                await self.drain()
        except BaseException:
            writer.abandon()
            await asyncio.shield(asyncio.wait((work,)))
            work.exception()
            raise
        try:
            await work
        except Exception as error:
            if not started:
                await self.send(self._server.error_response(error, "answer"), head_only=False)
                return
            log.error("answer cut short: %s", describe(error))
            self.transport.abort()
            return
        if not started:
            self.write(self.send_head(response, None))
        self.write(self._protocol.end())


REASONS = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    206: "Partial Content",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    416: "Range Not Satisfiable",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    507: "Insufficient Storage",
}
