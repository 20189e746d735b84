"""One health check: a command run in the container once, its exit code and the first of its output.

It is an exec with a time limit, under a reaper of its own: its monitor ends it with all that it has started.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time

from sampan.engine import execs
from sampan.engine.core import Core, Exec, ExecConfig, Live
from sampan.errors import Conflict
from sampan.runtime import Attachment, ExitRecord

KEPT_BYTES = 4096
_LAST_WORDS_S = 0.5  # for output that is still on its way when the probe has ended


async def run_probe(
    core: Core, live: Live, words: list[str], timeout_s: float, stopping: asyncio.Event
) -> tuple[int, str]:
    """Run one probe to its end; leaves no process behind.

    Args:
        stopping: ends it early.

    Returns:
        Its exit code, -1 if it took too long, and the first of its output.

    Raises:
        SampanError: it could not be started.
    """
    own = live.container.config
    config = ExecConfig(
        attach_stdout=True, attach_stderr=True, cmd=words, user=own.user, working_dir=own.working_dir,
        timeout=max(timeout_s, 0.001),
    )  # fmt: skip
    session = execs.create(core, live, config)
    output = Output()
    begun = time.perf_counter()
    try:
        with output.end:
            attachment = Attachment(stdin=False, stdout=True, stderr=True, framed=False)
            await execs.start(core, live, session, output.end, attachment, ends_all=True)
        core.metrics.health_starts.observe(time.perf_counter() - begun)
        ended, late = await _until_end(session, stopping)
        await output.rest()
    finally:
        output.close()
        live.execs.pop(session.id, None)
    if not late:
        return ended.exit_code, output.text()
    text = f"Health check exceeded timeout ({duration(timeout_s)})"
    return -1, f"{text}: {output.text()}" if output.text() else text


async def _until_end(session: Exec, stopping: asyncio.Event) -> tuple[ExitRecord, bool]:
    """How a started probe ended, and whether it was late; it is killed when the checks are to stop."""
    process = session.process
    assert process is not None
    ending_ = asyncio.ensure_future(process.wait())
    told = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([ending_, told], return_when=asyncio.FIRST_COMPLETED)
        late = not ending_.done()
        if late:
            with contextlib.suppress(Conflict):
                await process.kill(signal.SIGKILL)
        ended = await ending_
        return ended, late or bool(ended.error)
    finally:
        told.cancel()


class Output:
    """The first of what a probe writes; the rest is read and dropped, so that it never waits for us.

    Attributes:
        end: the probe's side of the stream.
    """

    def __init__(self) -> None:
        self._ours, self.end = socket.socketpair()
        self._ours.setblocking(False)
        self._kept = bytearray()
        self._more = False
        self._reading = asyncio.create_task(self._read(), name="watch probe's output")

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._ours, 65536):
                room = KEPT_BYTES - len(self._kept)
                self._kept += data[:room]
                self._more = self._more or len(data) > room

    async def rest(self) -> None:
        """Wait for what is on its way, though not for somebody who keeps the stream open."""
        await asyncio.wait([self._reading], timeout=_LAST_WORDS_S)

    def text(self) -> str:
        """What was kept, with dots where something is missing."""
        return self._kept.decode(errors="replace") + ("..." if self._more else "")

    def close(self) -> None:
        """Stop reading."""
        self._reading.cancel()
        self._reading.add_done_callback(lambda _: self._ours.close())


def duration(seconds: float) -> str:
    """A length of time as Go writes it: 1m30s, 500ms."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{hours}h" if hours else ""
    if hours or minutes:
        text += f"{minutes}m"
    return f"{text}{rest:g}s"
