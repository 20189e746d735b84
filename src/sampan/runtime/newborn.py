"""A process between its clone and its execve, as its parent sees it.

It says on its channel what became of it; execve closes that, which is how its success is known.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import Any

from sampan.linux import syscalls
from sampan.runtime.init import Refused


class Newborn:
    """One such process.

    Args:
        child: its pid and a pidfd of it.
        channel: our end.

    Attributes:
        terminal: the master of its terminal, once it has said so.
    """

    def __init__(self, child: tuple[int, int], channel: socket.socket) -> None:
        self.pid, self.pidfd = child
        self.channel = channel
        self.terminal: int | None = None

    def go(self) -> None:
        """Let it go on, when all that its parent had to do is done."""
        try:
            self.channel.send(b"go")
        except BrokenPipeError:
            pass  # it has failed already; its report is waiting

    def hear(self) -> bool:
        """Take one message; whether its program runs, or waits for `sampan-runtime start`.

        Raises:
            Refused: it could not start.
        """
        data, fds, _, _ = socket.recv_fds(self.channel, 65536, 1)
        if fds:
            self.terminal = fds[0]
            os.set_inheritable(self.terminal, False)
        if data in (b"", b"ready"):
            return True
        if data != b"terminal":
            report: dict[str, Any] = json.loads(data)
            raise Refused(report["stage"], report["text"], report["errno"])
        return False

    def kill(self) -> None:
        """Kill it, and let go of its terminal; it is still to be waited for."""
        if self.terminal is not None:
            os.close(self.terminal)
            self.terminal = None
        _kill(self.pidfd)

    def abandon(self) -> None:
        """Kill it, wait for its end, and let go of everything."""
        self.kill()
        reap(self.pid, self.pidfd)


def reap(pid: int, pidfd: int) -> None:
    """Kill a child and wait for it; closes the pidfd."""
    _kill(pidfd)
    os.waitpid(pid, 0)
    os.close(pidfd)


def _kill(pidfd: int) -> None:
    try:
        syscalls.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
