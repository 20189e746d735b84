"""The forwarding process: one for each container that publishes ports by proxy.

It gets the listening sockets from the daemon, gives up what it was started with before the first connection,
and forwards until it is ended. It outlives the daemon as the container does: when none is connected it ends
with the container's first process, of which it holds a pidfd.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import time
import traceback
from contextlib import suppress
from typing import Any

from sampan.forwarder.tcp import Pipes, TcpForwarder
from sampan.forwarder.udp import UdpForwarder
from sampan.linux import confinement
from sampan.runtime import wire
from sampan.runtime.loop import Loop

NAME = "sampan-proxy"
_TICK_S = 5.0
_PAUSE_S = 0.2
_TROUBLE_EVERY_S = 1.0
_CALLS = (
    "accept4 brk clock_gettime clock_nanosleep close connect epoll_ctl epoll_pwait epoll_wait exit exit_group"
    " fcntl fstat futex getpeername getpid getrandom getsockname getsockopt gettid ioctl lseek madvise mmap"
    " mprotect mremap munmap pipe2 poll ppoll read recvfrom recvmsg restart_syscall rt_sigaction"
    " rt_sigprocmask rt_sigreturn sched_yield sendmsg sendto setsockopt shutdown sigaltstack socket splice"
    " tgkill write"
).split()


class Forwarding:
    """All ports of the container, and the daemon.

    Args:
        daemon: a socket that the daemon speaks packets on (`sampan.runtime.wire`).
    """

    def __init__(self, daemon: socket.socket) -> None:
        self.loop = Loop()
        self._daemon: socket.socket | None = daemon
        self._life = -1
        self._over = False
        self._ports: list[TcpForwarder | UdpForwarder] = []
        self._pipes = Pipes()
        self._told = 0.0
        self._next_tick = 0.0
        daemon.setblocking(False)
        self.loop.watch(daemon.fileno(), select.EPOLLIN, self._from_daemon)

    def run(self) -> None:
        """Forward until nobody needs it."""
        while self._daemon is not None or (self._life >= 0 and not self._over):
            try:
                self.loop.turn(_PAUSE_S if any(port.pausing for port in self._ports) else _TICK_S)
                now = time.monotonic()
                if now >= self._next_tick:
                    self._next_tick = now + _PAUSE_S
                    for port in self._ports:
                        port.tick(now)
            except Exception:  # one connection must not end what serves them all
                self._tell_trouble(traceback.format_exc(limit=-4))

    def _from_daemon(self, events: int) -> None:
        while self._daemon is not None:
            try:
                message, fds = wire.receive(self._daemon)
            except BlockingIOError:
                return
            except OSError:
                message, fds = None, []
            if message is None:
                self.loop.unwatch(self._daemon.fileno())
                self._daemon.close()
                self._daemon = None
            elif message["op"] == "ports":
                self._serve(message, fds)
            elif message["op"] == "lives":
                self._life = fds[0]
                self.loop.watch(self._life, select.EPOLLIN, self._ended)

    def _serve(self, message: dict[str, Any], fds: list[int]) -> None:
        for (protocol, address, port), fd in zip(message["ports"], fds, strict=True):
            end, target = socket.socket(fileno=fd), (address, port)
            if protocol == "tcp":
                self._ports.append(TcpForwarder(end, target, self.loop, self._pipes))
            else:
                self._ports.append(UdpForwarder(end, target, self.loop))

    def _ended(self, events: int) -> None:
        """The container has ended; a daemon that is there will say what is to be done."""
        self.loop.unwatch(self._life)
        self._over = True

    def _tell_trouble(self, text: str) -> None:
        now = time.monotonic()
        if self._daemon is not None and now >= self._told + _TROUBLE_EVERY_S:
            self._told = now
            with suppress(OSError):
                wire.send(self._daemon, {"event": "trouble", "text": text})


def main(fd: int) -> None:
    """Forward as the daemon says at the socket `fd`."""
    daemon = confinement.begin(NAME, fd)
    os.chdir("/")
    forwarding = Forwarding(daemon)
    confinement.become_nobody(_CALLS)
    gc.collect()
    gc.freeze()
    forwarding.run()
