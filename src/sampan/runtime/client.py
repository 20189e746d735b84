"""The daemon's side: start the launcher, ask it for processes, and talk to their monitors (asyncio)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, BinaryIO

from sampan.dataclasses import dataclass
from sampan.errors import Conflict
from sampan.helpers import PLAIN_ENVIRONMENT, Program, start_helper
from sampan.linux import process, syscalls
from sampan.runtime import records, sealed, wire
from sampan.runtime.errors import LaunchError, launch_error
from sampan.runtime.protocol import Attachment, ExecRequest, ExitRecord, LaunchRequest, LogPlace

_PROGRAM = Program("sampan.runtime.launcher", "sampan-launcher")
_MONITOR_DIED = "the container's monitor was killed"


class Launcher:
    """The process that forks monitors. It is started again when it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._lock = asyncio.Lock()
        self._complaints: BinaryIO | None = None  # an unnamed file: what a launcher that dies has to say

    async def start(self) -> None:
        """Start the launcher, if it does not run."""
        async with self._lock:
            if self._process is None or self._process.poll() is not None:
                await asyncio.to_thread(self._spawn)

    def _spawn(self) -> None:
        if self._socket is not None:
            self._socket.close()
        ours, theirs = wire.pair()
        interpreter = sealed.interpreter()
        if self._complaints is None:
            self._complaints = open(os.memfd_create("launcher"), "r+b", buffering=0)  # noqa: SIM115
        try:
            self._process = start_helper(
                _PROGRAM,
                [theirs.fileno()],
                fds=interpreter.fds,
                interpreter=(interpreter.argv0, interpreter.executable),
                environment={**PLAIN_ENVIRONMENT, **interpreter.environment},
                stderr=self._complaints,
            )
        finally:
            theirs.close()
            interpreter.close()
        ours.setblocking(False)
        self._socket = ours

    async def launch(self, request: LaunchRequest, fds: Sequence[int] = ()) -> Process:
        """Start a container.

        Args:
            request: what to start; its rundir exists.
            fds: one descriptor for each of its attachments; the caller's own stay open and are to be closed.

        Returns:
            The process, whose own program runs by now.

        Raises:
            LaunchError: it was refused; nothing is left of it but its directory.
        """
        ours, theirs = wire.pair()
        try:
            for attempt in (1, 2):
                await self.start()
                assert self._socket is not None
                try:
                    await _send(self._socket, wire.encode_request(request), [theirs.fileno(), *fds])
                    break
                except (BrokenPipeError, ConnectionResetError):
                    if attempt == 2 or self._process is None:
                        ours.close()
                        raise LaunchError(f"the launcher does not stay up{self._last_words()}") from None
                    await asyncio.to_thread(self._process.wait)
        finally:
            theirs.close()
        launched = Process(request.id, request.rundir, ours, "container")
        await launched.wait_started()
        return launched

    def _last_words(self) -> str:
        if self._complaints is None:
            return ""
        lines = os.pread(self._complaints.fileno(), 65536, 0).decode(errors="replace").splitlines()
        return f": {lines[-1]}" if lines else ""

    async def close(self) -> None:
        """End the launcher; monitors live on."""
        if self._complaints is not None:
            self._complaints.close()
            self._complaints = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)
            self._process = None


def _abandon(launched: Process, ready: asyncio.Future[None]) -> None:
    """A start that nobody waits for any more is undone."""
    if not ready.cancelled() and ready.exception() is None:
        try:
            launched.signal(signal.SIGKILL)
        except ProcessLookupError:
            pass
    launched.close()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _send(end: socket.socket, message: dict[str, Any], fds: Sequence[int]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            wire.send(end, message, fds, socket.MSG_DONTWAIT)
            return
        except BlockingIOError:
            writable: asyncio.Future[None] = loop.create_future()
            loop.add_writer(end.fileno(), _wake, writable)
            try:
                await writable
            finally:
                loop.remove_writer(end.fileno())


@dataclass(frozen=True, slots=True)
class Held:
    """A client whose stream has begun and waits for it to have what came before.

    Attributes:
        place: how far the log went at the beginning of the stream; None where there is none that tells.
    """

    place: LogPlace | None
    _holder: socket.socket

    def release(self) -> None:
        """It has that: let the stream follow."""
        with contextlib.suppress(OSError):  # the client has left, or the monitor was killed
            self._holder.send(b"go", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


class Process:
    """A running container or exec, through its monitor.

    Attributes:
        id: the container's or the exec's.
        pid: of its first process, in this pid namespace.
        monitor_pid: of its monitor.
        started_at_ns: when its program ran, nanoseconds since 1970.
        warnings: what was left out at its start, a line each.
        timings: where the start's time went, (step, seconds) each.
        holds: its monitor knows `attach_behind_log`; one that an older daemon has started does not.
        began: when the launcher took the request, by the monotonic clock; 0 where that is not known.
        on_detach: called when an attached client typed its detach keys.
    """

    def __init__(self, identifier: str, rundir: str, connection: socket.socket, kind: str) -> None:
        loop = asyncio.get_running_loop()
        self.id = identifier
        self.pid = 0
        self.monitor_pid = 0
        self.started_at_ns = 0
        self.warnings: list[str] = []
        self.timings: list[tuple[str, float]] = []
        self.began = 0.0
        self.holds = False
        self.on_detach: Callable[[], None] | None = None
        self._kind = kind
        self._rundir = rundir
        self._pidfd = -1
        self._ready: asyncio.Future[None] = loop.create_future()
        self._exit: asyncio.Future[ExitRecord] = loop.create_future()
        self._replies: dict[int, asyncio.Future[str]] = {}
        self._seq = 0
        self._loop = loop
        self._socket: socket.socket | None = connection
        connection.setblocking(False)
        loop.add_reader(connection.fileno(), self._readable)

    async def wait_started(self) -> None:
        """Wait until its own program runs. One whose start nobody waits for any more is ended again.

        Raises:
            LaunchError: it was refused; this object is closed then.
        """
        try:
            await asyncio.shield(self._ready)
        except asyncio.CancelledError:
            self._ready.add_done_callback(lambda ready: _abandon(self, ready))
            raise
        except BaseException:
            self.close()
            raise

    async def begin_exec(self, request: ExecRequest, fds: Sequence[int] = ()) -> Beginning:
        """Have one more process made in this container.

        Args:
            request: what to run.
            fds: the reaper's program, if it is asked for; the caller's own stays open.

        Raises:
            Conflict: the container has ended.
        """
        ours, theirs = wire.pair()
        try:
            message = {"op": "exec", "request": wire.encode_exec(request)}
            if self._socket is None or self._exit.done():
                raise Conflict(f"container {self.id} is not running")
            await _send(self._socket, message, [theirs.fileno(), *fds])
        except OSError:
            ours.close()
            raise Conflict(f"container {self.id} is not running") from None
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return Beginning(Process(request.id, request.rundir, ours, "exec"), ours)

    async def attach(self, fd: int, attachment: Attachment) -> None:
        """Hand a client's socket to the monitor; it speaks to the client from then on.

        Args:
            fd: the client's socket; the caller's own stays open and is to be closed.
            attachment: which streams, and how.

        Raises:
            Conflict: the process has ended.
        """
        await self._ask({"op": "attach", "attachment": wire.encode_attachment(attachment)}, [fd])

    @contextlib.asynccontextmanager
    async def attach_behind_log(self, fd: int, attachment: Attachment) -> AsyncIterator[Held]:
        """As `attach`, for a client that is to have the log before; it has a gap, and ends, if not released.

        Raises:
            Conflict: the process has ended.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                message = {"op": "attach", "attachment": wire.encode_attachment(attachment), "held": True}
                await self._ask(message, [fd, theirs.fileno()])
            told, _ = wire.receive(ours, socket.MSG_DONTWAIT)  # it was sent before the answer
            yield Held(wire.decode_place(told["place"]) if told is not None else None, ours)

    async def resize(self, rows: int, columns: int) -> None:
        """Give the terminal a size in characters.

        Raises:
            Conflict: the process has ended, or has no terminal.
        """
        await self._ask({"op": "resize", "rows": rows, "columns": columns})

    async def kill(self, signum: int) -> None:
        """Send a signal by way of the monitor: SIGKILL ends an exec with all that it started.

        Raises:
            Conflict: it has ended.
        """
        await self._ask({"op": "signal", "signal": signum})

    def signal(self, signum: int) -> None:
        """Send a signal to the process itself.

        Raises:
            ProcessLookupError: it has ended.
        """
        if self._pidfd < 0:
            raise ProcessLookupError(f"{self.id} has ended")
        syscalls.pidfd_send_signal(self._pidfd, signum)

    async def wait(self) -> ExitRecord:
        """How the process ended, once it has; any number of callers may wait."""
        return await asyncio.shield(self._exit)

    @property
    def pidfd(self) -> int:
        """A pidfd of the process, which stays this object's; negative once that is closed."""
        return self._pidfd

    @property
    def alive(self) -> bool:
        """Whether the kernel still has the process; its record follows its end by a moment."""
        if self._pidfd < 0:
            return False
        poll = select.poll()  # not select(2), which knows no descriptor above 1023
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    @property
    def served(self) -> bool:
        """Whether its monitor lives and has told of no end; a record follows where it does not."""
        return not self._exit.done() and not process.is_exiting(self.monitor_pid)

    @property
    def exited(self) -> bool:
        """Whether the end has been seen."""
        return self._exit.done()

    def look(self) -> None:
        """Take in at once what the monitor has said, or that it has gone."""
        self._readable()

    def close(self) -> None:
        """Let go of the monitor; the process is not touched. Those who still wait are cancelled."""
        self._disconnect()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        self._exit.cancel()

    async def _ask(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        if self._socket is None or self._exit.done():
            raise Conflict(f"{self._kind} {self.id} is not running")
        self._seq += 1
        reply: asyncio.Future[str] = self._loop.create_future()
        self._replies[self._seq] = reply
        try:
            await _send(self._socket, {**message, "seq": self._seq}, fds)
        except OSError:
            del self._replies[self._seq]
            raise Conflict(f"{self._kind} {self.id} is not running") from None
        error = await reply
        if error:
            raise Conflict(f"{self._kind} {self.id}: {error}")

    def _readable(self) -> None:
        while self._socket is not None:
            try:
                message, fds = wire.receive(self._socket)
            except BlockingIOError:
                return
            except OSError:
                message, fds = None, []
            if message is None:
                self._lost()
                return
            self._handle(message, fds)

    def _handle(self, message: dict[str, Any], fds: list[int]) -> None:
        event = message["event"]
        if event == "running":
            self.pid, self.monitor_pid = message["pid"], message["monitor_pid"]
            self.started_at_ns = message["started_at_ns"]
            self.warnings = message.get("warnings", [])
            self.timings = [(name, seconds) for name, seconds in message.get("timings", [])]
            self.began = message.get("began", 0.0)
            self.holds = message.get("holds", False)
            self._pidfd = fds[0]
            if not self._ready.done():
                self._ready.set_result(None)
        elif event == "failed":
            error = launch_error(self._kind, message["stage"], message["text"], message["errno"])
            if not self._ready.done():
                self._ready.set_exception(error)
        elif event == "exited":
            self._set_exit(wire.decode_exit(message))
        elif event == "reply":
            reply = self._replies.pop(message["seq"], None)
            if reply is not None and not reply.done():
                reply.set_result(message["error"])
        elif event == "detached" and self.on_detach is not None:
            self.on_detach()

    def _set_exit(self, record: ExitRecord) -> None:
        if not self._exit.done():
            self._exit.set_result(record)
        for reply in self._replies.values():
            if not reply.done():
                reply.set_result("is not running")
        self._replies.clear()

    def _lost(self) -> None:
        """The monitor has closed: it left after the end, it failed to start anything, or it was killed."""
        self._disconnect()
        if not self._ready.done():
            text = "the monitor died while it started the process"
            self._ready.set_exception(launch_error(self._kind, "monitor", text, 0))
        elif not self._exit.done() and self._ready.exception() is None:
            record = records.read_exit(self._rundir)
            if record is None:
                try:
                    self.signal(signal.SIGKILL)
                except ProcessLookupError:
                    pass
                record = _record_lost(self._rundir)
            self._set_exit(record)

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None


def _record_lost(rundir: str) -> ExitRecord:
    record = ExitRecord(137, time.time_ns(), error=_MONITOR_DIED)
    try:
        directory = os.open(rundir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return record
    try:
        records.write_exit(directory, record)
    finally:
        os.close(directory)
    return record


class Beginning:
    """An exec whose process is being made, or waits for the word to go on.

    Args:
        process: what it is to be.
        connection: to the monitor; the process's.
    """

    def __init__(self, process: Process, connection: socket.socket) -> None:
        self._process = process
        self._connection = connection

    async def go(self, attachments: Sequence[Attachment], fds: Sequence[int]) -> Process:
        """Let it go on, as `exec.json` is written by now.

        Args:
            attachments: the clients.
            fds: one for each of them; the caller's own stay open and are to be closed.

        Returns:
            The process, whose own program runs by now.

        Raises:
            LaunchError: it was refused; nothing is left of it but its directory.
        """
        word = {"op": "written", "attachments": [wire.encode_attachment(one) for one in attachments]}
        try:
            await _send(self._connection, word, fds)
        except OSError:
            pass  # the monitor has failed already, and said why
        except BaseException:
            self._process.close()
            raise
        await self._process.wait_started()
        return self._process

    async def drop(self) -> None:
        """Nothing is to come of it: end its process, and wait for that, be its container paused."""
        try:
            await _send(self._connection, {"op": "drop"}, [])
            await self._process.wait_started()
        except (OSError, LaunchError):
            pass  # it has failed, or is gone now, or its container has ended
        finally:
            self._process.close()


async def adopt(rundir: str) -> Process | ExitRecord | None:
    """Find a run that an earlier daemon started.

    Args:
        rundir: its directory.

    Returns:
        The process if it lives, its record if it has ended (killing what is left if its monitor was killed),
        None if it never started.
    """
    try:
        directory = os.open(rundir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    wire.widen(connection)
    try:
        # A listening queue that is full answers EAGAIN without a wait, so this may block.
        await asyncio.to_thread(connection.connect, f"/proc/self/fd/{directory}/{records.SOCKET_NAME}")
    except OSError:
        connection.close()
        return await _find_record(rundir)
    finally:
        os.close(directory)
    found = Process("", rundir, connection, "container")
    try:
        await asyncio.shield(found._ready)
    except LaunchError:
        found.close()
        return await _find_record(rundir)
    state = records.read_state(rundir)
    if state is not None:
        found.id, found._kind = state["id"], state["kind"]
    return found


async def _find_record(rundir: str) -> ExitRecord | None:
    state = records.read_state(rundir)
    for _ in range(20):
        record = records.read_exit(rundir)
        if record is not None:
            return record
        state = state or records.read_state(rundir)
        if state is None:
            return None
        if process.start_time_ticks(state["monitor_pid"]) is None:
            break
        await asyncio.sleep(0.05)  # it stopped listening and is about to write
    record = records.read_exit(rundir)
    if record is not None:
        return record
    if state is None:
        return None
    process.kill_noted(state["pid"], state["pid_start_ticks"])
    return _record_lost(rundir)
