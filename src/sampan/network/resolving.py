"""The daemon's side of the resolver: what it is told of networks and containers, and that it is there.

The process (`sampan.resolver.program`) is started with the first container that needs it, outlives the
daemon, and is found again by the next one at a socket in the exec root. When it dies it is started again: the
containers' sockets are opened anew, behind the same ports, and the whole table is sent. All that it needs to
be told is kept here, so what is lost on the way, were it a start's, comes with the next table.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import sampan
from sampan.dataclasses import dataclass
from sampan.errors import SampanError
from sampan.helpers import PLAIN_ENVIRONMENT, Program, start_helper
from sampan.linux import process
from sampan.network.doorway import Doorway, open_doorway
from sampan.network.names import Member
from sampan.resolver.protocol import PROTOCOL, AskerOptions, Membership, encode
from sampan.runtime import wire

log = logging.getLogger("sampan.network")

_PROGRAM = Program("sampan.resolver.program", "sampan-resolver")
_SOCKET = "resolver.sock"
_PIDFILE = "resolver.json"
_PATIENCE_S = 5.0  # for a process that is there and does not answer
_AGAIN_S = 0.1
_LONGEST_AGAIN_S = 5.0
_STEADY_S = 10.0


class Doorkeeper(Protocol):
    """Who opens what names are answered with, for containers with egress policies. It raises nothing."""

    def open(self, container_id: str, name: str, addresses: Iterable[tuple[str, int]]) -> bool:
        """Open addresses, each with the seconds that the answer is good for; whether they are open."""

    def name_refused(self, container_id: str, name: str) -> None:
        """A container has asked for a name that its policy does not have."""


class Broken(OSError):
    """The process that is there cannot be used."""


@dataclass(slots=True)
class _Asker:
    options: AskerOptions
    path: str
    ports: tuple[int, int] | None = None
    pidfd: int = -1

    def close(self) -> None:
        """Forget the process."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class Resolving:
    """The resolver of one daemon. Thread-safe.

    Args:
        directory: the exec root, where the process is found again.

    Attributes:
        doorkeeper: set before the first container that has a policy.
    """

    def __init__(self, directory: Path) -> None:
        self.doorkeeper: Doorkeeper | None = None
        self._directory = directory
        self._lock = threading.Lock()
        self._members: dict[tuple[str, str], Membership] = {}
        self._askers: dict[str, _Asker] = {}
        self._held: set[str] = set()  # whose sockets the process has, of whom we know nothing yet
        self._connection: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._again_s = 0.0
        self._settled = False
        self._closing = False
        self._watcher: threading.Thread | None = None

    # --- what networks tell (names.Names) ---

    def attached(self, member: Member) -> None:
        """A container is in a network, or its names there are others now."""
        membership = Membership(
            member.container_id, member.network_id, member.network, member.names,
            member.addresses, member.links, member.internal,
        )  # fmt: skip
        with self._lock:
            self._members[member.network_id, member.container_id] = membership
            self._tell(encode(membership))

    def detached(self, network_id: str, container_id: str) -> None:
        """A container has left a network."""
        with self._lock:
            if self._members.pop((network_id, container_id), None) is not None:
                self._tell({"op": "leave", "network_id": network_id, "container_id": container_id})

    # --- what the engine tells ---

    def serve(self, options: AskerOptions, sandbox: str) -> None:
        """A container finds the resolver at 127.0.0.11 from now on, or with other upstreams than before.

        Args:
            sandbox: the file of its network namespace.

        Raises:
            OSError, SampanError: it does not; nothing was changed.
        """
        container_id = options.container_id
        with self._lock:
            known = self._askers.get(container_id)
            if known is not None:
                known.options = options
                self._tell(encode(options))
                return
            if self._connection is None:
                self._connect()
            if container_id in self._held:  # since the days of an earlier daemon
                self._held.remove(container_id)
                self._askers[container_id] = _Asker(options, sandbox)
                self._tell(encode(options))
                return
        doorway = open_doorway(sandbox)
        with self._lock:  # without a connection by now it is served with all others, when there is one again
            self._askers[container_id] = _Asker(options, sandbox, doorway.ports)
            self._hand_over(self._askers[container_id], doorway)
        doorway.close()

    def serves(self, container_id: str) -> bool:
        """Whether a container finds the resolver at 127.0.0.11."""
        return container_id in self._askers

    def ended(self, container_id: str) -> None:
        """A container has ended: nobody finds it any more, if that can be had at once."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            theirs = [key for key in self._members if key[1] == container_id]
            if theirs and self._connection is not None:
                message = {"op": "forget", "container_id": container_id}
                wire.send(self._connection, message, flags=socket.MSG_DONTWAIT)
                for key in theirs:
                    del self._members[key]
        except OSError:
            pass
        finally:
            self._lock.release()

    def released(self, container_id: str) -> None:
        """A container's network namespace ends, which the resolver's sockets would keep."""
        with self._lock:
            asker = self._askers.pop(container_id, None)
            if asker is not None:
                asker.close()
            if asker is not None or container_id in self._held:
                self._held.discard(container_id)
                self._tell({"op": "drop", "container_id": container_id})

    def lives(self, container_id: str, pidfd: int) -> None:
        """A container has a process: when that ends while no daemon is there, the resolver lets go by itself.

        Args:
            pidfd: of its process; it is closed in the end.
        """
        with self._lock:
            asker = self._askers.get(container_id)
            if asker is None:
                os.close(pidfd)
                return
            asker.close()
            asker.pidfd = pidfd
            self._tell_life(container_id, asker)

    def settle(self) -> None:
        """All containers of earlier daemons have been told of: what a resolver knows beyond is over."""
        with self._lock:
            self._settled = True
            if self._connection is not None:
                self._tell({"op": "end"})
            elif (self._directory / _SOCKET).exists():
                self._dismiss()
            if not self._askers:
                self._leave()

    def _dismiss(self) -> None:
        """Nobody needs the process that an earlier daemon has left."""
        try:
            connection, _ = self._find()
        except OSError:
            self._end_old()
            return
        with connection, suppress(OSError):
            wire.send(connection, {"op": "begin"})
            wire.send(connection, {"op": "end"})

    def close(self) -> None:
        """Let the resolver go on without this daemon; it ends when no container needs it."""
        with self._lock:
            self._closing = True
            self._leave()

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if not self._askers:
            (self._directory / _SOCKET).unlink(missing_ok=True)
            (self._directory / _PIDFILE).unlink(missing_ok=True)

    # --- the process ---

    def _tell(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """Send one packet; when that fails, the process is given up and the next one is told everything."""
        if self._connection is None:
            return
        try:
            wire.send(self._connection, message, fds or [])
        except OSError:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)  # which the watcher notices

    def _hand_over(self, asker: _Asker, doorway: Doorway) -> None:
        self._tell(encode(asker.options), [end.fileno() for end in doorway.ends])

    def _tell_life(self, container_id: str, asker: _Asker) -> None:
        if asker.pidfd >= 0:
            self._tell({"op": "lives", "container_id": container_id}, [asker.pidfd])

    def _connect(self) -> None:
        """Find the process or start it, and tell it everything.

        Raises:
            OSError: it cannot be started.
        """
        try:
            connection, self._held = self._find()
        except OSError:
            self._end_old()
            connection, self._held = self._spawn(), set()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _seconds(_PATIENCE_S))
        self._connection = connection
        self._tell({"op": "begin"})
        for member in self._members.values():
            self._tell(encode(member))
        for container_id, asker in self._askers.items():
            if container_id in self._held:
                self._held.remove(container_id)
                self._tell(encode(asker.options))
            else:
                self._open_again(container_id, asker)
            self._tell_life(container_id, asker)
        if self._settled:
            self._tell({"op": "end"})
        self._watcher = threading.Thread(
            target=self._watch, args=(connection, self._child), name="resolver", daemon=True
        )
        self._watcher.start()

    def _open_again(self, container_id: str, asker: _Asker) -> None:
        try:
            doorway = open_doorway(asker.path, asker.ports)
        except OSError as error:
            log.error("container %s cannot resolve names: %s", container_id[:12], error)
            return
        asker.ports = doorway.ports
        self._hand_over(asker, doorway)
        doorway.close()

    def _find(self) -> tuple[socket.socket, set[str]]:
        """The process that an earlier daemon has started, and the containers whose sockets it has."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            wire.widen(connection)
            connection.settimeout(_PATIENCE_S)
            with _at(self._directory) as name:
                connection.connect(name)
            held: set[str] = set()
            more = True
            while more:
                message, _ = wire.receive(connection)
                if message is None or (message["protocol"], message["version"]) != (
                    PROTOCOL,
                    sampan.__version__,
                ):
                    raise Broken("it is of another version")
                held.update(message["askers"])
                more = message["more"]
            connection.settimeout(None)
        except BaseException:
            connection.close()
            raise
        return connection, held

    def _end_old(self) -> None:
        """End a process that does not answer, or is of another version."""
        try:
            noted = json.loads((self._directory / _PIDFILE).read_text())
            process.kill_noted(int(noted["pid"]), int(noted["ticks"]))
        except (OSError, ValueError, LookupError):
            return

    def _spawn(self) -> socket.socket:
        """Start the process and connect: it reads what it is told when it has come up."""
        (self._directory / _SOCKET).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            wire.widen(connection)
            with _at(self._directory) as name:
                listener.bind(name)
                os.chmod(name, 0o600)
                listener.listen(4)
                connection.connect(name)
            self._child = start_helper(
                _PROGRAM,
                [listener.fileno()],
                words=[str(self._directory)],
                environment=PLAIN_ENVIRONMENT,
                stderr=subprocess.DEVNULL,
            )
        except BaseException:
            connection.close()
            raise
        finally:
            listener.close()
        note = {"pid": self._child.pid, "ticks": process.start_time_ticks(self._child.pid)}
        temporary = self._directory / f"{_PIDFILE}.new"
        temporary.write_text(json.dumps(note))
        temporary.rename(self._directory / _PIDFILE)
        return connection

    def _watch(self, connection: socket.socket, child: subprocess.Popen[bytes] | None) -> None:
        """Hear what the process has to say; when it ends, start it again."""
        begun = time.monotonic()
        while True:
            try:
                message, _ = wire.receive(connection)
            except OSError:
                message = None
            if message is None:
                break
            self._hear(connection, message)
        with self._lock:
            connection.close()
            if self._connection is not connection:  # it was left
                meant = True
            else:
                meant = self._closing
                self._connection = None
        if child is not None and meant:
            with suppress(subprocess.TimeoutExpired):
                child.wait(_PATIENCE_S)
        if not meant:
            self._heal(child, time.monotonic() - begun)

    def _hear(self, connection: socket.socket, message: dict[str, Any]) -> None:
        event, keeper = message["event"], self.doorkeeper
        if event == "trouble":
            log.error("the resolver: %s", message["text"])
        elif event == "refused" and keeper is not None:
            keeper.name_refused(message["container_id"], message["name"])
        elif event == "open":
            done = keeper is not None and keeper.open(
                message["container_id"], message["name"], map(tuple, message["addresses"])
            )
            with suppress(OSError):  # it has ended, and so has who asked
                wire.send(connection, {"op": "opened", "id": message["id"], "open": done})

    def _heal(self, child: subprocess.Popen[bytes] | None, lived_s: float) -> None:
        """Start the process again, each time later when it does not last."""
        if child is not None:
            child.kill()
            child.wait()
        if lived_s > _STEADY_S:
            self._again_s = 0.0
        while True:
            time.sleep(self._again_s)
            self._again_s = min(max(self._again_s * 2, _AGAIN_S), _LONGEST_AGAIN_S)
            with self._lock:
                if self._closing or self._connection is not None or not self._askers:
                    return
                log.error("the resolver of the containers' names died; it is started again")
                try:
                    self._connect()
                    return
                except (OSError, SampanError) as error:
                    log.error("the resolver cannot be started: %s", error)


class _at:
    """The socket's name, by the directory's descriptor: a path may be longer than an address."""

    def __init__(self, directory: Path) -> None:
        self._fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> str:
        return f"/proc/self/fd/{self._fd}/{_SOCKET}"

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _seconds(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), 0)
