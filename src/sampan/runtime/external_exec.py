"""A further process of a container whose runtime is a program of its own: as `exec_run`, step by step."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Sequence

from sampan.errors import SampanError
from sampan.linux import cgroups, syscalls
from sampan.runtime.exec_base import ExecBase
from sampan.runtime.external import Console, Runtime
from sampan.runtime.init import Refused
from sampan.runtime.loop import Loop
from sampan.runtime.protocol import PROGRAM_FD, ExecRequest


class ExternalExec(ExecBase):
    """An exec that the container's runtime makes. It has a cgroup of its own where the runtime can make one.

    Args:
        runtime: the container's.
        cgroups_path: the container's; "" for none.
        loop, request, daemon: as for `ExecBase`.
        fds: the reaper's program, if it is asked for.
    """

    def __init__(
        self,
        loop: Loop,
        request: ExecRequest,
        runtime: Runtime,
        cgroups_path: str,
        daemon: socket.socket,
        fds: Sequence[int],
    ) -> None:
        super().__init__(loop, request, daemon)
        self._reaper = fds[0] if request.reaped else -1
        self.reaped = request.reaped
        self._runtime = runtime
        self._cgroups_path = cgroups_path
        self._console: Console | None = None
        self._caller = (0, -1)  # the runtime's pid and a pidfd of it, while it works

    @property
    def children(self) -> set[int]:
        """What of our children is its own."""
        return super().children | {self._caller[0]}

    def begin(self) -> None:
        """Wait until the program is written down."""
        self._await_word()

    def _take_reaper(self) -> tuple[int, int] | None:
        """The reaper's program and where it is to report; the caller closes both. None without a reaper."""
        if self._reaper < 0:
            return None
        program, self._reaper = self._reaper, -1
        self._report, theirs = os.pipe2(os.O_CLOEXEC)
        return program, theirs

    def _make_leaf(self) -> cgroups.Leaf | None:
        """Its own cgroup, for the freezer of v1: in the unified one programs would look for limits there."""
        if not self._cgroups_path or not self._runtime.knows_cgroups():
            return None
        try:
            manager = cgroups.manager_for(self._cgroups_path)
            return cgroups.Leaf(manager, f"exec-{self.id}") if "" not in manager.paths() else None
        except (OSError, SampanError, KeyError):
            return None  # no freezer, or no more cgroups are allowed: it shares the container's

    def _written_down(self) -> None:
        self._write_process()
        stdio = (0, 0, 0)
        reaper = self._take_reaper()
        try:
            if self._terminal:
                self._console = Console(self._path)
            else:
                stdio, self._ours = self._make_pipes()
            self.leaf = self._make_leaf()
            self._runtime.adopt_orphans(True)
            try:
                pid = self._runtime.spawn_exec(self._path, stdio, self._console, reaper, self.leaf)
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
            process["args"] = [f"/proc/self/fd/{PROGRAM_FD}", "-k", "--", *process["args"]]
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

    # --- the end ---

    def _on_report(self, _: int) -> None:
        """The program has ended, and the reaper has not: others may live."""
        code = os.read(self._report, 1)
        self._loop.unwatch(self._report)
        if not code or self._status is not None or self._killed_at < float("inf") or self._timed_out:
            return  # the reaper has ended, or is about to
        if not self._others():
            return
        if self._request.ends_all:
            self._reported = code[0]
            self._kill_all()
            return
        # They live on as with Docker, and the reaper as long as they do; the exec is over.
        self._loop.unwatch(self._pidfd)
        remaining = _Remaining(self._loop, self._pid, os.dup(self._pidfd))
        self._loop.watch(remaining.pidfd, select.EPOLLIN, remaining.on_exit)
        self._outlived = True
        self._ended(code[0])

    def close(self) -> None:
        """As `Run.close`."""
        if self._reaper >= 0:
            os.close(self._reaper)
        self._reaper = -1
        super().close()


class _Remaining:
    """A reaper that has outlived its exec; the monitor collects it one day."""

    def __init__(self, loop: Loop, pid: int, pidfd: int) -> None:
        self._loop = loop
        self._pid = pid
        self.pidfd = pidfd

    def on_exit(self, _: int) -> None:
        """It has ended."""
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass  # who looks for strays has found it
        self._loop.unwatch(self.pidfd)
        os.close(self.pidfd)
