"""The resolver's process: one for a daemon, which it outlives; nothing but sockets goes in or out.

It is given a listening socket that daemons find it at, and takes the table and the containers' sockets from
the one that is connected. Without a daemon and without a container it ends. Before it hears of any container
it gives up what it was started with: user, capabilities, and every system call that an exchange of messages
does not take (seccomp(2)), so that whoever takes it over by a message has the sockets and nothing else.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  (what is imported late could not be read any more)
import gc
import os
import select
import socket
import struct
import time
import traceback
from typing import Any

from sampan import __version__
from sampan.linux import confinement
from sampan.resolver.asking import Asker
from sampan.resolver.attempts import HostOutlets
from sampan.resolver.clock import Clock
from sampan.resolver.forwarding import Count
from sampan.resolver.gatekeeper import Gatekeeper
from sampan.resolver.protocol import IDS_IN_PACKET, PROTOCOL, SOCKETS, decode_asker, decode_member
from sampan.resolver.table import Table
from sampan.runtime import wire
from sampan.runtime.loop import Loop

NAME = "sampan-resolver"
_UCRED = struct.Struct("=iII")
_TROUBLE_EVERY_S = 1.0
_FIRST_WAIT_S = 10.0  # for the daemon that has started this, if that has died since
_CALLS = (
    "accept4 brk clock_gettime clock_nanosleep close connect epoll_ctl epoll_pwait epoll_wait exit exit_group"
    " fcntl fstat futex getpeername getpid getrandom getsockname getsockopt gettid ioctl lseek madvise mmap"
    " mprotect mremap munmap poll ppoll read recvfrom recvmsg restart_syscall rt_sigaction rt_sigprocmask"
    " rt_sigreturn sched_yield sendmsg sendto setsockopt shutdown sigaltstack socket tgkill write"
).split()


class Resolver:
    """All containers that ask, and the daemon.

    Args:
        listener: where daemons connect (unix(7), SOCK_SEQPACKET).
        owner: the user whose daemons may.
    """

    def __init__(self, listener: socket.socket, owner: int) -> None:
        self.loop = Loop()
        self.clock = Clock()
        self.table = Table()
        self.askers: dict[str, Asker] = {}
        self._host = HostOutlets(self.loop)
        self._total = Count()
        self._gate = Gatekeeper(self.clock, self._tell)
        self._owner = owner
        self._daemon: socket.socket | None = None
        self._listener = listener
        self._fresh: set[tuple[str, str]] | None = None  # what this daemon has named since `begin`
        self._fresh_askers: set[str] = set()
        self._lives: dict[str, int] = {}  # pidfds of the containers' first processes
        self._over: set[str] = set()  # whose process has ended, of which the daemon has said nothing yet
        self._news = select.poll()
        self._told = 0.0
        self._awaited = self.clock.after(_FIRST_WAIT_S, lambda: None)
        listener.setblocking(False)
        self.loop.watch(listener.fileno(), select.EPOLLIN, self._accept)

    def run(self) -> None:
        """Serve until nobody is left."""
        while self._daemon is not None or self.askers or self._awaited.action is not None:
            try:
                self.loop.turn(self.clock.wait_s())
                self.clock.run_due()
            except Exception:  # one container's message must not end what serves them all
                self._tell_trouble(traceback.format_exc(limit=-4))

    # --- the daemon ---

    def _accept(self, events: int) -> None:
        try:
            end, _ = self._listener.accept()
        except OSError:
            return
        credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        if _UCRED.unpack(credentials)[1] != self._owner:
            end.close()
            return
        self._hang_up()
        self._awaited.cancel()
        end.setblocking(False)
        wire.widen(end)
        self._daemon = end
        self._news.register(end, select.POLLIN)
        self.loop.watch(end.fileno(), select.EPOLLIN, self._from_daemon)
        known = sorted(self.askers)
        for start in range(0, max(len(known), 1), IDS_IN_PACKET):
            more = start + IDS_IN_PACKET < len(known)
            part = known[start : start + IDS_IN_PACKET]
            self._tell(
                {
                    "event": "hello", "protocol": PROTOCOL, "version": __version__,
                    "pid": os.getpid(), "askers": part, "more": more,
                }
            )  # fmt: skip

    def _tell(self, message: dict[str, Any]) -> bool:
        """Say something to the daemon; whether that got on its way."""
        if self._daemon is None:
            return False
        try:
            wire.send(self._daemon, message)
        except OSError:  # it does not read, or is gone
            return False
        return True

    def _tell_trouble(self, text: str) -> None:
        now = time.monotonic()
        if now >= self._told + _TROUBLE_EVERY_S:
            self._told = now
            self._tell({"event": "trouble", "text": text})

    def _hang_up(self) -> None:
        daemon, self._daemon = self._daemon, None
        if daemon is not None:
            self.loop.unwatch(daemon.fileno())
            self._news.unregister(daemon)
            daemon.close()
            self._gate.give_up()
            self._drop_what_is_over()
        self._fresh = None

    def _catch_up(self) -> None:
        """Take what the daemon has said before a question that is about to be answered was asked."""
        if self._news.poll(0):
            self._from_daemon(0)

    def _from_daemon(self, events: int) -> None:
        while self._daemon is not None:
            try:
                message, fds = wire.receive(self._daemon)
            except BlockingIOError:
                return
            except OSError:  # no descriptor left, for one: the daemon connects and opens the sockets again
                message, fds = None, []
            if message is None:
                self._hang_up()
                return
            getattr(self, f"_op_{message['op']}")(message, fds)

    def _op_begin(self, message: dict[str, Any], fds: list[int]) -> None:
        self._fresh, self._fresh_askers = set(), set()

    def _op_end(self, message: dict[str, Any], fds: list[int]) -> None:
        if self._fresh is None:
            return
        known = [
            (network_id, container_id)
            for network_id, network in self.table.networks.items()
            for container_id in network.members
        ]
        for network_id, container_id in known:
            if (network_id, container_id) not in self._fresh:
                self._op_leave({"network_id": network_id, "container_id": container_id}, [])
        for container_id in [one for one in self.askers if one not in self._fresh_askers]:
            self._op_drop({"container_id": container_id}, [])
        self._fresh = None

    def _op_member(self, message: dict[str, Any], fds: list[int]) -> None:
        member = decode_member(message)
        self.table.put(member)
        if self._fresh is not None:
            self._fresh.add((member.network_id, member.container_id))
        self._look_again(member.container_id)

    def _op_leave(self, message: dict[str, Any], fds: list[int]) -> None:
        self.table.remove(message["network_id"], message["container_id"])
        self._look_again(message["container_id"])

    def _look_again(self, container_id: str) -> None:
        asker = self.askers.get(container_id)
        if asker is not None:
            asker.look_again()

    def _op_asker(self, message: dict[str, Any], fds: list[int]) -> None:
        options = decode_asker(message)
        self._fresh_askers.add(options.container_id)
        if fds:
            self._op_drop(message, [])
            if len(fds) != SOCKETS:
                raise ValueError(f"{len(fds)} sockets came for a container, not {SOCKETS}")
            ends = [socket.socket(fileno=fd) for fd in fds]
            self.askers[options.container_id] = Asker(
                options.container_id, ends, self.table, self.loop, self.clock, self._host, self._total,
                self._catch_up, self._gate,
            )  # fmt: skip
        asker = self.askers.get(options.container_id)
        if asker is not None:
            asker.configure(options)

    def _op_lives(self, message: dict[str, Any], fds: list[int]) -> None:
        container_id = message["container_id"]
        self._forget_life(container_id)
        self._lives[container_id] = fds[0]
        self.loop.watch(fds[0], select.EPOLLIN, lambda _: self._ended(container_id))

    def _ended(self, container_id: str) -> None:
        """A container's process has ended. A daemon that is there will say what is to be done."""
        self._forget_life(container_id)
        self._over.add(container_id)
        if self._daemon is None:
            self._drop_what_is_over()

    def _forget_life(self, container_id: str) -> None:
        self._over.discard(container_id)
        pidfd = self._lives.pop(container_id, None)
        if pidfd is not None:
            self.loop.unwatch(pidfd)
            os.close(pidfd)

    def _drop_what_is_over(self) -> None:
        for container_id in list(self._over):
            message = {"container_id": container_id}
            self._op_forget(message, [])
            self._op_drop(message, [])

    def _op_opened(self, message: dict[str, Any], fds: list[int]) -> None:
        self._gate.opened(message["id"], message["open"])

    def _op_forget(self, message: dict[str, Any], fds: list[int]) -> None:
        for member in self.table.memberships(message["container_id"]):
            self._op_leave({"network_id": member.network_id, "container_id": member.container_id}, [])

    def _op_drop(self, message: dict[str, Any], fds: list[int]) -> None:
        self._forget_life(message["container_id"])
        asker = self.askers.pop(message["container_id"], None)
        if asker is not None:
            asker.close()


def main(fd: int) -> None:
    """Serve at the listening socket `fd`."""
    listener = confinement.begin(NAME, fd)
    resolver = Resolver(listener, os.geteuid())
    confinement.become_nobody(_CALLS)
    gc.collect()
    gc.freeze()
    resolver.run()
