"""A further process of a container in the container's own monitor: made and started, step by step.

Nothing here waits: a program on a dead network file system must not keep the container's output waiting.
The child that we have at last is the program's reaper; the program itself is known by its pidfd.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Sequence

from sampan.errors import SampanError
from sampan.linux import cgroups, syscalls
from sampan.runtime import bundle
from sampan.runtime.bundle import ProcessSpec
from sampan.runtime.exec_base import ExecBase
from sampan.runtime.init import Refused
from sampan.runtime.joining import Newcomer, begin_exec
from sampan.runtime.loop import Loop
from sampan.runtime.protocol import ExecRequest
from sampan.runtime.targets import Target

_KILLED = 128 + signal.SIGKILL
_MAKERS_PAUSE_S = 0.005  # they have told all, and are about to end


class ExecRun(ExecBase):
    """An exec that we make ourselves.

    Args:
        container_pid: the container's first process.
        where: what to join.
        loop, request, daemon: as for `ExecBase`.
        fds: the program that takes the steps (`steps_program`).
    """

    reaped = True

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
        self._program = fds[0] if fds else -1
        self._newcomer: Newcomer | None = None
        self._makers: list[int] = []
        self._written = False
        self._reaper = (0, -1)  # its pid and a pidfd of it, from the start to its end
        self._failed = False  # and what has been made for it is still to end

    @property
    def children(self) -> set[int]:
        """What of our children is its own."""
        newcomer = self._newcomer
        coming = [newcomer.pid, *newcomer.makers] if newcomer is not None else []
        return {self._reaper[0], *self._makers, *coming}

    @property
    def expecting(self) -> bool:
        """Whether a child may be there already that it has not heard of yet."""
        return self._newcomer is not None and self._newcomer.unborn

    @property
    def over(self) -> bool:
        """As of `Run`; its reaper, which may stay for others, is seen to by `release`."""
        return super().over and not self._failed

    # --- the start ---

    def begin(self) -> None:
        """Make the process; the rest follows from the loop."""
        stdio: tuple[int, int, int] = (0, 1, 2)
        try:
            if self._program < 0:
                raise Refused("config", "the daemon has sent no program for this exec")
            stdio, self._ours = self._make_pipes()
            self.leaf = self._make_leaf()
            self._newcomer = begin_exec(
                self._program, self.id, self._container_pid, self._where, stdio, leaf=self.leaf
            )
            self._await_word()
            self._loop.watch(self._newcomer.channel.fileno(), select.EPOLLIN, self._on_newcomer)
        except Refused as error:
            self._fail(error)
        except OSError as error:
            self._fail(Refused("monitor", error.strerror or str(error), error.errno or 0))
        finally:
            for fd in stdio:
                if fd > 2:
                    os.close(fd)
            if self._program >= 0:
                os.close(self._program)

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
        assert self._newcomer is not None
        self._newcomer.go(self._load(), self._request.terminal_size)
        self._written = True
        try:
            self._open_rundir()
            self._listen()
        except OSError as error:
            raise Refused("monitor", f"{error.strerror}: {error.filename}", error.errno or 0) from None

    def _on_newcomer(self, _: int) -> None:
        """The process says something: its terminal, why it cannot start, or by closing, that it has."""
        newcomer = self._newcomer
        if newcomer is None:
            return
        if self._failed:
            self._on_leaving(newcomer)
            return
        try:
            runs = newcomer.hear()
            program = newcomer.program
            if program is not None and not self._pid:
                if not self._written:
                    raise Refused("init", "the process was tampered with")
                self._pid = program.pid
                self._write_state()
            if not runs:
                return
        except Refused as error:
            self._fail(error)
            return
        except OSError as error:
            self._fail(Refused("init", error.strerror or str(error), error.errno or 0))
            return
        assert program is not None and newcomer.report is not None
        self._newcomer, self._makers = None, newcomer.makers
        self._loop.unwatch(newcomer.channel.fileno())
        newcomer.close()
        self._reaper = newcomer.pid, newcomer.pidfd
        self._report = newcomer.report.detach()
        self._serve(program.pidfd, newcomer.terminal)
        self._loop.unwatch(program.pidfd)  # its status comes by the reaper
        self._loop.watch(self._reaper[1], select.EPOLLIN, self._on_reaper_exit)

    def _fail(self, error: Refused | None) -> None:
        newcomer = self._newcomer
        if newcomer is not None and not self._failed:
            self._failed = True
            newcomer.leave()
            if newcomer.gone or not newcomer.unborn:
                self._part()
        super()._fail(error)
        self._finished = True

    def _on_leaving(self, newcomer: Newcomer) -> None:
        """It says something though nothing is to come of it: perhaps whom it has made."""
        try:
            newcomer.hear()
        except (Refused, OSError):
            pass  # as is meant to be
        if newcomer.gone or not newcomer.unborn:
            self._part()

    def _part(self) -> None:
        """End what has been made, as far as it does not end by itself; its end is awaited."""
        newcomer, self._newcomer = self._newcomer, None
        assert newcomer is not None
        self._loop.unwatch(newcomer.channel.fileno())
        newcomer.close()
        self._makers, self._reaper = newcomer.makers, (newcomer.pid, newcomer.pidfd)
        self.strayed = newcomer.unborn
        if newcomer.reaper and newcomer.program is None:
            self._kill_all()
        newcomer.kill()
        if newcomer.report is not None:
            newcomer.report.close()
        self._loop.watch(newcomer.pidfd, select.EPOLLIN, self._on_failed_exit)

    def _on_failed_exit(self, _: int) -> None:
        self._collect()
        self._failed = False

    def work(self) -> float:
        """As `ExecBase.work`, and collect those that have made the process."""
        timeout = super().work()
        if not self._makers or self._failed:
            return timeout
        self._makers = [pid for pid in self._makers if not _collected(pid)]
        if not self._makers:
            return timeout
        return _MAKERS_PAUSE_S if timeout < 0 else min(timeout, _MAKERS_PAUSE_S)

    # --- the end ---

    @property
    def _top(self) -> int:
        return self._reaper[0]

    def _on_report(self, _: int) -> None:
        """Its program has ended, as the reaper tells; others of it may live."""
        try:
            data = os.read(self._report, 8)
        except BlockingIOError:
            return
        self._loop.unwatch(self._report)
        if len(data) < 4 or self._status is not None:
            return  # the reaper has ended
        code = _exit_code(int.from_bytes(data[:4], "little"))
        if self._killed_at < float("inf") or self._timed_out:
            self._reported = code
        elif self._request.ends_all:
            self._reported = code
            self._kill_all()
        else:  # what it leaves running lives on as with Docker, and the reaper as long as that
            self._ended(code)

    def _on_reaper_exit(self, _: int) -> None:
        """Nothing of it lives any more; or somebody has killed the reaper, which is the exec's end."""
        if self._status is None and self._reported is None:
            self._on_report(0)
        self._collect()
        if self._status is None:
            if self._reported is None:
                self._kill_rest()
            self._ended(_KILLED)

    def _collect(self) -> None:
        pid, pidfd = self._reaper
        self._loop.unwatch(pidfd)
        for child in (*self._makers, pid):
            try:
                os.waitpid(child, 0)
            except ChildProcessError:
                pass  # who looks for strays has found it
        os.close(pidfd)
        self._makers, self._reaper = [], (0, -1)

    def _kill_rest(self) -> None:
        super()._kill_rest()
        if self._reaper[1] >= 0:
            try:
                syscalls.pidfd_send_signal(self._reaper[1], signal.SIGKILL)
            except ProcessLookupError:
                pass

    def release(self) -> bool:
        """As `ExecBase.release`."""
        return self._reaper[0] == 0


def _collected(pid: int) -> bool:
    """Collect a child if it has ended; whether nothing is left to collect."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True  # who looks for strays has found it


def _exit_code(status: int) -> int:
    """A shell's exit code for what wait(2) gives, whatever that is: it has come out of the container."""
    number = status & 0x7F
    return 128 + number if number else status >> 8 & 0xFF
