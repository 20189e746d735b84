"""`docker attach`: a client's socket goes to the container's monitor, which speaks to it from then on.

Who wants the log as well has each byte once: the monitor says how far the log goes where the stream begins,
and keeps the stream until the client has been given that much of the log.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace

from sampan.dataclasses import dataclass
from sampan.engine.core import Core, Live
from sampan.engine.logs import LogQuery, stream_logs
from sampan.errors import Conflict
from sampan.runtime import Attachment, LogPlace


@dataclass(frozen=True, slots=True)
class Earlier:
    """What a client is to have before the stream.

    Attributes:
        wanted: what of the log.
        give: sends that to the client.
    """

    wanted: LogQuery
    give: Callable[[bytes], Awaitable[None]]

    async def from_log(self, core: Core, live: Live, end: LogPlace | None = None) -> None:
        """Give the log, as far as it goes or to a place."""
        async for piece in stream_logs(core.log_path(live.container), replace(self.wanted, end=end), None):
            await self.give(piece)


async def join(
    core: Core, live: Live, sock: socket.socket, attachment: Attachment, earlier: Earlier | None = None
) -> None:
    """Hand a client's socket on to the monitor, now or at the start; the caller no longer closes it.

    Raises:
        Conflict: the container has just ended.
        OSError: the client has left.
    """
    parked = False
    try:
        process = live.process
        if earlier is not None and process is not None and process.holds and not process.exited:
            try:
                async with process.attach_behind_log(sock.fileno(), attachment) as held:
                    core.publish(live, "attach")
                    await earlier.from_log(core, live, held.place)
                    held.release()
                    return
            except Conflict:
                pass  # it has ended: its log is whole
        if earlier is not None:
            await earlier.from_log(core, live)
        core.publish(live, "attach")
        if live.process is None:
            live.parked.append((sock, attachment))
            parked = True
        else:
            await live.process.attach(sock.fileno(), attachment)
    finally:
        if not parked:
            sock.close()
