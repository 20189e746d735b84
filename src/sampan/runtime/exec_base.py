"""What all execs have in common, however their process is made: the word to go, the clients, the failure."""

from __future__ import annotations

import os
import select
import socket
from typing import Any

from sampan.linux import cgroups
from sampan.runtime import wire
from sampan.runtime.init import Refused
from sampan.runtime.loop import Loop
from sampan.runtime.protocol import Attachment, ExecRequest
from sampan.runtime.run import Run


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
        clients, self._clients = self._clients, []
        self._begin(pidfd, terminal, self._ours, clients)
        self._connect(self._daemon, {})

    def _fail(self, error: Refused | None) -> None:
        """Leave nothing of it here, and say why, unless nobody wants it any more.

        Whether it is over is for those who know of its process.
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

    def _signal(self, number: int) -> None:
        """Send it a signal."""
        raise NotImplementedError
