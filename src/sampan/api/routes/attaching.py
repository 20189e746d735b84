"""Connections that leave HTTP: `/containers/{id}/attach`, and `/exec/…`.

The client's socket is handed on to the process's monitor, which speaks to it from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from functools import partial

from sampan.api.routes.detach_keys import parse_detach_keys
from sampan.api.shapes.containers import exec_inspect
from sampan.api.versions import stream_type
from sampan.engine import Engine, LogQuery, execs
from sampan.engine.attaching import Earlier, join
from sampan.engine.core import ExecConfig, Live, check_not_restarting
from sampan.engine.logs import frame
from sampan.errors import Conflict, InvalidParameter, SampanError
from sampan.http import Request, Response, Routes, describe, empty, json_response
from sampan.linux.sockets import unread_bytes
from sampan.oci.records import decode
from sampan.runtime import Attachment

routes = Routes()


@routes.post("/containers/{id}/attach")
async def attach(request: Request) -> Response | None:
    """Join a container's streams; before its start, to have them from the first byte on."""
    engine: Engine = request.engine
    query = request.query
    live = attachable(engine, request.params["id"])
    container = live.container
    keys = parse_detach_keys(query.get("detachKeys"))
    tty = container.config.tty
    logs, following = query.flag("logs"), query.flag("stream")
    with live.arrival() if following else contextlib.nullcontext():
        connection = await request.hijack(stream_type(request.api_version, tty))
        client = connection.socket
        wanted = LogQuery(stdout=query.flag("stdout"), stderr=query.flag("stderr"), framed=not tty)
        earlier = Earlier(wanted, partial(asyncio.get_running_loop().sock_sendall, client)) if logs else None
        with contextlib.ExitStack() as owned:
            owned.enter_context(client)
            if logs:
                await _head_is_read(client)
            if not following:
                if earlier is not None:
                    await earlier.from_log(engine, live)
                return None
            owned.pop_all()
        attachment = Attachment(
            stdin=query.flag("stdin") and container.config.open_stdin,
            stdout=wanted.stdout,
            stderr=wanted.stderr,
            framed=not tty,
            detach_keys=keys,
            prefix=connection.prefix,
        )
        await join(engine, live, client, attachment, earlier)
    return None


def attachable(engine: Engine, reference: str) -> Live:
    """The container, when a client can attach to it.

    Raises:
        SampanError: as Docker words it.
    """
    live = engine.get(reference)
    if live.container.state.status == "paused":
        raise Conflict(f"container {live.id} is paused, unpause the container before attach")
    check_not_restarting(live)
    return live


async def _head_is_read(sock: socket.socket) -> None:
    """Wait a little until the client has read the answer's head; why, tells `runtime.sessions.Session`."""
    for _ in range(100):
        if not unread_bytes(sock):
            return
        await asyncio.sleep(0.001)


@routes.post("/containers/{id}/exec")
async def create(request: Request) -> Response:
    """Prepare a further process."""
    engine: Engine = request.engine
    body = await request.json()
    if not isinstance(body, dict):
        raise InvalidParameter("the exec's configuration is missing")
    # "Container" and "Detach" are said elsewhere; old clients and docker-py send them here as well
    config = decode(ExecConfig, {name: v for name, v in body.items() if name not in ("Container", "Detach")})
    live = engine.get(request.params["id"])
    session = execs.create(engine, live, config)
    return json_response({"Id": session.id}, 201)


@routes.post("/exec/{id}/start")
async def start(request: Request) -> Response | None:
    """Run it, with the client on its streams unless detached."""
    engine: Engine = request.engine
    live, session = execs.find(engine, request.params["id"])
    body = await request.json() or {}
    detach, tty = bool(body.get("Detach")), bool(body.get("Tty"))
    size = body.get("ConsoleSize") or session.config.console_size
    # Whether there is a terminal was said when it was made; here `Tty` only means output without frames.
    terminal = session.config.tty
    terminal_size = (size[0], size[1]) if size and terminal and len(size) == 2 else None
    execs.check_startable(live, session)
    if detach:
        if request.upgrade:
            raise InvalidParameter("a detached exec has no stream to upgrade to")
        await execs.start(engine, live, session, None, None, terminal_size)
        return empty(200)
    config = session.config
    keys = parse_detach_keys(config.detach_keys)
    connection = await request.hijack(stream_type(request.api_version, tty))
    attachment = Attachment(
        stdin=config.attach_stdin,
        stdout=config.attach_stdout,
        stderr=config.attach_stderr,
        framed=not tty,
        detach_keys=keys,
        prefix=connection.prefix,
    )
    try:
        await execs.start(engine, live, session, connection.socket, attachment, terminal_size)
    except (SampanError, OSError) as error:
        # Too late for a status: Docker too tells it on the stream, and clients find the exit code by inspect.
        text = f"{describe(error)}\r\n".encode()
        await _head_is_read(connection.socket)
        await asyncio.get_running_loop().sock_sendall(connection.socket, text if tty else frame(1, text))
    finally:
        connection.socket.close()
    return None


@routes.get("/exec/{id}/json")
async def inspect(request: Request) -> Response:
    """Whether it runs, and how it ended."""
    _, session = execs.find(request.engine, request.params["id"])
    await execs.settle(session)
    return json_response(exec_inspect(session))


@routes.post("/exec/{id}/kill")
async def kill(request: Request) -> Response:
    """Send it a signal, SIGKILL unless `signal` says otherwise. Not Docker's."""
    _, session = execs.find(request.engine, request.params["id"])
    await execs.kill(session, request.query.get("signal"))
    return empty(204)


@routes.post("/exec/{id}/resize")
async def resize(request: Request) -> Response:
    """Change its terminal's size."""
    _, session = execs.find(request.engine, request.params["id"])
    await execs.resize(session, request.query.integer("h"), request.query.integer("w"))
    return empty(200)
