"""A further process of a container in the container's own monitor: made, started, and ended, step by step.

Nothing here waits: a program on a dead network file system must not keep the container's output waiting.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Sequence

from sampan.errors import SampanError
from sampan.linux import cgroups, syscalls
from sampan.runtime import bundle
from sampan.runtime.bundle import ProcessSpec
from sampan.runtime.exec_base import ExecBase
from sampan.runtime.init import Refused
from sampan.runtime.joining import begin_exec
from sampan.runtime.loop import Loop
from sampan.runtime.newborn import Newborn
from sampan.runtime.protocol import ExecRequest, ExitRecord
from sampan.runtime.targets import Target

TIMED_OUT = 124  # the exit code, as timeout(1) has it
_REAPING_S = 2.0  # how long the reaper may take once all the others were killed


class ExecRun(ExecBase):
    """An exec that we make ourselves.

    Args:
        container_pid: the container's first process.
        where: what to join.
        fds: the reaper's program, if it is asked for.
        loop, request, daemon: as for `ExecBase`.
    """

    def __init__(
        self,
        loop: Loop,
        request: ExecRequest,
        container_pid: int,
        where: Target,
        daemon: socket.socket,
        fds: Sequence[int],
    ) -> None:
        super().__init__(loop, request, daemon)
        self._container_pid = container_pid
        self._where = where
        self._reaper = fds[0] if request.reaped else None
        self._report = -1  # where the reaper tells the program's exit code
        self._reported: int | None = None
        self._newborn: Newborn | None = None
        self._written = False
        self._ends_at = float("inf")
        self._killed_at = float("inf")
        self._timed_out = False

    @property
    def children(self) -> set[int]:
        """What of our children is its own."""
        return super().children | ({self._newborn.pid} if self._newborn is not None else set())

    @property
    def expecting(self) -> bool:
        """Whether a child may be there already that it has not heard of yet."""
        return self._newborn is not None and self._newborn.unborn

    # --- the start ---

    def begin(self) -> None:
        """Make the process; the rest follows from the loop."""
        stdio: tuple[int, int, int] = (0, 1, 2)
        reaper: tuple[int, int] | None = None
        try:
            if self._reaper is not None:
                self._report, theirs = os.pipe2(os.O_CLOEXEC)
                reaper = (self._reaper, theirs)
            stdio, self._ours = self._make_pipes()
            self.leaf = self._make_leaf()
            self._newborn = begin_exec(
                self.id, self._container_pid, self._where, self._load, stdio,
                terminal_size=self._request.terminal_size, leaf=self.leaf, reaper=reaper,
            )  # fmt: skip
            self._await_word()
            self._loop.watch(self._newborn.channel.fileno(), select.EPOLLIN, self._on_newborn)
        except Refused as error:
            self._fail(error)
        except OSError as error:
            self._fail(Refused("monitor", error.strerror or str(error), error.errno or 0))
        finally:
            for fd in stdio:
                if fd > 2:
                    os.close(fd)
            if self._reaper is not None:
                os.close(self._reaper)
            if reaper is not None:
                os.close(reaper[1])

    def _make_leaf(self) -> cgroups.Leaf | None:
        """Its own cgroup, unless programs would then look in vain for the container's limits.

        They do where all controllers are in the unified hierarchy and the container sees it from the host's
        root: an exec that is to be ended in time gets one there too.
        """
        where = self._where
        if not where.cgroups_path:
            return None
        try:
            manager = cgroups.manager_for(where.cgroups_path)
            if manager.version == 2 and "cgroup" not in where.namespaces and not self._request.timeout_s:
                return None
            return cgroups.Leaf(manager, f"exec-{self.id}")
        except (OSError, KeyError, SampanError):
            return None  # no freezer, or no more cgroups are allowed: it shares the container's

    def _load(self) -> ProcessSpec:
        """The exec's program."""
        try:
            return bundle.parse_process(bundle.load_json(f"{self._request.rundir}/exec.json")["process"])
        except SampanError as error:
            raise Refused("config", error.message) from None
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise Refused("config", f"exec.json: {type(error).__name__}: {error}") from None

    def _written_down(self) -> None:
        assert self._newborn is not None
        self._newborn.go()
        self._written = True
        self._prepare(self._newborn.pid)

    def _on_newborn(self, _: int) -> None:
        """The process says something: its terminal, why it cannot start, or by closing, that it has."""
        newborn = self._newborn
        if newborn is None:
            return
        try:
            if not newborn.hear():
                return
            if not self._written:
                raise Refused("init", "the process was killed before it began")
        except Refused as error:
            self._fail(error)
            return
        except OSError as error:
            self._fail(Refused("init", error.strerror or str(error), error.errno or 0))
            return
        self._newborn = None
        self._loop.unwatch(newborn.channel.fileno())
        newborn.channel.close()
        if self._pid != newborn.pid:
            self._pid = newborn.pid
            self._write_state()
        if self._request.timeout_s:
            self._ends_at = time.monotonic() + self._request.timeout_s
        if self._report >= 0:
            self._loop.watch(self._report, select.EPOLLIN, self._on_report)
        self._serve(newborn.pidfd, newborn.terminal)

    def _fail(self, error: Refused | None) -> None:
        newborn, self._newborn = self._newborn, None
        if newborn is not None:
            self._loop.unwatch(newborn.channel.fileno())
            newborn.channel.close()
            newborn.kill()
            self.strayed = newborn.unborn
            if self.leaf is not None:
                self.leaf.kill()
            self._pid, self._pidfd = newborn.pid, newborn.pidfd
        super()._fail(error)
        if newborn is None:
            self._finished = True
        else:
            self._loop.watch(self._pidfd, select.EPOLLIN, self._on_failed_exit)

    def _on_failed_exit(self, _: int) -> None:
        os.waitpid(self._pid, 0)
        self._loop.unwatch(self._pidfd)
        self._finished = True

    # --- the end ---

    def work(self) -> float:
        """As `Run.work`, and end what has had its time."""
        timeout = super().work()
        if self._status is not None or self._pidfd < 0:
            return timeout
        now = time.monotonic()
        if now >= self._ends_at:
            self._ends_at = float("inf")
            self._timed_out = True
            self._kill_all()
        if now >= self._killed_at + _REAPING_S:
            self._killed_at = float("inf")
            self._kill_rest()
        due = min(self._ends_at, self._killed_at + _REAPING_S)
        if due == float("inf"):
            return timeout
        return due - now if timeout < 0 else min(timeout, max(0.0, due - now))

    def _on_report(self, _: int) -> None:
        """The program has ended, and the reaper has not: others may live."""
        code = os.read(self._report, 1)
        self._loop.unwatch(self._report)
        if not code or self._status is not None or self._killed_at < float("inf") or self._timed_out:
            return  # the reaper has ended, or is about to
        if self.leaf is not None and not set(self.leaf.pids()) - {self._pid}:
            return
        if self._request.ends_all and self.leaf is not None:
            self._reported = code[0]
            self._kill_all()
            return
        # They live on as with Docker, and the reaper as long as they do; the exec is over.
        self._loop.unwatch(self._pidfd)
        remaining = _Remaining(self._loop, self._pid, os.dup(self._pidfd))
        self._loop.watch(remaining.pidfd, select.EPOLLIN, remaining.on_exit)
        self._ended(code[0])

    def _ended(self, status: int) -> None:
        super()._ended(status if self._reported is None else self._reported)

    def close(self) -> None:
        """As `Run.close`."""
        if self._report >= 0:
            self._loop.unwatch(self._report)
            os.close(self._report)
            self._report = -1
        super().close()

    def _signal(self, number: int) -> None:
        if number == signal.SIGKILL:
            self._kill_all()
        else:
            syscalls.pidfd_send_signal(self._pidfd, number)

    def _kill_all(self) -> None:
        """End it and all that it started. A reaper is left to collect them, and ends then by itself."""
        if self._request.reaped and self.leaf is not None:
            self.leaf.kill(spared=self._pid)
            self._killed_at = time.monotonic()
        else:
            self._kill_rest()

    def _kill_rest(self) -> None:
        if self.leaf is not None:
            self.leaf.kill()
        try:
            syscalls.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def _record(self, status: int, finished_at_ns: int) -> ExitRecord:
        if not self._timed_out:
            return ExitRecord(status, finished_at_ns)
        return ExitRecord(TIMED_OUT, finished_at_ns, error=f"timed out after {self._request.timeout_s:g} s")


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
