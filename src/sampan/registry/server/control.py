"""The registry's own door, `<root>/control.sock`: there `sampan registry gc` asks it to collect."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sampan.errors import SampanError
from sampan.http import HttpServer, Request, Response, Router, Routes, json_response

Collect = Callable[[bool | None], Awaitable[dict[str, float]]]

_NAME = "control.sock"


@contextmanager
def _near(root: Path) -> Iterator[str]:
    """The socket's address by a descriptor of its directory, as a path of any length may be too long."""
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{_NAME}"
    finally:
        os.close(fd)


async def serve_control(root: Path, collect: Collect) -> HttpServer:
    """Open the door; only its owner (and root) may come in."""
    routes = Routes()

    @routes.post("/gc")
    async def gc(request: Request) -> Response:
        return json_response(await collect(True if request.query.flag("untagged") else None))

    sock = socket.socket(socket.AF_UNIX)
    with _near(root) as address:
        (root / _NAME).unlink(missing_ok=True)  # ours alone: we have the directory's lock
        old = os.umask(0o177)
        try:
            sock.bind(address)
        finally:
            os.umask(old)
    server = HttpServer(Router([routes]), headers=(), versioned=False)
    await server.listen(sock)
    return server


def ask_to_collect(root: Path, untagged: bool) -> dict[str, float] | None:
    """Let the registry that serves `root` collect; None when none does.

    Raises:
        SampanError: it failed.
    """

    async def ask() -> bytes:
        with _near(root) as address:
            reader, writer = await asyncio.open_unix_connection(address)
        query = "?untagged=1" if untagged else ""
        writer.write(f"POST /gc{query} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer

    try:
        answer = asyncio.run(ask())
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    value = json.loads(body)
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise SampanError(f"the registry could not collect: {value.get('message', '')}")
    found: dict[str, float] = value
    return found
