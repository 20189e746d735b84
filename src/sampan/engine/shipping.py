"""Remote log drivers, the daemon's side: the shipper's process, and what it is told of containers.

It is started with the first container that needs it. When it dies it is started again and goes on where it
was.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import subprocess
from pathlib import Path
from typing import Any

from sampan.errors import SampanError
from sampan.helpers import Program, start_helper
from sampan.logdrivers.job import Job, flag

_PROGRAM = Program("sampan.logdrivers.shipper", "sampan-logs")
_AGAIN_S = 1.0
_log = logging.getLogger("sampan.engine")


class Shipping:
    """The containers whose lines are sent on. Lives on the event loop's thread."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._over: dict[str, asyncio.Event] = {}  # of those that have ended: whether all was sent
        self._task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None

    def follow(self, job: Job) -> None:
        """Send a container's lines on, from where that was left off."""
        identifier = job.info.id
        self._jobs[identifier] = job
        self._over.pop(identifier, None)
        _owing(job).touch()
        self._tell({"op": "follow", "job": job.encode()})
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="watch log shipper")

    def ended(self, identifier: str) -> None:
        """A container has ended; its last lines are in the cache."""
        if identifier in self._jobs and identifier not in self._over:
            self._over[identifier] = asyncio.Event()
            self._tell({"op": "ended", "id": identifier})

    async def drained(self, identifier: str, timeout_s: float) -> None:
        """Wait until a container that has ended has nothing left to send; then forget it in any case."""
        over = self._over.get(identifier)
        if over is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await over.wait()
            if not over.is_set():
                _log.error("log of container %s: removed before all its lines were sent", identifier[:12])
        if self._jobs.pop(identifier, None) is not None:
            self._tell({"op": "drop", "id": identifier})
        self._over.pop(identifier, None)

    async def close(self) -> None:
        """Let the shipper leave; the next daemon's goes on where it was."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def _tell(self, message: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def _run(self) -> None:
        while True:
            process, ours = await asyncio.to_thread(_spawn)
            reader, self._writer = await asyncio.open_unix_connection(sock=ours)
            try:
                for identifier, job in self._jobs.items():
                    self._tell({"op": "follow", "job": job.encode()})
                    if identifier in self._over:
                        self._tell({"op": "ended", "id": identifier})
                while line := await reader.readline():
                    self._heard(json.loads(line))
            finally:
                self._writer.close()
                self._writer = None
                await asyncio.to_thread(process.wait)
            _log.error("the log shipper died; it is started again")
            await asyncio.sleep(_AGAIN_S)

    def _heard(self, message: dict[str, Any]) -> None:
        identifier = message["id"]
        job = self._jobs.get(identifier)
        if job is None:
            return
        if message["event"] == "done":
            over = self._over.get(identifier)
            if over is not None:
                over.set()
                _owing(job).unlink(missing_ok=True)
            return
        where = f"log of container {identifier[:12]} ({job.driver})"
        if message["event"] == "trouble":
            _log.warning("%s: %s; its lines wait", where, message["text"])
        elif message["event"] == "recovered":
            lost = f"; {message['lost']} lines were dropped" if message["lost"] else ""
            _log.warning("%s: the receiver takes lines again%s", where, lost)
        else:
            _log.error("%s: %s", where, message["text"])


def owes(job: Job) -> bool:
    """Whether lines of an earlier run may not have been sent yet."""
    return _owing(job).exists()


def _owing(job: Job) -> Path:
    return Path(f"{job.path}.owing")


def probe(job: Job) -> None:
    """Refuse a start whose receiver is not there, as Docker does, unless it need not be (`fluentd-async`).

    Raises:
        SampanError: in Docker's words.
    """
    if flag(job.options, "fluentd-async"):
        return
    from sampan.logdrivers.senders import sender_for  # only where a start needs it

    try:
        sender = sender_for(job)
        sender.connect()
        sender.close()
    except OSError as error:
        raise SampanError(
            f"failed to create task for container: failed to initialize logging driver:"
            f" {error.strerror or error}"
        ) from None


def _spawn() -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        process = start_helper(_PROGRAM, [theirs.fileno()])
    ours.setblocking(False)
    return process, ours
