"""A further process of a container whose runtime is a program of its own: as `exec_run`, step by step."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Sequence

from sampan.linux import syscalls
from sampan.runtime.exec_base import ExecBase
from sampan.runtime.external import Console, Runtime
from sampan.runtime.init import Refused, reaper_arguments
from sampan.runtime.loop import Loop
from sampan.runtime.protocol import PROGRAM_FD, ExecRequest


class ExternalExec(ExecBase):
    """An exec that the container's runtime makes. It has no cgroup of its own.

    Args:
        runtime: the container's.
        loop, request, daemon, fds: as for `ExecBase`.
    """

    def __init__(
        self,
        loop: Loop,
        request: ExecRequest,
        runtime: Runtime,
        daemon: socket.socket,
        fds: Sequence[int],
    ) -> None:
        super().__init__(loop, request, daemon, fds)
        self._runtime = runtime
        self._console: Console | None = None
        self._caller = (0, -1)  # the runtime's pid and a pidfd of it, while it works

    @property
    def children(self) -> set[int]:
        """What of our children is its own."""
        return super().children | {self._caller[0]}

    def begin(self) -> None:
        """Wait until the program is written down."""
        self._await_word()

    def _written_down(self) -> None:
        self._write_process()
        stdio = (0, 0, 0)
        reaper = self._take_reaper()
        try:
            if self._terminal:
                self._console = Console(self._path)
            else:
                stdio, self._ours = self._make_pipes()
            self._runtime.adopt_orphans(True)
            try:
                pid = self._runtime.spawn_exec(self._path, stdio, self._console, reaper)
            except BaseException:
                self._runtime.adopt_orphans(False)
                raise
            self._caller = (pid, syscalls.pidfd_open(pid))
            self._loop.watch(self._caller[1], select.EPOLLIN, self._on_made)
        finally:
            for fd in (*stdio, *(reaper or ())):
                if fd > 2:
                    os.close(fd)

    def _write_process(self) -> None:
        with open(f"{self._path}/exec.json", "rb") as file:
            process = json.loads(file.read())["process"]
        if self._request.reaped:
            process["args"] = [f"/proc/self/fd/{PROGRAM_FD}", *reaper_arguments(process["args"])[1:]]
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
        self._serve(made.pidfd, made.terminal)

    def _fail(self, error: Refused | None) -> None:
        self._close_console()
        super()._fail(error)
        self._finished = True

    def _close_console(self) -> None:
        if self._console is not None:
            self._console.close()
            self._console = None
