"""What a handler answers with: a small whole body, a stream, a part of a file, what a thread writes."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, BinaryIO

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"


class Response:
    """A complete answer.

    Args:
        status: the HTTP status.
        body: all of the body.
        content_type: empty for an answer without a body.
        headers: further headers.
    """

    def __init__(
        self,
        status: int = 200,
        body: bytes = b"",
        content_type: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers: dict[str, str] = dict(headers or {})

    @property
    def length(self) -> int | None:
        """The length of the body in bytes, None when only its end will tell."""
        return len(self.body)

    def close(self) -> None:
        """Let go of what the answer holds, sent or not."""


class StreamResponse(Response):
    """An answer whose pieces are sent as they come; see `stream`."""

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        status: int,
        content_type: str,
        headers: Mapping[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        super().__init__(status, b"", content_type, headers)
        self.pieces = pieces
        self._length = length

    @property
    def length(self) -> int | None:
        return self._length


class FileResponse(Response):
    """A part of an open file, copied by the kernel where the connection allows it (sendfile(2)).

    Args:
        fd: the file; the answer owns it from now on.
        offset: where the body begins in it.
        length: how many bytes of it to send.
    """

    def __init__(
        self,
        fd: int,
        offset: int,
        length: int,
        status: int = 200,
        content_type: str = "application/octet-stream",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, b"", content_type, headers)
        self.fd = fd
        self.offset = offset
        self._length = length

    @property
    def length(self) -> int | None:
        return self._length

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class ThreadStreamResponse(Response):
    """An answer that a worker thread writes; see `thread_stream`."""

    def __init__(
        self,
        writer: Callable[[BinaryIO], None],
        status: int,
        content_type: str,
        headers: Mapping[str, str] | None = None,
        finish: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(status, b"", content_type, headers)
        self.writer = writer
        self._finish = finish

    @property
    def length(self) -> int | None:
        return None

    def close(self) -> None:
        finish, self._finish = self._finish, None
        if finish is not None:
            finish()


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def dump_json(value: Any) -> bytes:
    """JSON as Docker writes it: UTF-8, compact, a line feed behind it."""
    return _ENCODER.encode(value).encode("utf-8", "replace") + b"\n"


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with `value` as JSON."""
    return Response(status, dump_json(value), "application/json", headers)


def empty(status: int = 204, headers: Mapping[str, str] | None = None) -> Response:
    """Answer without a body."""
    return Response(status, b"", "", headers)


def text(body: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with plain text."""
    return Response(status, body.encode(), "text/plain; charset=utf-8", headers)


def stream(
    pieces: AsyncIterator[bytes],
    content_type: str = "application/json",
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    length: int | None = None,
) -> Response:
    """Answer with pieces sent the moment they come, the head before the first of them.

    With `length` the body has so many bytes, and a server that stops lets it come to its end.

    When the client goes away the task that iterates is cancelled, so the iterator's `finally` runs. An
    exception out of the iterator cuts the body short (no last chunk), which clients take for an error.
    """
    return StreamResponse(pieces, status, content_type, headers, length)


def thread_stream(
    writer: Callable[[BinaryIO], None],
    content_type: str = "application/x-tar",
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    finish: Callable[[], None] | None = None,
) -> Response:
    """Answer with what `writer` writes to the file it is given, in a worker thread.

    Nothing is sent before the first byte is written (or the writer returns), so an error raised until then
    still becomes a proper error answer; a later one cuts the body short. Writes block while the client is
    slow, and raise `BrokenPipeError` once it has gone. `finish` is called in
    the end, whether `writer` ran or not.
    """
    return ThreadStreamResponse(writer, status, content_type, headers, finish)
