"""What all execs have in common, however their process is made: the word to go, clients, failure and end."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from typing import Any

from sampan.linux import cgroups, family, syscalls
from sampan.runtime import wire
from sampan.runtime.init import Refused
from sampan.runtime.loop import Loop
from sampan.runtime.protocol import Attachment, ExecRequest, ExitRecord
from sampan.runtime.run import Run

TIMED_OUT = 124  # the exit code, as timeout(1) has it
_REAPING_S = 2.0  # how long the reaper may take once all the others were killed


class ExecBase(Run):
    """One exec in the container's monitor.

    Args:
        loop: the monitor's.
        request: what to run.
        daemon: the exec's own connection to the daemon that asked.

    Attributes:
        leaf: its own cgroup, if it has one.
        strayed: a child may have been made that it never heard of.
    """

    strayed = False
    reaped = False  # it has a reaper, which is to be spared so that it collects what is killed

    def __init__(self, loop: Loop, request: ExecRequest, daemon: socket.socket) -> None:
        super().__init__(
            loop, "exec", request.id, request.rundir, terminal=request.terminal,
            open_stdin=request.open_stdin, stdin_once=True,
        )  # fmt: skip
        self.leaf: cgroups.Leaf | None = None
        self._request = request
        self._daemon = daemon
        self._clients: list[tuple[int, Attachment]] = []
        self._ours: dict[str, int] = {}
        self._report = -1  # where the reaper tells the program's exit code
        self._reported: int | None = None
        self._ends_at = float("inf")
        self._killed_at = float("inf")
        self._timed_out = False

    @property
    def children(self) -> set[int]:
        """What of our children is its own."""
        return {self._pid}

    @property
    def expecting(self) -> bool:
        """Whether a child may be there already that it has not heard of yet."""
        return False

    def begin(self) -> None:
        """Set out; the rest follows from the loop."""
        raise NotImplementedError

    def _await_word(self) -> None:
        """Have `_written_down` called when the daemon has written the program down."""
        self._loop.watch(self._daemon.fileno(), select.EPOLLIN, self._on_word)

    def _on_word(self, _: int) -> None:
        try:
            message, fds = wire.receive(self._daemon, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            message, fds = None, []
        self._loop.unwatch(self._daemon.fileno())
        try:
            if message is None:
                raise Refused("config", "the daemon gave this exec up")
            if message["op"] == "drop":
                self._fail(None)
                return
            attachments = map(wire.decode_attachment, message["attachments"])
            self._clients = list(zip(fds, attachments, strict=True))
            self._written_down()
        except Refused as error:
            self._fail(error)
        except OSError as error:
            self._fail(Refused("monitor", error.strerror or str(error), error.errno or 0))

    def _written_down(self) -> None:
        """Go on.

        Raises:
            Refused, OSError: that cannot be.
        """
        raise NotImplementedError

    def _serve(self, pidfd: int, terminal: int | None) -> None:
        """The program runs: serve its clients, and tell the daemon."""
        if self._request.timeout_s:
            self._ends_at = time.monotonic() + self._request.timeout_s
        if self._report >= 0:
            self._loop.watch(self._report, select.EPOLLIN, self._on_report)
        clients, self._clients = self._clients, []
        self._begin(pidfd, terminal, self._ours, clients)
        self._connect(self._daemon, {})

    def _fail(self, error: Refused | None) -> None:
        """Leave nothing of it here, and say why.

        Whether it is over is for those who know of its process. When nobody wants it any more, its daemon is
        told that by the end of the connection, in `close`.
        """
        self._loop.unwatch(self._daemon.fileno())
        for fd in (*self._ours.values(), *(fd for fd, _ in self._clients)):
            os.close(fd)
        self._ours, self._clients = {}, []
        if error is not None:
            self._refuse(self._daemon, error)
            self._daemon.close()
        self._stop_listening()

    def _obey(self, message: dict[str, Any], fds: list[int]) -> str:
        if message["op"] != "signal":
            return super()._obey(message, fds)
        if self._status is not None:
            return "is not running"
        self._signal(message["signal"])
        return ""

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
        """The reaper tells something."""
        raise NotImplementedError

    def _ended(self, status: int) -> None:
        super()._ended(status if self._reported is None else self._reported)

    def close(self) -> None:
        """As `Run.close`."""
        if self._report >= 0:
            self._loop.unwatch(self._report)
            os.close(self._report)
        self._report = -1
        super().close()
        self._daemon.close()

    def _signal(self, number: int) -> None:
        if number == signal.SIGKILL:
            self._kill_all()
        else:
            syscalls.pidfd_send_signal(self._pidfd, number)

    @property
    def _top(self) -> int:
        """The process above all that it has started: its reaper, if it has one."""
        return self._pid

    def _others(self) -> bool:
        """Whether anything lives that it has started."""
        if self.leaf is not None:
            return bool(set(self.leaf.pids()) - {self._top})
        return bool(family.family(self._top))

    def _kill_all(self) -> None:
        """End it and all that it started. A reaper is left to collect them, and ends then by itself."""
        if not self.reaped:
            self._kill_rest()
            return
        if self.leaf is not None:
            self.leaf.kill(spared=self._top)
        else:
            family.kill_family(self._top)
        self._killed_at = time.monotonic()

    def _kill_rest(self) -> None:
        if self.leaf is not None:
            self.leaf.kill()
        else:
            family.kill_family(self._top)
        try:
            syscalls.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def release(self) -> bool:
        """Once it is over: whether its own process has ended, too, which may stay for what it adopted."""
        return True

    def _record(self, status: int, finished_at_ns: int) -> ExitRecord:
        if not self._timed_out:
            return ExitRecord(status, finished_at_ns)
        return ExitRecord(TIMED_OUT, finished_at_ns, error=f"timed out after {self._request.timeout_s:g} s")
