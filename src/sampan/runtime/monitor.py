"""The process beside each container or exec: owns its streams, its log and its end, and outlives the daemon.

Forked from the launcher for one run. It speaks to clients directly, on descriptors that the daemon hands
over, and tells every connected daemon what happens; none needs to be there. It must stay small: one lives
beside each container.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sampan.errors import SampanError
from sampan.linux import cgroups, process, syscalls, terminals
from sampan.runtime import bundle, hooks, records, wire
from sampan.runtime.bundle import ContainerSpec, ProcessSpec
from sampan.runtime.init import Refused
from sampan.runtime.jsonlog import JsonLog
from sampan.runtime.operations import Plan
from sampan.runtime.protocol import Attachment, ExitRecord, LaunchRequest
from sampan.runtime.sessions import Session, Stdin
from sampan.runtime.start import Started, Timings, start_container, start_exec
from sampan.runtime.targets import Filters, Target

_READ_BYTES = 64 * 1024
_PIPE_BYTES = 256 * 1024
_DRAIN_S = 2.0  # how long output is awaited that a foreign process holds open after the end, as Docker does
_DRAIN_BYTES = 8 << 20
_F_SETPIPE_SZ = 1031
_STREAK_GAP_NS = 1_000_000
_STREAK_READS = 16
_STREAK_PAUSE_S = 0.001


@dataclass(slots=True)
class Order:
    """A launch request and what the launcher has made of its configuration.

    Attributes:
        request: what the daemon asked for.
        spec: a container's configuration, with its process.
        plan: the steps for its root.
        filters: its compiled seccomp program and flags.
        target: the container of an exec.
    """

    request: LaunchRequest
    spec: ContainerSpec | None = None
    plan: Plan | None = None
    filters: Filters = None
    target: Target | None = None


def main(order: Order, daemon: socket.socket, fds: Sequence[int], timings: Timings) -> int:
    """Be the monitor of one run; returns the exit status of the monitor itself.

    Args:
        order: what to run.
        daemon: the connection to the daemon that asked.
        fds: the attachments' descriptors.
        timings: where the time goes, told to the daemon.
    """
    os.setsid()
    syscalls.prctl_name("sampan-monitor")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # those that end a process stay ignored, as in the launcher
    monitor = Monitor(order)
    try:
        monitor.start(daemon, fds, timings)
    except Refused as error:
        monitor.refused(daemon, error)
        return 1
    monitor.loop()
    return 0


class Monitor:
    """The streams, clients and connections of one run."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._request = order.request
        self._spec = order.spec
        self._rundir = -1  # opened when the process is made, which must not inherit a way to the host's files
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._masks: dict[int, int] = {}
        self._sessions: list[Session] = []
        self._connections: dict[int, socket.socket] = {}
        self._outputs: dict[str, int] = {}
        self._stdin: Stdin | None = None
        self._log: JsonLog | None = None
        self._listener: socket.socket | None = None
        self._terminal = False
        self._status: int | None = None
        self._deadline = 0.0
        self._finished = False
        self._last_read_ns = 0
        self._streak = 0

    # --- start ---

    def start(self, daemon: socket.socket, fds: Sequence[int], timings: Timings) -> None:
        """Start the process, listen, and tell the daemon.

        Raises:
            Refused: it could not be started; nothing is left of it.
        """
        request = self._request
        spec = self._spec
        self._terminal = request.terminal if spec is None or spec.process is None else spec.process.terminal
        stdio, ours = self._make_pipes()
        try:
            started = self._start_process(daemon, stdio, lambda pid: self._prepare(pid, ours), timings)
        finally:
            for fd in stdio:
                if fd > 2:
                    os.close(fd)
        if started.terminal is not None:
            self._own_terminal(started.terminal)
        self._pidfd = started.pidfd
        self._started_at_ns = time.time_ns()
        self._watch(self._pidfd, select.EPOLLIN, self._on_exit)
        for fd, attachment in zip(fds, request.attachments, strict=True):
            self._attach(fd, attachment)
        timings.mark("monitor set")
        warnings = started.warnings + self._run_hooks("poststart")
        self._connect(daemon, {"warnings": warnings, "timings": timings.steps})

    def refused(self, daemon: socket.socket, error: Refused) -> None:
        """Tell the daemon that nothing was started; when there is none, the next finds it in the record."""
        failure = {"event": "failed", "stage": error.stage, "text": error.text, "errno": error.number}
        if self._rundir < 0 and self._spec is not None:
            self._open_rundir()  # an exec's may not be there yet, or no longer
        if self._rundir >= 0:
            records.remove_state(self._rundir)
        try:
            wire.send(daemon, failure)
        except OSError:
            if self._rundir >= 0:
                records.write_exit(self._rundir, ExitRecord(127, time.time_ns(), error=error.text))

    def _open_rundir(self) -> None:
        self._rundir = os.open(self._request.rundir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _prepare(self, pid: int, ours: dict[str, int]) -> None:
        """Get ready while the new process does, on another processor: log, socket, streams, state."""
        self._pid = pid
        try:
            self._open_rundir()
            if self._request.log is not None:
                self._log = JsonLog(self._request.log)
            self._listen()
            self._write_state()
        except OSError as error:
            raise Refused("monitor", f"{error.strerror}: {error.filename}", error.errno or 0) from None
        if not self._terminal:
            self._own_pipes(ours)

    def _start_process(
        self,
        daemon: socket.socket,
        stdio: tuple[int, int, int],
        meanwhile: Callable[[int], None],
        timings: Timings,
    ) -> Started:
        request, order = self._request, self._order
        if order.spec is None:
            assert order.target is not None
            return start_exec(
                request.id, request.container_pid, order.target, self._load_exec, stdio,
                ready=partial(self._await_exec_file, daemon) if request.deferred else None,
                terminal_size=request.terminal_size, meanwhile=meanwhile,
            )  # fmt: skip
        return start_container(
            request.id, request.bundle, order.spec, stdio, order.filters, plan=order.plan,
            terminal_size=request.terminal_size, timings=timings, meanwhile=meanwhile,
        )  # fmt: skip

    @staticmethod
    def _await_exec_file(daemon: socket.socket) -> None:
        """Wait until the daemon has written the exec's program down."""
        if wire.receive(daemon)[0] is None:
            raise Refused("config", "the daemon gave this exec up")

    def _load_exec(self) -> ProcessSpec:
        """The exec's program."""
        try:
            return bundle.parse_process(bundle.load_json(f"{self._request.rundir}/exec.json")["process"])
        except SampanError as error:
            raise Refused("config", error.message) from None
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise Refused("config", f"exec.json: {type(error).__name__}: {error}") from None

    def _listen(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # By way of the descriptor: a socket's path may have 107 bytes only.
        self._listener.bind(f"/proc/self/fd/{self._rundir}/{records.SOCKET_NAME}")
        self._listener.listen(4)
        self._watch(self._listener.fileno(), select.EPOLLIN, self._on_connect)

    def _make_pipes(self) -> tuple[tuple[int, int, int], dict[str, int]]:
        """The process's three descriptors, and our ends by stream. Nothing is made for a terminal."""
        if self._terminal:
            return (0, 1, 2), {}
        ours: dict[str, int] = {}
        stdin = 0  # the launcher's /dev/null
        if self._request.open_stdin:
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

    def _own_terminal(self, master: int) -> None:
        if self._request.open_stdin:
            self._stdin = Stdin(os.dup(master), lambda: None)
        self._own_outputs({"stdout": master})

    def _own_pipes(self, ours: dict[str, int]) -> None:
        stdin = ours.pop("stdin", None)
        if stdin is not None:
            os.set_blocking(stdin, False)
            self._stdin = Stdin(stdin, self._close_stdin)
        self._own_outputs(ours)

    def _own_outputs(self, outputs: dict[str, int]) -> None:
        self._outputs = outputs
        for stream, fd in outputs.items():
            os.set_blocking(fd, False)
            self._watch(fd, select.EPOLLIN, partial(self._on_output, stream, fd))

    def _write_state(self) -> None:
        records.write_state(
            self._rundir,
            {
                "id": self._request.id,
                "kind": self._request.kind,
                "pid": self._pid,
                "pid_start_ticks": process.start_time_ticks(self._pid),
                "monitor_pid": os.getpid(),
            },
        )

    def _run_hooks(self, name: str) -> list[str]:
        """Run the hooks of a point where failure only deserves a warning."""
        given = self._spec.hooks.get(name) if self._spec is not None else None
        if not given or self._spec is None:
            return []
        state = {
            "ociVersion": "1.2.0", "id": self._request.id, "pid": self._pid, "bundle": self._request.bundle,
            "status": "running" if self._status is None else "stopped",
            "annotations": self._spec.annotations,
        }  # fmt: skip
        warnings = []
        for hook in given:
            try:
                hooks.run_all([hook], state)
            except OSError as error:
                warnings.append(f"{name} {error.strerror}")
        return warnings

    # --- the loop ---

    def loop(self) -> None:
        """Serve until the process has ended and every live client has got everything."""
        while not self._finished or self._sessions:
            timeout = -1.0
            if self._log is not None and self._log.busy:
                timeout = 0
                self._log.work()
            if self._status is not None and not self._finished:
                if not self._outputs or self._drained_enough():
                    self._finish()
                    continue
                timeout = max(0.0, self._deadline - time.monotonic()) if timeout < 0 else timeout
            for fd, events in self._epoll.poll(timeout):
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler(events)
            self._tend_sessions()

    def _watch(self, fd: int, mask: int, handler: Callable[[int], None]) -> None:
        self._handlers[fd] = handler
        self._masks[fd] = mask
        self._epoll.register(fd, mask)

    def _set_mask(self, fd: int, mask: int) -> None:
        if self._masks.get(fd, mask) != mask:
            self._masks[fd] = mask
            self._epoll.modify(fd, mask)

    def _unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            del self._masks[fd]
            self._epoll.unregister(fd)

    # --- output ---

    def _on_output(self, stream: str, fd: int, _: int) -> None:
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # EIO: the terminal's other end was closed
        if not data:
            self._unwatch(fd)
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

    def _tend_sessions(self) -> None:
        """Drop and close clients that are done, and stop reading a stream that a live client cannot take."""
        for session in list(self._sessions):
            if session.dead or (session.ending and not session.pending):
                self._drop(session)
            else:
                stdin_full = self._stdin is not None and len(self._stdin.pending) > 0
                if session.reads:
                    mask = 0 if stdin_full else select.EPOLLIN
                else:
                    mask = 0 if session.half_closed else select.EPOLLRDHUP
                self._set_mask(session.fd, mask | (select.EPOLLOUT if session.pending else 0))
        for stream, fd in self._outputs.items():
            blocked = self._status is None and any(
                session.pending and stream in session.wants for session in self._sessions
            )
            self._set_mask(fd, 0 if blocked else select.EPOLLIN)
        stdin = self._stdin
        if stdin is not None and not stdin.closed:
            if stdin.pending and stdin.fd not in self._handlers:
                self._watch(stdin.fd, select.EPOLLOUT, lambda _: stdin.flush())
            elif not stdin.pending:
                self._unwatch(stdin.fd)

    # --- clients ---

    def _attach(self, fd: int, attachment: Attachment) -> None:
        session = Session(fd, attachment, self._terminal)
        if session.reads and self._stdin is None:
            session.reads = False
        self._sessions.append(session)
        self._watch(
            fd, select.EPOLLIN if session.reads else select.EPOLLRDHUP,
            lambda events: self._on_client(session, events),
        )  # fmt: skip
        if session.prefix and session.reads:
            self._take_input(session, session.prefix)
        if self._finished:
            session.ending = True

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
            session.ending = True
            session.reads = False
            self._tell({"event": "detached"})

    def _end_input(self, session: Session) -> None:
        """The client's side has ended: so does stdin, if it was to be opened once; else the session."""
        session.reads = False
        session.half_closed = True
        if self._request.stdin_once and not self._terminal:
            if self._stdin is not None:
                self._stdin.end()
        else:
            session.ending = True

    def _close_stdin(self) -> None:
        if self._stdin is not None:
            self._unwatch(self._stdin.fd)
            os.close(self._stdin.fd)
            self._stdin = None

    def _drop(self, session: Session) -> None:
        if session.dead and session.reads:
            self._end_input(session)
        self._unwatch(session.fd)
        session.close()
        self._sessions.remove(session)

    # --- daemons ---

    def _on_connect(self, _: int) -> None:
        assert self._listener is not None
        connection, _address = self._listener.accept()
        self._connect(connection, {})

    def _connect(self, connection: socket.socket, extra: dict[str, Any]) -> None:
        snapshot = {
            "event": "running",
            "id": self._request.id,
            "pid": self._pid,
            "monitor_pid": os.getpid(),
            "started_at_ns": self._started_at_ns,
            "terminal": self._terminal,
            **extra,
        }
        try:
            wire.send(connection, snapshot, [self._pidfd], socket.MSG_DONTWAIT)
        except OSError:
            connection.close()
            return
        self._connections[connection.fileno()] = connection
        self._watch(connection.fileno(), select.EPOLLIN, lambda _: self._on_daemon(connection))

    def _on_daemon(self, connection: socket.socket) -> None:
        try:
            message, fds = wire.receive(connection, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            message, fds = None, []
        if message is None:
            self._unwatch(connection.fileno())
            del self._connections[connection.fileno()]
            connection.close()
            return
        error = ""
        if message["op"] == "attach":
            self._attach(fds[0], wire.decode_attachment(message["attachment"]))
        elif message["op"] == "resize":
            if self._terminal and "stdout" in self._outputs:
                terminals.set_size(self._outputs["stdout"], message["rows"], message["columns"])
            else:
                error = "there is no terminal"
        self._tell({"event": "reply", "seq": message["seq"], "error": error}, connection)

    def _tell(self, message: dict[str, Any], only: socket.socket | None = None) -> None:
        for connection in [only] if only is not None else list(self._connections.values()):
            try:
                wire.send(connection, message, (), socket.MSG_DONTWAIT)
            except OSError:
                # A daemon that does not read, or has gone; it finds the records when it comes back.
                connection.shutdown(socket.SHUT_RDWR)

    # --- the end ---

    def _on_exit(self, _: int) -> None:
        _, status = os.waitpid(self._pid, 0)
        self._unwatch(self._pidfd)
        code = os.waitstatus_to_exitcode(status)
        self._status = code if code >= 0 else 128 - code
        self._finished_at_ns = time.time_ns()
        self._deadline = time.monotonic() + _DRAIN_S
        for fd in self._outputs.values():
            self._set_mask(fd, select.EPOLLIN)

    def _drained_enough(self) -> bool:
        if time.monotonic() >= self._deadline:
            return True
        return sum(len(session.pending) for session in self._sessions) > _DRAIN_BYTES

    def _finish(self) -> None:
        assert self._status is not None
        for fd in self._outputs.values():
            self._unwatch(fd)
            os.close(fd)
        self._outputs.clear()
        if self._log is not None:
            try:
                self._log.finish(time.time_ns())
            except OSError:
                pass  # as above
            self._log = None
        record = ExitRecord(
            self._status, self._finished_at_ns, self._oom_killed(), "; ".join(self._run_hooks("poststop"))
        )
        records.write_exit(self._rundir, record)
        self._tell({"event": "exited", **wire.encode_exit(record)})
        self._finished = True
        if self._listener is not None:
            self._unwatch(self._listener.fileno())
            self._listener.close()
        for session in self._sessions:
            session.reads = False
            session.ending = True
            session.flush()
        self._tend_sessions()

    def _oom_killed(self) -> bool:
        if self._spec is None or not self._spec.cgroups_path:
            return False
        try:
            return cgroups.manager_for(self._spec.cgroups_path).oom_kills() > 0
        except (OSError, SampanError):
            return False  # the cgroup was removed under us; nothing is known

    _pid: int
    _pidfd: int
    _started_at_ns: int
    _finished_at_ns: int
