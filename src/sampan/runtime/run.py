"""One process as its monitor serves it: streams, log, clients, the daemons that follow it, its end."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from sampan.linux import process, terminals
from sampan.runtime import records, wire
from sampan.runtime.asidelog import AsideLog
from sampan.runtime.init import Refused
from sampan.runtime.logfile import LogFile
from sampan.runtime.loop import Loop
from sampan.runtime.protocol import Attachment, ExitRecord
from sampan.runtime.sessions import Session, Stdin

_READ_BYTES = 64 * 1024
_PIPE_BYTES = 256 * 1024
_DRAIN_S = 2.0  # how long output is awaited that a foreign process holds open after the end, as Docker does
_DRAIN_BYTES = 8 << 20
_F_SETPIPE_SZ = 1031
_HEAD_PAUSE_S = 0.001
_STREAK_GAP_NS = 1_000_000
_STREAK_READS = 16
_STREAK_PAUSE_S = 0.001


class Run:
    """One process, from before its start to the last byte to the last client.

    Args:
        loop: whose turns drive it.
        kind: "container" or "exec".
        identifier: the container's or the exec's id.
        rundir: the run's own directory, for `monitor.sock`, `state.json` and `exit.json`.
        terminal: whether the process has one.
        open_stdin: whether there is a pipe to its stdin.
        stdin_once: whether stdin closes with the first client's side.
        kept_in: a directory on whose file system output is kept for clients that do not take it; "" for none.
    """

    def __init__(
        self,
        loop: Loop,
        kind: str,
        identifier: str,
        rundir: str,
        *,
        terminal: bool,
        open_stdin: bool,
        stdin_once: bool,
        kept_in: str = "",
    ) -> None:
        self._loop = loop
        self._kind = kind
        self.id = identifier
        self._path = rundir
        self._rundir = -1  # opened when the process is made, which must not inherit a way to the host's files
        self._terminal = terminal
        self._open_stdin = open_stdin
        self._stdin_once = stdin_once
        self._kept_in = kept_in
        self._sessions: list[Session] = []
        self._holders: dict[Session, socket.socket] = {}  # of those that are held
        self._connections: dict[int, socket.socket] = {}
        self._outputs: dict[str, int] = {}
        self._stdin: Stdin | None = None
        self._log: LogFile | AsideLog | None = None
        self._listener: socket.socket | None = None
        self._pid = 0
        self._pidfd = -1
        self._status: int | None = None
        self._outlived = False  # the process is over, though not for who looks at its pidfd
        self._started_at_ns = 0
        self._finished_at_ns = 0
        self._deadline = 0.0
        self._finished = False
        self._last_read_ns = 0
        self._streak = 0

    # --- the start ---

    def _make_pipes(self) -> tuple[tuple[int, int, int], dict[str, int]]:
        """The process's three descriptors, and our ends by stream. Nothing is made for a terminal."""
        if self._terminal:
            return (0, 1, 2), {}
        ours: dict[str, int] = {}
        stdin = 0  # the launcher's /dev/null
        if self._open_stdin:
            stdin, ours["stdin"] = os.pipe2(os.O_CLOEXEC)
        outputs = []
        for stream in ("stdout", "stderr"):
            ours[stream], theirs = os.pipe2(os.O_CLOEXEC)
            outputs.append(theirs)
            try:
                fcntl.fcntl(theirs, _F_SETPIPE_SZ, _PIPE_BYTES)
            except PermissionError:
                pass  # the user's pipes have reached pipe-user-pages-soft: the small size does
        return (stdin, outputs[0], outputs[1]), ours

    def _prepare(self, pid: int) -> None:
        """Get ready while the new process does, on another processor: directory, socket, state.

        Raises:
            Refused: the run's directory does not take them.
        """
        self._pid = pid
        try:
            self._open_rundir()
            self._listen()
            self._write_state()
        except OSError as error:
            raise Refused("monitor", f"{error.strerror}: {error.filename}", error.errno or 0) from None

    def _open_rundir(self) -> None:
        self._rundir = os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _listen(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # By way of the descriptor: a socket's path may have 107 bytes only.
        self._listener.bind(f"/proc/self/fd/{self._rundir}/{records.SOCKET_NAME}")
        self._listener.listen(4)
        self._loop.watch(self._listener.fileno(), select.EPOLLIN, self._on_connect)

    def _write_state(self) -> None:
        records.write_state(
            self._rundir,
            {
                "id": self.id,
                "kind": self._kind,
                "pid": self._pid,
                "pid_start_ticks": process.start_time_ticks(self._pid),
                "monitor_pid": os.getpid(),
            },
        )

    def _begin(
        self,
        pidfd: int,
        terminal: int | None,
        ours: dict[str, int],
        clients: Sequence[tuple[int, Attachment]],
    ) -> None:
        """The program runs: serve its clients from the first byte on.

        Args:
            pidfd: of the process.
            terminal: its terminal's master, if it has one.
            ours: our ends of its pipes, if it has none.
            clients: attached beforehand, by descriptor.
        """
        self._pidfd = pidfd
        self._started_at_ns = time.time_ns()
        if terminal is not None:
            if self._open_stdin:
                self._stdin = Stdin(os.dup(terminal), lambda: None)
            ours = {"stdout": terminal}
        stdin = ours.pop("stdin", None)
        if stdin is not None:
            os.set_blocking(stdin, False)
            self._stdin = Stdin(stdin, self._close_stdin)
        self._outputs = ours
        for stream, fd in ours.items():
            os.set_blocking(fd, False)
            self._loop.watch(fd, select.EPOLLIN, partial(self._on_output, stream, fd))
        self._loop.watch(self._pidfd, select.EPOLLIN, self._on_exit)
        for fd, attachment in clients:
            self._attach(fd, attachment, patient=True)

    def _refuse(self, daemon: socket.socket, error: Refused) -> None:
        """Tell the daemon that nothing was started; when there is none, the next finds it in the record."""
        failure = {"event": "failed", "stage": error.stage, "text": error.text, "errno": error.number}
        if self._rundir < 0:
            try:
                self._open_rundir()
            except FileNotFoundError:
                pass  # an exec's may not be there yet, or no longer
        if self._rundir >= 0:
            records.remove_state(self._rundir)
        try:
            wire.send(daemon, failure, (), socket.MSG_DONTWAIT)
        except OSError:
            if self._rundir >= 0:
                try:
                    records.write_exit(self._rundir, ExitRecord(127, time.time_ns(), error=error.text))
                except OSError:
                    pass  # the directory has been removed: nobody will look for it

    # --- the loop ---

    @property
    def over(self) -> bool:
        """Whether the process has ended and every live client has got everything."""
        return self._finished and not self._sessions

    def work(self) -> float:
        """Do what is due before the loop's next turn; seconds until more is, negative for nothing."""
        timeout = -1.0
        if self._log is not None and self._log.busy:
            timeout = self._log.pause_s
            self._log.work()
        for session in self._sessions:
            if session.pending and not session.held and session.waits():
                timeout = _HEAD_PAUSE_S
                continue
            due = session.tend()
            if session.dead:
                timeout = 0
            elif due > 0:
                timeout = due if timeout < 0 else min(timeout, due)
        if self._status is not None and not self._finished:
            if not self._outputs or self._drained_enough():
                self._finish()
                return 0
            left = max(0.0, self._deadline - time.monotonic())
            timeout = left if timeout < 0 else min(timeout, left)
        return timeout

    # --- output ---

    def _on_output(self, stream: str, fd: int, _: int) -> None:
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # EIO: the terminal's other end was closed
        if not data:
            self._loop.unwatch(fd)
            os.close(fd)
            del self._outputs[stream]
            return
        now = time.time_ns()
        if self._log is not None:
            try:
                self._log.write(stream, data, now)
            except OSError:
                pass  # the disk is full, or the file's directory gone: this is lost, the container goes on
        for session in self._sessions:
            session.send(stream, data)
        # A stream of single lines would cost a wake-up each: let them gather while it lasts.
        if len(data) < 4096 and now - self._last_read_ns < _STREAK_GAP_NS + int(_STREAK_PAUSE_S * 1e9):
            self._streak += 1
            if self._streak > _STREAK_READS and self._status is None:
                time.sleep(_STREAK_PAUSE_S)
        else:
            self._streak = 0
        self._last_read_ns = now

    def tend(self) -> None:
        """Drop and close clients that are done, and stop reading a stream that has to wait for one."""
        for session in list(self._sessions):
            if session.dead or (session.ending and not session.pending and not session.held):
                self._drop(session)
            else:
                sendable = session.pending and not session.waits()
                stdin_full = self._stdin is not None and len(self._stdin.pending) > 0
                if session.reads:
                    mask = 0 if stdin_full else select.EPOLLIN
                else:
                    mask = 0 if session.half_closed else select.EPOLLRDHUP
                self._loop.set_mask(session.fd, mask | (select.EPOLLOUT if sendable else 0))
        for stream, fd in self._outputs.items():
            blocked = self._status is None and any(
                stream in session.wants and session.holds() for session in self._sessions
            )
            self._loop.set_mask(fd, 0 if blocked else select.EPOLLIN)
        stdin = self._stdin
        if stdin is not None and not stdin.closed:
            if stdin.pending and stdin.fd not in self._loop:
                self._loop.watch(stdin.fd, select.EPOLLOUT, lambda _: stdin.flush())
            elif not stdin.pending:
                self._loop.unwatch(stdin.fd)

    # --- clients ---

    def _attach(self, fd: int, attachment: Attachment, patient: bool = False, held: bool = False) -> Session:
        session = Session(fd, attachment, self._terminal, patient, self._kept_in, held)
        if session.reads and self._stdin is None:
            session.reads = False
        self._sessions.append(session)
        self._loop.watch(
            fd, select.EPOLLIN if session.reads else select.EPOLLRDHUP,
            lambda events: self._on_client(session, events),
        )  # fmt: skip
        if session.prefix and session.reads:
            self._take_input(session, session.prefix)
        if self._finished:
            session.ending = True
        return session

    def _attach_behind_log(self, fd: int, attachment: Attachment, holder: socket.socket) -> None:
        """Serve a client from here on, but only once it has what the log has had before.

        Args:
            holder: to who gives it that. It is told how far the log goes, and says when that is done; when it
                ends without, so does the session, which would have a gap.
        """
        session = self._attach(fd, attachment, held=True)
        place = None
        if isinstance(self._log, LogFile):
            place = self._log.place()
            for stream, rest in self._log.unfinished.items():
                if rest and place is not None:
                    session.send(stream, rest)
        self._holders[session] = holder
        self._loop.watch(holder.fileno(), select.EPOLLIN, lambda _: self._on_holder(session, holder))
        wire.send(holder, {"place": wire.encode_place(place)}, (), socket.MSG_DONTWAIT)

    def _on_holder(self, session: Session, holder: socket.socket) -> None:
        try:
            released = bool(holder.recv(16, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return
        except OSError:
            released = False
        self._forget_holder(session)
        if released:
            session.release()
        else:
            session.dead = True

    def _forget_holder(self, session: Session) -> None:
        holder = self._holders.pop(session, None)
        if holder is not None:
            self._loop.unwatch(holder.fileno())
            holder.close()

    def _on_client(self, session: Session, events: int) -> None:
        if events & select.EPOLLOUT:
            session.flush()
        if events & select.EPOLLIN and session.reads:
            data = session.receive()
            if data:
                self._take_input(session, data)
            elif data is not None:
                self._end_input(session)
        if events & (select.EPOLLHUP | select.EPOLLERR) and not events & select.EPOLLIN:
            if session.reads:
                self._end_input(session)
            session.dead = True
        elif events & select.EPOLLRDHUP and not session.reads:
            session.half_closed = True

    def _take_input(self, session: Session, data: bytes) -> None:
        data, detached = session.scanner.feed(data)
        if self._stdin is not None and data:
            self._stdin.write(data)
        if detached:
            session.detach()
            self._tell({"event": "detached"})

    def _end_input(self, session: Session) -> None:
        """The client's side has ended: so does stdin, if it was to be opened once; else the session."""
        session.reads = False
        session.half_closed = True
        if self._stdin_once and not self._terminal:
            if self._stdin is not None:
                self._stdin.end()
        else:
            session.ending = True

    def _close_stdin(self) -> None:
        if self._stdin is not None:
            self._loop.unwatch(self._stdin.fd)
            os.close(self._stdin.fd)
            self._stdin = None

    def _drop(self, session: Session) -> None:
        if session.dead and session.reads:
            self._end_input(session)
        self._loop.unwatch(session.fd)
        self._forget_holder(session)
        session.close()
        self._sessions.remove(session)

    # --- daemons ---

    def _on_connect(self, _: int) -> None:
        assert self._listener is not None
        try:
            connection, _address = self._listener.accept()
        except OSError:
            return  # it has left again, or there is no descriptor for it now
        self._connect(connection, {})

    def _connect(self, connection: socket.socket, extra: dict[str, Any]) -> None:
        snapshot = {
            "event": "running",
            "id": self.id,
            "pid": self._pid,
            "monitor_pid": os.getpid(),
            "started_at_ns": self._started_at_ns,
            "terminal": self._terminal,
            "holds": True,
            **extra,
        }
        try:
            wire.send(connection, snapshot, [self._pidfd], socket.MSG_DONTWAIT)
        except OSError:
            connection.close()
            return
        self._connections[connection.fileno()] = connection
        self._loop.watch(connection.fileno(), select.EPOLLIN, lambda _: self._on_daemon(connection))

    def _on_daemon(self, connection: socket.socket) -> None:
        try:
            message, fds = wire.receive(connection, socket.MSG_DONTWAIT)
        except (BlockingIOError, wire.CutShort):
            return
        except OSError:
            message, fds = None, []
        if message is None:
            self._disconnect(connection)
            return
        try:
            error = self._obey(message, fds)
        except OSError as failure:
            error = failure.strerror or str(failure)
        if "seq" in message:
            self._tell({"event": "reply", "seq": message["seq"], "error": error}, connection)

    def _obey(self, message: dict[str, Any], fds: list[int]) -> str:
        """Do as a daemon says; what is wrong with it, or "".

        Raises:
            OSError: the kernel refused.
        """
        operation = message["op"]
        if operation == "attach":
            attachment = wire.decode_attachment(message["attachment"])
            if message.get("held"):
                self._attach_behind_log(fds[0], attachment, socket.socket(fileno=fds[1]))
            else:
                self._attach(fds[0], attachment)
            return ""
        if operation == "resize":
            if not self._terminal or "stdout" not in self._outputs:
                return "there is no terminal"
            terminals.set_size(self._outputs["stdout"], message["rows"], message["columns"])
            return ""
        return f"this monitor knows no {operation!r}"

    def _tell(self, message: dict[str, Any], only: socket.socket | None = None) -> None:
        for connection in [only] if only is not None else list(self._connections.values()):
            try:
                wire.send(connection, message, (), socket.MSG_DONTWAIT)
            except OSError:
                # A daemon that does not read, or has gone; it finds the records when it comes back.
                connection.shutdown(socket.SHUT_RDWR)

    def _disconnect(self, connection: socket.socket) -> None:
        self._loop.unwatch(connection.fileno())
        del self._connections[connection.fileno()]
        connection.close()

    # --- the end ---

    def _on_exit(self, _: int) -> None:
        _, status = os.waitpid(self._pid, 0)
        self._loop.unwatch(self._pidfd)
        code = os.waitstatus_to_exitcode(status)
        self._ended(code if code >= 0 else 128 - code)

    def _ended(self, status: int) -> None:
        """The process is over: what is left is output on its way."""
        self._status = status
        self._finished_at_ns = time.time_ns()
        self._deadline = time.monotonic() + _DRAIN_S
        for fd in self._outputs.values():
            self._loop.set_mask(fd, select.EPOLLIN)

    def _record(self, status: int, finished_at_ns: int) -> ExitRecord:
        """How it ended, from its status."""
        return ExitRecord(status, finished_at_ns)

    def _drained_enough(self) -> bool:
        if time.monotonic() >= self._deadline:
            return True
        return sum(session.memory_bytes for session in self._sessions) > _DRAIN_BYTES

    def _finish(self) -> None:
        assert self._status is not None
        for fd in self._outputs.values():
            self._loop.unwatch(fd)
            os.close(fd)
        self._outputs.clear()
        if self._log is not None:
            try:
                self._log.finish(time.time_ns())
            except OSError:
                pass  # as above
            self._log = None
        # A client learns of the end by its stream and asks the daemon next, which waits for our word when it
        # sees that the process is gone: so both are on their way at once. What it cannot see is told first.
        self._stop_listening()
        if self._outlived:
            self._tell_end(self._status)
            self._end_sessions()
        else:
            self._end_sessions()
            self._tell_end(self._status)
        self._finished = True

    def _end_sessions(self) -> None:
        for session in self._sessions:
            session.reads = False
            session.ending = True
            session.flush()
        self.tend()

    def _tell_end(self, status: int) -> None:
        record = self._record(status, self._finished_at_ns)
        try:
            records.write_exit(self._rundir, record)
        except OSError:
            pass  # no room, or the directory is gone: a daemon that is there hears of it all the same
        self._tell({"event": "exited", **wire.encode_exit(record)})

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.unwatch(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def close(self) -> None:
        """Let go of what is still open, after all is over."""
        self._close_stdin()
        self._stop_listening()
        for connection in list(self._connections.values()):
            self._disconnect(connection)
        for fd in (self._pidfd, self._rundir):
            if fd >= 0:
                os.close(fd)
        self._pidfd = self._rundir = -1
