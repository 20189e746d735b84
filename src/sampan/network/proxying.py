"""Ports published by proxy: the daemon's side of `sampan.forwarder`, a process for each such container.

A process gets the listening sockets, which the daemon keeps copies of: when it dies, the next one has the
same, and who has just connected waits instead of being refused. It outlives the daemon, and is found again by
a file in the exec root; then nobody has copies, and the sockets of one that dies are bound anew.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from pathlib import Path

from sampan.dataclasses import dataclass
from sampan.helpers import PLAIN_ENVIRONMENT, Program, start_helper
from sampan.linux import process, syscalls
from sampan.network.ports import Addresses, Published
from sampan.runtime import wire

log = logging.getLogger("sampan.network")

_PROGRAM = Program("sampan.forwarder.program", "sampan-proxy")
_FDS_IN_PACKET = 32
_KILLED_S = 5.0
_STEADY_S = 10.0
_AGAIN_S = 1.0  # between attempts to start one that does not last

Sockets = Sequence[tuple[Published, socket.socket]]


@dataclass(slots=True)
class _Proxy:
    addresses: Addresses
    sockets: Sockets
    pidfd: int = -1
    child: subprocess.Popen[bytes] | None = None
    connection: socket.socket | None = None
    life: int = -1
    begun: float = field(default_factory=time.monotonic)


class Proxies:
    """The forwarding processes of one daemon's containers. Thread-safe.

    Args:
        directory: where they are found again.
        bind: gives the listening sockets of a container's ports, when those of an earlier daemon are gone.
    """

    def __init__(self, directory: Path, bind: Callable[[str], Sockets]) -> None:
        self._directory = directory
        self._bind = bind
        self._lock = threading.RLock()
        self._proxies: dict[str, _Proxy] = {}
        self._epoll: select.epoll | None = None
        self._watched: dict[int, str] = {}
        self._closing = False

    def open(self, container_id: str, addresses: Addresses, sockets: Sockets) -> None:
        """Forward from now on.

        Args:
            addresses: the container's: who connects by one IP version is led on by it, if it has such a one.
            sockets: bound, and listening where they are TCP's.

        Raises:
            OSError: the process cannot be started; nothing was changed.
        """
        with self._lock:
            self.close(container_id)
            self._start(container_id, _Proxy(addresses, sockets))

    def recall(self, keep: Mapping[str, Addresses]) -> set[str]:
        """Find the processes that an earlier daemon has left, and end those that no container needs.

        Args:
            keep: addresses by container.

        Returns:
            The containers whose process lives.
        """
        found: set[str] = set()
        with self._lock:
            self._closing = False
            for file in self._directory.iterdir() if self._directory.is_dir() else ():
                pidfd, addresses = _found(file)
                if pidfd >= 0 and keep.get(file.name) == addresses:
                    self._proxies[file.name] = proxy = _Proxy(addresses, (), pidfd)
                    self._watch(file.name, proxy)
                    found.add(file.name)
                    continue
                if pidfd >= 0:
                    with suppress(ProcessLookupError):
                        syscalls.pidfd_send_signal(pidfd, signal.SIGKILL)
                    _wait(pidfd)
                    os.close(pidfd)
                file.unlink(missing_ok=True)
        return found

    def lives(self, container_id: str, pidfd: int) -> None:
        """A container has a process: when no daemon is there, its proxy ends with that.

        Args:
            pidfd: of its process; it is closed in the end.
        """
        with self._lock:
            proxy = self._proxies.get(container_id)
            if proxy is None:
                os.close(pidfd)
                return
            if proxy.life >= 0:
                os.close(proxy.life)
            proxy.life = pidfd
            _tell_life(proxy)

    def close(self, container_id: str) -> None:
        """Forward no more; who forwards nothing is fine."""
        with self._lock:
            proxy = self._proxies.pop(container_id, None)
            if proxy is None:
                return
            self._end(proxy)
            if proxy.life >= 0:
                os.close(proxy.life)
            (self._directory / container_id).unlink(missing_ok=True)

    def leave(self) -> None:
        """Let them go on without this daemon."""
        with self._lock:
            self._closing = True
            for proxy in self._proxies.values():
                self._forget(proxy)
                if proxy.life >= 0:
                    os.close(proxy.life)
            self._proxies.clear()

    # --- the processes ---

    def _start(self, container_id: str, proxy: _Proxy) -> None:
        here, there = wire.pair()
        try:
            with there:
                proxy.child = start_helper(
                    _PROGRAM,
                    [there.fileno()],
                    words=[str(self._directory), container_id],
                    environment=PLAIN_ENVIRONMENT,
                    stderr=subprocess.DEVNULL,
                )
            proxy.connection, proxy.begun = here, time.monotonic()
            proxy.pidfd = syscalls.pidfd_open(proxy.child.pid)
            self._directory.mkdir(mode=0o700, exist_ok=True)
            ticks = process.start_time_ticks(proxy.child.pid)
            note = {"pid": proxy.child.pid, "ticks": ticks, "address": " ".join(proxy.addresses)}
            (self._directory / container_id).write_text(json.dumps(note))
            for start in range(0, len(proxy.sockets), _FDS_IN_PACKET):
                some = proxy.sockets[start : start + _FDS_IN_PACKET]
                ports = [(one.protocol, _target(proxy.addresses, one), one.port) for one, _ in some]
                wire.send(here, {"op": "ports", "ports": ports}, [end.fileno() for _, end in some])
            _tell_life(proxy)
        except BaseException:
            self._end(proxy)
            here.close()
            raise
        self._proxies[container_id] = proxy
        self._watch(container_id, proxy)

    def _watch(self, container_id: str, proxy: _Proxy) -> None:
        if self._epoll is None:
            self._epoll = select.epoll()
            threading.Thread(target=self._listen, args=(self._epoll,), name="proxies", daemon=True).start()
        for fd in (proxy.pidfd, proxy.connection.fileno() if proxy.connection is not None else -1):
            if fd >= 0:
                self._watched[fd] = container_id
                self._epoll.register(fd, select.EPOLLIN)

    def _forget(self, proxy: _Proxy) -> None:
        """Let go of what is known of a process."""
        connection, proxy.connection = proxy.connection, None
        pidfd, proxy.pidfd = proxy.pidfd, -1
        for fd in (pidfd, connection.fileno() if connection is not None else -1):
            if self._watched.pop(fd, None) is not None and self._epoll is not None:
                self._epoll.unregister(fd)
        if connection is not None:
            connection.close()
        if pidfd >= 0:
            os.close(pidfd)

    def _end(self, proxy: _Proxy) -> None:
        if proxy.pidfd >= 0:
            with suppress(ProcessLookupError):
                syscalls.pidfd_send_signal(proxy.pidfd, signal.SIGKILL)
            _wait(proxy.pidfd)
        if proxy.child is not None:
            proxy.child.kill()
            proxy.child.wait()
        self._forget(proxy)

    def _listen(self, epoll: select.epoll) -> None:
        """Hear what processes have to say, and start those again that die."""
        while True:
            for fd, _ in epoll.poll():
                with self._lock:
                    container_id = self._watched.get(fd)
                    proxy = self._proxies.get(container_id) if container_id is not None else None
                    if container_id is None or proxy is None:
                        continue
                    if fd == proxy.pidfd:
                        self._died(container_id, proxy)
                    else:
                        self._hear(fd, proxy)

    def _hear(self, fd: int, proxy: _Proxy) -> None:
        assert proxy.connection is not None
        try:
            message, _ = wire.receive(proxy.connection, socket.MSG_DONTWAIT)
        except OSError:
            message = None
        if message is not None:
            log.error("a port proxy: %s", message["text"])
        elif self._epoll is not None:  # it is about to die
            self._watched.pop(fd, None)
            self._epoll.unregister(fd)

    def _died(self, container_id: str, proxy: _Proxy) -> None:
        self._end(proxy)
        if self._closing or (proxy.life >= 0 and _readable(proxy.life)):
            return  # it has ended with its container, whose end is about to be known
        log.error("the port proxy of container %s has died; it is started again", container_id[:12])
        if time.monotonic() - proxy.begun < _STEADY_S:
            timer = threading.Timer(_AGAIN_S, self._again, (container_id, proxy))
            timer.daemon = True
            timer.start()
        else:
            self._again(container_id, proxy)

    def _again(self, container_id: str, proxy: _Proxy) -> None:
        with self._lock:
            if self._proxies.get(container_id) is not proxy or self._closing:
                return
            try:
                proxy.sockets = proxy.sockets or self._bind(container_id)
                self._start(container_id, proxy)
            except OSError as error:
                log.error("ports of container %s are not published: %s", container_id[:12], error)


def _target(addresses: Addresses, one: Published) -> str:
    """Which of a container's addresses a port leads to: that of the host's IP version, if there is one."""
    return next((address for address in addresses if (":" in address) == (":" in one.host_ip)), addresses[0])


def _tell_life(proxy: _Proxy) -> None:
    if proxy.life >= 0 and proxy.connection is not None:
        with suppress(OSError):  # it has died, and is told when it is started again
            wire.send(proxy.connection, {"op": "lives"}, [proxy.life])


def _readable(fd: int) -> bool:
    poll = select.poll()  # select(2) takes no numbers above 1023
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _wait(pidfd: int) -> None:
    """Wait for the end of a process that was killed."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(_KILLED_S * 1000)


def _found(file: Path) -> tuple[int, Addresses]:
    """A pidfd of the process that a file is about, -1 when it is gone; and the addresses it forwards to."""
    try:
        note = json.loads(file.read_text())
        pidfd = syscalls.pidfd_open(int(note["pid"]))
    except (OSError, ValueError, LookupError):
        return -1, ()
    try:
        if process.start_time_ticks(int(note["pid"])) == note["ticks"] and not _readable(pidfd):
            return pidfd, tuple(str(note["address"]).split())
    except OSError:
        pass
    os.close(pidfd)
    return -1, ()
