"""The process beside each container: serves it and its execs, and outlives the daemon.

Forked from the launcher for one container. It speaks to clients directly, on descriptors that the daemon
hands over, and tells every connected daemon what happens; none needs to be there. It must stay small: one
lives beside each container.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Sequence
from typing import Any

from sampan.dataclasses import dataclass
from sampan.errors import SampanError
from sampan.linux import cgroups, syscalls
from sampan.runtime import hooks, wire
from sampan.runtime.bundle import ContainerSpec
from sampan.runtime.containerlog import open_log
from sampan.runtime.exec_base import ExecBase
from sampan.runtime.exec_run import ExecRun
from sampan.runtime.external import Runtime
from sampan.runtime.external_exec import ExternalExec
from sampan.runtime.init import Refused
from sampan.runtime.joining import open_tasks
from sampan.runtime.loop import Loop
from sampan.runtime.operations import Plan
from sampan.runtime.protocol import ExitRecord, LaunchRequest
from sampan.runtime.run import Run
from sampan.runtime.start import Timings, start_container
from sampan.runtime.strays import reap_strays, wake_at_children
from sampan.runtime.targets import Filters, Target, make_target

_EXECS_BETWEEN_COLLECTIONS = 32


@dataclass(slots=True)
class Order:
    """A launch request and what the launcher has made of its configuration.

    Attributes:
        request: what the daemon asked for.
        spec: the container's configuration, with its process.
        plan: the steps for its root; None with an external runtime.
        filters: its compiled seccomp program and flags.
    """

    request: LaunchRequest
    spec: ContainerSpec
    plan: Plan | None = None
    filters: Filters = None


def main(order: Order, daemon: socket.socket, fds: Sequence[int], timings: Timings) -> int:
    """Be the monitor of one container; returns the exit status of the monitor itself.

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
    if not monitor.start(daemon, fds, timings):
        return 1
    monitor.serve()
    return 0


class Monitor(Run):
    """The container's own first process, and the execs beside it.

    Args:
        order: what to run.
    """

    def __init__(self, order: Order) -> None:
        request, spec = order.request, order.spec
        super().__init__(
            Loop(), "container", request.id, request.rundir,
            terminal=spec.process is not None and spec.process.terminal,
            open_stdin=request.open_stdin, stdin_once=request.stdin_once,
            # Whoever wants nothing of the output on the disk has it nowhere.
            kept_in=os.path.dirname(request.log.path) if request.log is not None else "",
        )  # fmt: skip
        self._order = order
        self._spec = spec
        self._runtime = Runtime(request.runtime, request.id, request.rundir) if request.runtime else None
        self._has_strays = self._runtime is not None
        if self._has_strays:
            wake_at_children(self._loop)
        self._execs: list[ExecBase] = []
        self._lasting: list[ExecBase] = []  # over, but for the reapers of what they have left running
        self._leaves: list[cgroups.Leaf] = []
        self._uncollected = 0
        self._where: Target | None = None  # for execs; made by the first, kept for those to come

    # --- the start ---

    def start(self, daemon: socket.socket, fds: Sequence[int], timings: Timings) -> bool:
        """Start the process, listen, and tell the daemon; False when it was refused and nothing is left."""
        request = self._order.request
        stdio, ours = self._make_pipes()
        try:
            if self._runtime is not None:
                started = self._runtime.start_container(
                    request.bundle, stdio, self._terminal, request.terminal_size, self._prepare
                )
            else:
                started = start_container(
                    request.id, request.bundle, self._spec, stdio, self._order.filters, plan=self._order.plan,
                    terminal_size=request.terminal_size, timings=timings, meanwhile=self._prepare,
                )  # fmt: skip
        except Refused as error:
            self._refuse(daemon, error)
            return False
        finally:
            for fd in stdio:
                if fd > 2:
                    os.close(fd)
        self._begin(started.pidfd, started.terminal, ours, list(zip(fds, request.attachments, strict=True)))
        timings.mark("monitor set")
        warnings = started.warnings + self._run_hooks("poststart")
        self._connect(daemon, {"warnings": warnings, "timings": timings.steps, "began": timings.began})
        return True

    def _prepare(self, pid: int) -> None:
        super()._prepare(pid)
        log = self._order.request.log
        if log is not None:
            try:
                self._log = open_log(log)
            except OSError as error:
                raise Refused("monitor", f"{error.strerror}: {error.filename}", error.errno or 0) from None

    def _run_hooks(self, name: str) -> list[str]:
        """Run the hooks of a point where failure only deserves a warning."""
        if self._runtime is not None:
            return []  # it runs them
        state = {
            "ociVersion": "1.2.0", "id": self.id, "pid": self._pid, "bundle": self._order.request.bundle,
            "status": "running" if self._status is None else "stopped",
            "annotations": self._spec.annotations,
        }  # fmt: skip
        warnings = []
        for hook in self._spec.hooks.get(name) or ():
            try:
                hooks.run_all([hook], state)
            except OSError as error:
                warnings.append(f"{name} {error.strerror}")
        return warnings

    # --- the loop ---

    def serve(self) -> None:
        """Serve until the container and its execs have ended and every live client has got everything."""
        while not self.over or self._execs:
            timeout = self.work()
            for run in self._execs:
                due = run.work()
                if due >= 0:
                    timeout = due if timeout < 0 else min(timeout, due)
            self._loop.turn(timeout)
            self.tend()
            if self._execs:
                self._tend_execs()
            if self._lasting:
                self._release_execs()
            if self._has_strays:
                self._reap_strays()

    def _tend_execs(self) -> None:
        for run in list(self._execs):
            run.tend()
            if run.strayed and not self._has_strays:
                self._has_strays = True
                wake_at_children(self._loop)
            if run.over:
                self._execs.remove(run)
                self._lasting.append(run)
                run.close()
                self._uncollected += 1
        if self._uncollected >= _EXECS_BETWEEN_COLLECTIONS and not self._execs:
            self._uncollected = 0
            gc.collect()

    def _release_execs(self) -> None:
        released = [run for run in self._lasting if run.release()]
        for run in released:
            self._lasting.remove(run)
            if run.leaf is not None:
                # What it started may live on in there: then it is tried again after the next exec.
                leaves = [*self._leaves, run.leaf]
                self._leaves = [leaf for leaf in leaves if not _removed(leaf)]

    # --- execs ---

    def _obey(self, message: dict[str, Any], fds: list[int]) -> str:
        if message["op"] != "exec":
            return super()._obey(message, fds)
        if self._status is not None:
            for fd in fds:
                os.close(fd)
            return "is not running"
        daemon = socket.socket(fileno=fds[0])
        request = wire.decode_exec(message["request"])
        run: ExecBase
        if self._runtime is not None:
            run = ExternalExec(self._loop, request, self._runtime, self._spec.cgroups_path, daemon, fds[1:])
        else:
            if self._where is None:
                tasks = open_tasks(self._spec.cgroups_path)
                self._where = make_target(self._spec, self._order.filters, tasks)
            run = ExecRun(self._loop, request, self._pid, self._where, daemon, fds[1:])
        self._execs.append(run)
        run.begin()
        return ""

    def _reap_strays(self) -> None:
        if (self._runtime is not None and self._runtime.busy) or any(run.expecting for run in self._execs):
            return
        ours = {self._pid} if self._status is None else set()
        for run in (*self._execs, *self._lasting):
            ours |= run.children
        reap_strays(ours)

    # --- the end ---

    def _record(self, status: int, finished_at_ns: int) -> ExitRecord:
        oom_killed = self._oom_killed()
        left = self._runtime.delete() if self._runtime is not None else "; ".join(self._run_hooks("poststop"))
        return ExitRecord(status, finished_at_ns, oom_killed, left)

    def _oom_killed(self) -> bool:
        if not self._spec.cgroups_path:
            return False
        try:
            return cgroups.manager_for(self._spec.cgroups_path).oom_kills() > 0
        except (OSError, SampanError):
            return False  # the cgroup was removed under us; nothing is known


def _removed(leaf: cgroups.Leaf) -> bool:
    try:
        return leaf.remove()
    except OSError:
        return True  # the container's cgroup is gone, and all below it
