"""The process that sends containers' lines to remote log drivers: one for a daemon, started when needed.

It follows the caches that the monitors write, a thread for each container, and notes on disk how far each was
sent. So nothing is lost when it, the daemon or the receiver dies, as long as the cache holds it; what was on
its way then comes twice. It speaks JSON lines with the daemon and leaves when that does.
"""

from __future__ import annotations

import json
import os
import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sampan.linux import inotify
from sampan.logdrivers.following import Follower, Place
from sampan.logdrivers.job import Job, decode_job
from sampan.logdrivers.localformat import Record, records
from sampan.logdrivers.senders import sender_for

_BATCH_BYTES = 64 * 1024
_LONGEST_WAIT_S = 10.0
_GROWTH = 1.5
_POLL_MS = 500  # where the user has no inotify instance left


class Given(Exception):
    """The daemon has dropped the job."""


class Shipment(threading.Thread):
    """One container's lines on their way.

    Args:
        tell: reports to the daemon.
    """

    def __init__(self, job: Job, tell: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(daemon=True)
        self._job = job
        self._tell_daemon = tell
        self._ended = threading.Event()
        self._dropped = threading.Event()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._sender = sender_for(job)
        self._lock = threading.Lock()
        self._finished = False
        self._failing = False
        self._lost = 0

    def end(self) -> None:
        """The container has ended: what is in the cache is all there will be."""
        self._ended.set()
        self._wake()

    def revive(self) -> bool:
        """Go on, as the container was started again; False when it is too late for that."""
        with self._lock:
            if not self._finished:
                self._ended.clear()
            return not self._finished

    def drop(self) -> None:
        """Stop, whatever is left."""
        self._dropped.set()
        self._wake()

    def _wake(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    def _tell(self, event: str, **more: Any) -> None:
        self._tell_daemon({"event": event, "id": self._job.info.id, **more})

    def run(self) -> None:
        """Send, until the container has ended and everything was sent."""
        path = Path(self._job.path)
        try:
            watch = inotify.open_watch(
                str(path.parent), inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO
            )
        except OSError:
            watch = -1
        notes = os.open(self._job.place_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        follower = Follower(path)
        try:
            place = _read_place(notes)
            if place is not None:
                follower.resume(place)
            self._send_on(follower, notes, watch)
            self._tell("done")
        except Given:
            pass
        except Exception as error:
            self._tell("failed", text=f"{type(error).__name__}: {error}")
        finally:
            self._sender.close()
            follower.close()
            os.close(notes)
            if watch >= 0:
                os.close(watch)

    def _send_on(self, follower: Follower, notes: int, watch: int) -> None:
        rest = b""
        while True:
            ended = self._ended.is_set()
            chunk = follower.read()
            if chunk is None:
                with self._lock:
                    self._finished = ended and self._ended.is_set()
                if self._finished:
                    return
                self._wait(watch)
                continue
            data = chunk if follower.fresh else rest + chunk
            while data:
                batch, taken = records(data[:_BATCH_BYTES])
                if not taken:
                    break  # less than a record: more will come
                data = data[taken:]
                if batch:
                    self._deliver(batch, follower, len(data))
                place = follower.place()
                if place is not None:
                    _write_place(notes, Place(place.head, place.offset - len(data)))
            rest = data

    def _wait(self, watch: int) -> None:
        if self._dropped.is_set():
            raise Given
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        if watch >= 0:
            poll.register(watch, select.POLLIN)
        poll.poll(-1 if watch >= 0 else _POLL_MS)
        if watch >= 0:
            inotify.drain(watch)
        with suppress(BlockingIOError):
            os.read(self._wake_read, 64)

    def _deliver(self, batch: list[Record], follower: Follower, behind: int) -> None:
        wait_s = self._sender.wait_s
        limit = self._job.backlog_bytes
        tries = 0
        while True:
            if self._dropped.is_set():
                raise Given
            if self._failing and limit is not None and follower.backlog() + behind > limit:
                self._lost += len(batch)
                return
            try:
                self._sender.send(batch)
            except OSError as error:
                self._sender.close()
                tries += 1
                if not self._failing:
                    self._failing = True
                    self._tell("trouble", text=error.strerror or str(error))
                if self._sender.tries is not None and tries >= self._sender.tries:
                    self._lost += len(batch)
                    return
                self._dropped.wait(wait_s)
                wait_s = min(wait_s * _GROWTH, _LONGEST_WAIT_S)
                continue
            if self._failing:
                self._failing = False
                self._tell("recovered", lost=self._lost)
                self._lost = 0
            return


def _read_place(notes: int) -> Place | None:
    try:
        value = json.loads(os.pread(notes, 4096, 0))
        return Place(bytes.fromhex(value["head"]), int(value["offset"]))
    except (ValueError, LookupError, TypeError):
        return None


def _write_place(notes: int, place: Place) -> None:
    text = json.dumps({"head": place.head.hex(), "offset": place.offset})
    os.pwrite(notes, text.ljust(256).encode(), 0)


def main(fd: int) -> None:
    """Serve the daemon at the other end of the socket `fd` until it leaves."""
    threading.stack_size(256 * 1024)
    connection = socket.socket(fileno=fd)
    connection.set_inheritable(False)
    lock = threading.Lock()
    shipments: dict[str, Shipment] = {}

    def tell(message: dict[str, Any]) -> None:
        with lock, suppress(OSError):
            connection.sendall(json.dumps(message).encode() + b"\n")

    with connection.makefile("rb") as lines:
        for line in lines:
            message = json.loads(line)
            if message["op"] == "follow":
                job = decode_job(message["job"])
                before = shipments.get(job.info.id)
                if before is not None and before.is_alive():
                    if before.revive():
                        continue
                    before.join()  # it is only closing up
                shipments[job.info.id] = Shipment(job, tell)
                shipments[job.info.id].start()
            elif message["op"] in ("ended", "drop"):
                found = shipments.get(message["id"])
                if found is not None:
                    found.end() if message["op"] == "ended" else found.drop()
                if message["op"] == "drop":
                    shipments.pop(message["id"], None)
    os._exit(0)  # the places are written down, and threads may wait for receivers
