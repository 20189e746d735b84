"""A further process of a container whose runtime is a program of its own: as `exec_run`, step by step."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Sequence
from typing import Any

from sampan.linux import cgroups, syscalls
from sampan.runtime import wire
from sampan.runtime.external import Console, Runtime
from sampan.runtime.init import Refused
from sampan.runtime.loop import Loop
from sampan.runtime.protocol import ExecRequest
from sampan.runtime.run import Run


class ExternalExec(Run):
    """One exec.

    Args:
        loop: the monitor's.
        request: what to run; neither a time limit nor a reaper can be had here.
        runtime: the container's.
        daemon: the exec's own connection to the daemon that asked.
        fds: the clients'.
    """

    leaf: cgroups.Leaf | None = None

    def __init__(
        self, loop: Loop, request: ExecRequest, runtime: Runtime, daemon: socket.socket, fds: Sequence[int]
    ) -> None:
        super().__init__(
            loop, "exec", request.id, request.rundir, terminal=request.terminal,
            open_stdin=request.open_stdin, stdin_once=True,
        )  # fmt: skip
        self._request = request
        self._runtime = runtime
        self._daemon = daemon
        self._clients = list(fds)
        self._ours: dict[str, int] = {}
        self._console: Console | None = None
        self._caller = (0, -1)  # the runtime's pid and a pidfd of it, while it works

    @property
    def children(self) -> set[int]:
        """What of our children is its own."""
        return {self._pid, self._caller[0]}

    def begin(self) -> None:
        """Wait for the daemon's word that the program is written down; the rest follows from the loop."""
        self._loop.watch(self._daemon.fileno(), select.EPOLLIN, self._on_word)

    def _on_word(self, _: int) -> None:
        try:
            message, _fds = wire.receive(self._daemon, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            message = None
        self._loop.unwatch(self._daemon.fileno())
        stdio = (0, 0, 0)
        try:
            if message is None:
                raise Refused("config", "the daemon gave this exec up")
            self._write_process()
            if self._terminal:
                self._console = Console(self._path)
            else:
                stdio, self._ours = self._make_pipes()
            self._runtime.adopt_orphans(True)
            try:
                pid = self._runtime.spawn_exec(self._path, stdio, self._console)
            except BaseException:
                self._runtime.adopt_orphans(False)
                raise
            self._caller = (pid, syscalls.pidfd_open(pid))
            self._loop.watch(self._caller[1], select.EPOLLIN, self._on_made)
        except Refused as error:
            self._fail(error)
        except OSError as error:
            self._fail(Refused("monitor", error.strerror or str(error), error.errno or 0))
        finally:
            for fd in stdio:
                if fd > 2:
                    os.close(fd)

    def _write_process(self) -> None:
        with open(f"{self._path}/exec.json", "rb") as file:
            process = json.loads(file.read())["process"]
        with open(f"{self._path}/process.json", "w", encoding="utf-8") as file:
            json.dump(process, file)

    def _on_made(self, _: int) -> None:
        """The runtime has left: the process runs, or was refused."""
        pid, pidfd = self._caller
        self._loop.unwatch(pidfd)
        os.close(pidfd)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self._caller = (0, -1)
        self._runtime.adopt_orphans(False)
        try:
            self._runtime.check(self._path, "exec", status)
            made = self._runtime.collect(self._path, self._console, self._request.terminal_size)
            try:
                self._prepare(made.pid)
            except Refused:
                syscalls.pidfd_send_signal(made.pidfd, signal.SIGKILL)
                os.waitpid(made.pid, 0)
                os.close(made.pidfd)
                raise
        except Refused as error:
            self._fail(error)
            return
        self._close_console()
        clients = list(zip(self._clients, self._request.attachments, strict=True))
        self._clients = []
        self._begin(made.pidfd, made.terminal, self._ours, clients)
        self._connect(self._daemon, {})

    def _fail(self, error: Refused) -> None:
        """Leave nothing of it, and say why."""
        self._close_console()
        for fd in (*self._ours.values(), *self._clients):
            os.close(fd)
        self._ours, self._clients = {}, []
        self._refuse(self._daemon, error)
        self._daemon.close()
        self._stop_listening()
        self._finished = True

    def _close_console(self) -> None:
        if self._console is not None:
            self._console.close()
            self._console = None

    def _obey(self, message: dict[str, Any], fds: list[int]) -> str:
        if message["op"] != "signal":
            return super()._obey(message, fds)
        if self._status is not None:
            return "is not running"
        syscalls.pidfd_send_signal(self._pidfd, message["signal"])
        return ""
