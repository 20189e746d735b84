"""`/containers/{id}/attach/ws`: a container's streams by WebSocket, as browsers speak it.

Output is not framed by stream, as with Docker. The monitor knows nothing of WebSocket: it has one end of a
socket pair, and the daemon copies between the other end and the client, who is cut off when it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from sampan.api.routes.attaching import attachable
from sampan.api.routes.detach_keys import parse_detach_keys
from sampan.engine import Engine, LogQuery
from sampan.engine.attaching import Earlier, join
from sampan.http import Request, Response, Routes, websocket
from sampan.runtime import Attachment

routes = Routes()

_READ_BYTES = 64 << 10
_FAREWELL_S = 5.0  # for the client to answer the end, so that it has read what came before
_BINARY_SINCE = (1, 28)  # versions of the API before have messages of text


@routes.get("/containers/{id}/attach/ws")
async def attach(request: Request) -> Response | None:
    """Join a container's streams by WebSocket; before its start, to have them from the first byte on."""
    engine: Engine = request.engine
    query = request.query
    live = attachable(engine, request.params["id"])
    container = live.container
    keys = parse_detach_keys(query.get("detachKeys"))
    loop = asyncio.get_running_loop()
    opcode = websocket.BINARY if request.api_version >= _BINARY_SINCE else websocket.TEXT
    stdout, stderr = query.flag("stdout"), query.flag("stderr")
    with contextlib.ExitStack() as arriving:
        arriving.enter_context(live.arrival())
        connection = await request.hijack(headers=websocket.accept(request))
        with connection.socket as client:

            async def give(piece: bytes) -> None:
                await loop.sock_sendall(client, websocket.frame(opcode, piece))

            wanted = LogQuery(stdout=stdout, stderr=stderr, framed=False)
            earlier = Earlier(wanted, give) if query.flag("logs") else None
            ours, theirs = socket.socketpair()
            with ours:
                ours.setblocking(False)
                if query.flag("stream"):
                    stdin = query.flag("stdin") and container.config.open_stdin
                    attachment = Attachment(stdin, stdout, stderr, framed=False, detach_keys=keys)
                    await join(engine, live, theirs, attachment, earlier)
                else:
                    theirs.close()
                    if earlier is not None:
                        await earlier.from_log(engine, live)
                arriving.close()
                await _Bridge(client, ours, opcode).run(connection.prefix)
    return None


class _Bridge:
    """Copies between a WebSocket client and a bare socket until both sides have ended.

    Args:
        client: the client's connection, behind the handshake.
        bare: the other end; both do not block.
        opcode: of the messages to the client.
    """

    def __init__(self, client: socket.socket, bare: socket.socket, opcode: int) -> None:
        self._client = client
        self._bare = bare
        self._opcode = opcode
        self._writing = asyncio.Lock()  # a frame must not come into another
        self._loop = asyncio.get_running_loop()

    async def run(self, prefix: bytes) -> None:
        """Copy; `prefix` came from the client already."""
        output = asyncio.create_task(self._output())
        try:
            await self._input(prefix)
            await asyncio.wait({output}, timeout=_FAREWELL_S)
        except (websocket.ProtocolError, OSError):
            await self._send(websocket.closing(websocket.PROTOCOL_ERROR))
        finally:
            output.cancel()

    async def _send(self, data: bytes) -> None:
        async with self._writing:
            try:
                await self._loop.sock_sendall(self._client, data)
            except OSError:
                pass  # it has left; its end is seen by who reads

    async def _output(self) -> None:
        try:
            while data := await self._loop.sock_recv(self._bare, _READ_BYTES):
                await self._send(websocket.frame(self._opcode, data))
        except OSError:
            pass  # the monitor is gone, and with it the container
        await self._send(websocket.closing(websocket.NORMAL))
        # Whoever does not answer is cut off, which ends `_input` too.
        self._loop.call_later(_FAREWELL_S, _shut, self._client)

    async def _input(self, prefix: bytes) -> None:
        """Until the client says farewell, or leaves."""
        decoder = websocket.Decoder()
        data = prefix
        deaf = False
        while True:
            for opcode, payload in decoder.feed(data):
                if opcode == websocket.PING:
                    await self._send(websocket.frame(websocket.PONG, payload))
                elif opcode == websocket.CLOSE:
                    _shut(self._bare)
                    return
                elif opcode == websocket.BINARY and not deaf:
                    try:
                        await self._loop.sock_sendall(self._bare, payload)
                    except OSError:
                        deaf = True  # nobody reads there any more
            data = await self._loop.sock_recv(self._client, _READ_BYTES)
            if not data:
                _shut(self._bare)
                return


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is gone already
