"""A further process of a container in the container's own monitor: made and started, step by step.

Nothing here waits: a program on a dead network file system must not keep the container's output waiting.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Sequence

from sampan.errors import SampanError
from sampan.linux import cgroups
from sampan.runtime import bundle
from sampan.runtime.bundle import ProcessSpec
from sampan.runtime.exec_base import ExecBase
from sampan.runtime.init import Refused
from sampan.runtime.joining import begin_exec
from sampan.runtime.loop import Loop
from sampan.runtime.newborn import Newborn
from sampan.runtime.protocol import ExecRequest
from sampan.runtime.targets import Target


class ExecRun(ExecBase):
    """An exec that we make ourselves.

    Args:
        container_pid: the container's first process.
        where: what to join.
        loop, request, daemon, fds: as for `ExecBase`.
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
        super().__init__(loop, request, daemon, fds)
        self._container_pid = container_pid
        self._where = where
        self._newborn: Newborn | None = None
        self._written = False

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
            reaper = self._take_reaper()
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
            for fd in reaper or ():
                os.close(fd)

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
