"""Answers without an end as async iterators: JSON values, and output in frames or raw.

Output of a container without a terminal comes in frames (Engine API, "Attach to a container"): a kind byte
(1 stdout, 2 stderr, 3 an error of the daemon's), three zeros, a big-endian length.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar

from sampan.client.transport import Reply
from sampan.errors import SampanError

T = TypeVar("T")


class Output(NamedTuple):
    """A piece of a process's output, as it arrived: lines may be cut anywhere."""

    stream: Literal["stdout", "stderr"]
    data: bytes


class Stream(Generic[T]):
    """An answer that is iterated over; used as a context manager it is closed whatever happens.

    The request is sent with the first item, or by `async with`.
    """

    def __init__(
        self, ask: Callable[[], Awaitable[Reply]], items: Callable[[Reply], AsyncIterator[T]]
    ) -> None:
        self._ask = ask
        self._make = items
        self._reply: Reply | None = None
        self._items: AsyncIterator[T] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        if self._items is None:
            self._reply = await self._ask()
            self._items = self._make(self._reply)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._closed:
            raise StopAsyncIteration
        try:
            await self.__aenter__()
            assert self._items is not None
            return await anext(self._items)
        except BaseException:  # its end, an error, or a cancellation: nobody will read on
            self.close()
            raise

    def close(self) -> None:
        """End it: the daemon stops to send."""
        self._closed = True
        if self._reply is not None:
            self._reply.close()


async def json_values(reply: Reply) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a body, each as soon as it is complete.

    Raises:
        SampanError: the daemon tells of a failure in mid-stream.
    """
    decoder = json.JSONDecoder()
    rest = ""
    undecoded = b""
    async for piece in reply.pieces():
        piece = undecoded + piece
        cut = piece.rfind(b"\n") + 1
        undecoded = piece[cut:]
        rest = (rest + piece[:cut].decode("utf-8", "replace")).lstrip()
        while rest:
            try:
                value, end = decoder.raw_decode(rest)
            except ValueError:
                break
            rest = rest[end:].lstrip()
            yield _checked(value)
    rest = (rest + undecoded.decode("utf-8", "replace")).strip()
    if rest:
        yield _checked(json.loads(rest))


def _checked(value: dict[str, Any]) -> dict[str, Any]:
    if "errorDetail" in value or "error" in value:
        detail = value.get("errorDetail") or {}
        raise SampanError(str(detail.get("message") or value.get("error")))
    return value


class Demultiplexer:
    """Takes output apart, whatever pieces it comes in."""

    def __init__(self, framed: bool) -> None:
        self._framed = framed
        self._rest = b""

    def feed(self, data: bytes) -> list[Output]:
        """The complete pieces in these bytes.

        Raises:
            SampanError: the daemon tells of a failure in mid-stream.
        """
        if not self._framed:
            return [Output("stdout", data)] if data else []
        data = self._rest + data
        position, found = 0, []
        while len(data) - position >= 8:
            stop = position + 8 + int.from_bytes(data[position + 4 : position + 8], "big")
            if stop > len(data):
                break
            kind, content = data[position], data[position + 8 : stop]
            position = stop
            if kind == 3:
                raise SampanError(content.decode("utf-8", "replace"))
            found.append(Output("stderr" if kind == 2 else "stdout", content))
        self._rest = data[position:]
        return found


def is_framed(reply: Reply) -> bool:
    """Whether the output in this answer comes in frames."""
    return "multiplexed-stream" in reply.headers.get("content-type", "")


async def output(reply: Reply) -> AsyncIterator[Output]:
    """The output in a body (logs)."""
    demultiplexer = Demultiplexer(is_framed(reply))
    async for piece in reply.pieces():
        for found in demultiplexer.feed(piece):
            yield found
