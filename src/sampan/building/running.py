"""RUN: a command in an ordinary container of the image so far, and what it has changed."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import socket
import struct

from sampan.building.errors import CommandFailed
from sampan.building.job import Job
from sampan.building.mounting import StepMounts
from sampan.building.output import short
from sampan.engine import Live, create, removal, starting
from sampan.engine.core import in_thread
from sampan.engine.model import ContainerConfig, HostConfig
from sampan.runtime import Attachment

_HEADER = struct.Struct(">BxxxI")
_PIECE_BYTES = 1 << 16
_LAST_OUTPUT_S = 10.0  # between a command's end and the end of its output


class Runner:
    """The containers of one build's RUN instructions."""

    def __init__(self, job: Job) -> None:
        self._core = job.core
        self._output = job.output
        self._ending = job.ending
        self._options = job.options

    async def run(self, config: ContainerConfig, host_config: HostConfig, mounts: StepMounts) -> Live:
        """Run a command to its end; the container is still there then, see `dismiss`.

        Args:
            mounts: are told of its life.

        Raises:
            CommandFailed: it ended with another code than 0.
            BuildCancelled: nobody waits any more; the container is gone.
            SampanError: it could not be started.
        """
        live, warnings = await create.create(
            self._core, None, config, host_config, temporary=True, image_volumes=False
        )
        worked = False
        try:
            for warning in warnings:
                self._output.line(f" ---> [Warning] {warning}")
            self._output.line(f" ---> Running in {short(live.id)}")
            await in_thread(lambda: mounts.created(live))
            await self._to_its_end(live, mounts)
            code = live.container.state.exit_code
            if code:
                raise CommandFailed(config.cmd or [], code)
            worked = True
        finally:
            if not worked:
                await self._after_failure(live)
        return live

    async def dismiss(self, live: Live) -> None:
        """The step is done: remove its container, unless it is to be kept."""
        if not (self._options.remove or self._options.force_remove):
            self._keep(live)
            return
        await removal.remove(self._core, live, force=True, volumes=True)
        self._output.line(f" ---> Removed intermediate container {short(live.id)}")

    async def _after_failure(self, live: Live) -> None:
        ended = self._ending.is_set
        if not (ended or self._options.force_remove):
            self._keep(live)
            return
        await removal.remove(self._core, live, force=True, volumes=True)
        if not ended:
            self._output.line(f" ---> Removed intermediate container {short(live.id)}")

    def _keep(self, live: Live) -> None:
        live.container.to_be_removed = False
        self._core.write_down(live.container)

    async def _to_its_end(self, live: Live, mounts: StepMounts) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        live.parked.append((theirs, Attachment(stdin=False, stdout=True, stderr=True, framed=True)))
        reader = asyncio.create_task(self._read(ours), name="output of a build")
        try:
            await starting.start(self._core, live)
            mounts.started()
            waits = [asyncio.ensure_future(one) for one in (live.ended.wait(), self._ending.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in waits:
                    one.cancel()
            self._ending.check()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(reader), _LAST_OUTPUT_S)
        finally:
            reader.cancel()
            await asyncio.wait([reader])
            ours.close()

    async def _read(self, ours: socket.socket) -> None:
        """Tell what comes, until the container's side is closed."""
        loop = asyncio.get_running_loop()
        decoders = {number: codecs.getincrementaldecoder("utf-8")("replace") for number in (1, 2)}
        data = b""
        while piece := await loop.sock_recv(ours, _PIECE_BYTES):
            data += piece
            while len(data) >= _HEADER.size:
                stream, size = _HEADER.unpack_from(data)
                if len(data) < _HEADER.size + size:
                    break
                text = decoders[stream].decode(data[_HEADER.size : _HEADER.size + size])
                data = data[_HEADER.size + size :]
                if text:
                    self._output.command(stream, text)
