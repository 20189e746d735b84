"""Makes a daemon under test write down its answers, which `support.contract` then looks at.

Python runs this at its start when the folder lies on PYTHONPATH (`site` in the library's manual). It acts
only in a `python -m sampan.daemon` that is told by SAMPAN_RECORD where to write: one JSON object a
line, and one line for each different form of an answer. Nothing is altered on its way to the client.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import AsyncIterator
from typing import Any

RECORD = os.environ.get("SAMPAN_RECORD", "")
FORMS = 2000  # of one answer: all that a run sees, by far
STREAM_BYTES = 64 << 10


def form(value: Any) -> Any:
    """What two answers of the same form have in common: members and types."""
    if isinstance(value, dict):
        return tuple(sorted((key, form(item)) for key, item in value.items()))
    if isinstance(value, list):
        return ("list", tuple(sorted({repr(form(item)) for item in value})))
    return type(value).__name__


class Recorder:
    """Writes lines; each is whole, so that processes can share the file."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._seen: dict[tuple[str, int], set[Any]] = {}

    def note(self, method: str, target: str, status: int, kind: str, body: bytes) -> None:
        """Write an answer down; `status` is 0 where the connection was handed over."""
        value: Any = None
        lines = False
        if kind.startswith("application/json") and body.strip():
            try:
                value = json.loads(body)
            except ValueError:
                lines = True
                value = [json.loads(line) for line in body.split(b"\n")[:-1] if line.strip()]
        path = target.partition("?")[0].removeprefix("/")
        steps = path.split("/")
        first = steps[1] if re.fullmatch(r"v[0-9.]+", steps[0]) and len(steps) > 1 else steps[0]
        forms = self._seen.setdefault((f"{method} {first} {len(steps)} {steps[-1][:12]}", status), set())
        one = hash(repr(form(value)))
        if one in forms or len(forms) >= FORMS:
            return
        forms.add(one)
        line = {"method": method, "target": target, "status": status, "type": kind, "lines": lines}
        os.write(self._fd, json.dumps(line | {"body": value}).encode() + b"\n")


def install(path: str) -> None:
    """Listen in on every connection of Docker's API."""
    from sampan.http import connection
    from sampan.http.response import StreamResponse

    recorder = Recorder(path)
    answer = connection.Connection._answer

    async def recorded(
        pieces: AsyncIterator[bytes], method: str, target: str, response: StreamResponse
    ) -> AsyncIterator[bytes]:
        kept: list[bytes] = []
        size = 0
        try:
            async for piece in pieces:
                if size < STREAM_BYTES:
                    kept.append(bytes(piece))
                    size += len(piece)
                yield piece
        finally:
            recorder.note(method, target, response.status, response.content_type, b"".join(kept))
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()

    async def listening(self: Any, head: Any, body: Any) -> Any:
        response = await answer(self, head, body)
        if not self.server.versioned:
            return response
        method, target = head.method, head.target
        if response is None:
            recorder.note(method, target, 0, "", b"")
        elif isinstance(response, StreamResponse):
            response.pieces = recorded(response.pieces, method, target, response)
        else:
            recorder.note(method, target, response.status, response.content_type, response.body)
        return response

    connection.Connection._answer = listening  # type: ignore[method-assign]


if RECORD and "sampan.daemon" in sys.orig_argv:
    install(RECORD)
