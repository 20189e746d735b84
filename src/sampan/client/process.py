"""Processes in containers that we are attached to: their input, output and end.

The connection is the process's own (hijacked); closing our half of it is the end of its input.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from sampan.client.deadlines import GRACE_S, to_its_end, undo
from sampan.client.errors import CommandFailed, ConnectionFailed
from sampan.client.streams import Demultiplexer, Output, is_framed
from sampan.client.transport import CHUNK_BYTES, Reply, Transport, part
from sampan.dataclasses import dataclass
from sampan.errors import Conflict, NotFound, SampanError

LAUNCH_S = 1.0  # between the answer to a start and the process's first sign of life
POLL_S = 0.01
Input = bytes | AsyncIterable[bytes]


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended, and what it wrote."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """The standard output as text, without the last line's end."""
        return self.stdout.decode("utf-8", "replace").removesuffix("\n")

    def check(self, command: str) -> Self:
        """This very object.

        Raises:
            CommandFailed: the exit code is not 0.
        """
        if self.exit_code:
            raise CommandFailed(command, self.exit_code, self.stdout, self.stderr)
        return self


class Attached:
    """The streams of a process: an async iterator of its output, and `write` for its input."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._demultiplexer = Demultiplexer(is_framed(reply))
        self._ready = self._demultiplexer.feed(reply.hijacked())
        self._ready.reverse()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Output:
        while not self._ready:
            try:
                data = await self._reply.receive()
            except ConnectionResetError:
                data = b""  # it ended without reading all of its input
            except OSError as error:
                raise ConnectionFailed(f"the connection to the process broke: {error}") from error
            if not data:
                raise StopAsyncIteration
            self._ready = self._demultiplexer.feed(data)
            self._ready.reverse()
        return self._ready.pop()

    async def write(self, data: bytes) -> None:
        """Send to its standard input, as quickly as it reads.

        Raises:
            ConnectionFailed: it has closed its input, or ended.
        """
        try:
            await self._reply.send(data)
        except OSError as error:
            raise ConnectionFailed("the process does not read its input any more") from error

    def write_eof(self) -> None:
        """End its standard input."""
        self._reply.end_sending()

    async def communicate(self, input: Input | None = None) -> tuple[bytes, bytes]:
        """Send all input and read all output: what came on stdout and on stderr."""
        feeding = asyncio.ensure_future(self._feed(input))
        collected: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        try:
            async for stream, data in self:
                collected[stream].append(data)
            if feeding.done():
                feeding.result()
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])
        return b"".join(collected["stdout"]), b"".join(collected["stderr"])

    async def _feed(self, input: Input | None) -> None:
        with suppress(ConnectionFailed):  # a process need not read all that it is given
            if isinstance(input, bytes):
                await self.write(input)
            elif input is not None:
                async for piece in input:
                    await self.write(piece)
        self.write_eof()

    def close(self) -> None:
        """Let go of the streams; the process goes on."""
        self._reply.close()


class Process(Attached):
    """A further process in a running container (exec). Left by `async with`, it is ended if it still runs."""

    def __init__(self, transport: Transport, exec_id: str, reply: Reply) -> None:
        super().__init__(reply)
        self._transport = transport
        self.id = exec_id

    @classmethod
    async def start(cls, transport: Transport, exec_id: str, tty: bool) -> Process:
        """Start a prepared exec. Cancelled, it ends what was started."""
        path = f"/exec/{part(exec_id)}/start"
        body = {"Detach": False, "Tty": tty}
        try:
            return cls(transport, exec_id, await transport.request("POST", path, None, body, upgrade=True))
        except asyncio.CancelledError as error:
            await undo(error, end_exec(transport, exec_id))
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if error is not None:
            await undo(error, end_exec(self._transport, self.id))
        else:
            await to_its_end(end_exec(self._transport, self.id))

    async def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send it a signal; SIGKILL ends all that it has started as well.

        Raises:
            Conflict: it does not run.
        """
        await self._transport.call("POST", f"/exec/{part(self.id)}/kill", {"signal": signal})

    async def resize(self, rows: int, columns: int) -> None:
        """Change the size of its terminal."""
        await self._transport.call("POST", f"/exec/{part(self.id)}/resize", {"h": rows, "w": columns})

    async def wait(self) -> int:
        """Its exit code, once it has ended; its output is read first, and dropped if nobody has."""
        async for _ in self:
            pass
        while (state := await self._state())["Running"] or state["ExitCode"] is None:
            await asyncio.sleep(POLL_S)  # it has closed its streams and goes on
        return int(state["ExitCode"])

    async def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = await self._transport.call("GET", f"/exec/{part(self.id)}/json")
        return state


async def end_exec(transport: Transport, exec_id: str) -> None:
    """Kill an exec with all that it has started, and see it gone."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while True:
        try:
            state = await transport.call("GET", f"/exec/{part(exec_id)}/json")
        except NotFound:
            return
        if state["Running"]:
            with suppress(Conflict, NotFound):
                await transport.call("POST", f"/exec/{part(exec_id)}/kill")
        elif state["ExitCode"] is not None or loop.time() - begun > LAUNCH_S:
            return
        if loop.time() - begun > GRACE_S:
            raise SampanError(f"exec {exec_id} does not end")
        await asyncio.sleep(POLL_S)


async def file_pieces(path: str) -> AsyncIterator[bytes]:
    """A local file's content, read in a thread."""
    with await asyncio.to_thread(open, path, "rb") as file:
        while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield piece


def words(command: str | Iterable[str]) -> list[str]:
    """A command as a list: a string is one program's name, and no shell is asked."""
    return [command] if isinstance(command, str) else list(command)
