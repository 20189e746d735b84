"""The process outside: it keeps the namespaces and their way out, and hands in sockets.

An ordinary process of the user's. Daemons come and go; when none is connected and no process lives in the
namespaces, it ends. It listens at `keeper.sock` in the exec root (SOCK_SEQPACKET, JSON). When it is killed,
its parent, which does nothing else, begins it anew; when both are, the daemon ends too, and the next one
begins both again, which find the namespaces by the containers' monitors.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sampan.errors import SampanError
from sampan.linux import process, syscalls
from sampan.rootless import delegation, spaces
from sampan.rootless.uplink import LACKING, Uplink, program

log = logging.getLogger("sampan.rootless")

SOCKET, LOCK, NOTE = "keeper.sock", "keeper.lock", "namespaces.json"
MESSAGE_BYTES = 1 << 16
NO_CGROUPS = "containers cannot be limited, measured or paused"
_PARENT_NAME = "sampan-standby"
_PAUSE_S = 0.1
_LOCK_S = 50.0
_LOOK_S = 2.0


class Ground:
    """What outlives a keeper that is killed: the lock, the namespaces, the listening socket.

    Args:
        directory: the exec root.

    Raises:
        SampanError, OSError: they cannot be had.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.warnings: list[str] = []
        self._lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _wait_for(self._lock)
        self.spaces = spaces.find(directory / NOTE) or spaces.make(self._cgroup())
        if self.spaces.cgroup is not None:
            delegation.move_into(self.spaces.cgroup, delegation.KEEPER)
            self.warnings += delegation.shortcomings(self.spaces.cgroup)
        elif not self.warnings:
            self.warnings.append(
                f"{NO_CGROUPS}: those that run began so; once none runs and the daemon has ended, the next "
                "one asks anew"
            )
        self.spaces.record(directory / NOTE)
        if self.spaces.lacking:
            self.warnings.append(f"users of images other than root cannot exist: {self.spaces.lacking}")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        place = str(directory / SOCKET)
        with suppress(FileNotFoundError):
            os.unlink(place)
        self.listener.bind(place)
        os.chmod(place, 0o600)
        self.listener.listen(64)

    def _cgroup(self) -> delegation.Cgroup | None:
        try:
            return delegation.obtain(self.directory)
        except SampanError as error:
            self.warnings.append(f"{NO_CGROUPS}: {error.message}")
            return None


class Keeper:
    """See the module's description.

    Args:
        ground: what it stands on.
    """

    def __init__(self, ground: Ground) -> None:
        self._directory = ground.directory
        self._daemons = 0
        self._changed = threading.Condition()
        self._warnings = list(ground.warnings)
        self._spaces = ground.spaces
        self._listener = ground.listener
        self._uplink = self._go_out()

    def _go_out(self) -> Uplink | None:
        path = program()
        if not path:
            self._warnings.append(LACKING)
            return None
        made = Uplink(path, self._spaces.fds[0], self._spaces.fds[2])
        try:
            made.start()
        except OSError as error:
            self._warnings.append(f"networks lead nowhere: {path} cannot be run: {error.strerror}")
            return None
        return made

    def serve(self) -> None:
        """Serve daemons until nobody is left."""
        threading.Thread(target=self._accept, name="accept", daemon=True).start()
        idle_since = time.monotonic()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._daemons)
                self._changed.wait(_LOOK_S)
                if self._daemons:
                    idle_since = time.monotonic()
                    continue
            if time.monotonic() - idle_since < _LOOK_S or self._inhabited():
                continue
            with self._changed:  # who comes from now on is not let in, and begins a keeper of its own
                if not self._daemons:
                    with suppress(OSError):
                        os.unlink(self._directory / SOCKET)
                    return

    def _inhabited(self) -> bool:
        own = {self._uplink.pid} if self._uplink is not None else set()
        return bool(set(spaces.inhabitants(self._spaces.names()[:1])) - _with_children(own))

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(None)
            data = connection.recv(MESSAGE_BYTES)
            if data:
                question = json.loads(data)
                if question["op"] == "enter":
                    self._keep(connection)
                else:
                    _answer(connection, question)

    def _keep(self, connection: socket.socket) -> None:
        """A daemon comes in, and stays until its connection ends."""
        with self._changed:
            self._daemons += 1
            self._changed.notify_all()
        try:
            told = {
                "uplink": self._uplink.name if self._uplink is not None else "",
                "warnings": self._warnings,
                "cgroup": asdict(self._spaces.cgroup) if self._spaces.cgroup is not None else None,
            }
            socket.send_fds(connection, [json.dumps(told).encode()], self._spaces.fds)
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            poll.poll()
        finally:
            with self._changed:
                self._daemons -= 1
                self._changed.notify_all()


def _answer(connection: socket.socket, question: dict[str, Any]) -> None:
    try:
        if question["op"] == "socket":
            with socket.socket(question["family"], question["kind"], question["protocol"]) as made:
                socket.send_fds(connection, [b"{}"], [made.fileno()])
            return
        found = socket.getaddrinfo(question["host"], question["port"], type=socket.SOCK_STREAM)
        told: dict[str, Any] = {"addresses": [(int(family), address) for family, _, _, _, address in found]}
    except socket.gaierror as error:
        told = {"error": [error.errno, error.strerror], "name": True}
    except OSError as error:
        told = {"error": [error.errno, error.strerror]}
    connection.send(json.dumps(told).encode())


def _with_children(pids: set[int]) -> set[int]:
    """These processes, and what they have forked."""
    found = set(pids)
    for pid in pids:
        with suppress(OSError):
            found |= {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    return found


def _wait_for(lock: int) -> None:
    """Wait until an earlier keeper has ended."""
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise SampanError("another keeper of this exec root neither answers nor ends") from None
            time.sleep(0.05)
        else:
            return


def main(fd: int) -> None:
    """Be the keeper of the exec root that the socket `fd` names, and say there when ready."""
    syscalls.prctl_name(_PARENT_NAME)
    process.reset_signals()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o077)
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    starter = socket.socket(fileno=fd)
    starter.set_inheritable(False)
    try:
        ground = Ground(Path(os.fsdecode(starter.recv(4096))))
    except (SampanError, OSError) as error:
        text = error.message if isinstance(error, SampanError) else str(error)
        with suppress(OSError):
            starter.send(json.dumps({"error": text}).encode())
        return
    while _keep_once(ground, starter):
        log.error("the keeper of the namespaces has been killed; it is begun again")
        time.sleep(_PAUSE_S)


def _keep_once(ground: Ground, starter: socket.socket) -> bool:
    """Run a keeper in a process of its own; whether that was killed."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            syscalls.prctl_name("sampan-keeper")
            keeper = Keeper(ground)
            with suppress(OSError):  # the second one finds nobody who still waits
                starter.send(b"{}")
            starter.close()
            keeper.serve()
            status = 0
        except BaseException:
            log.exception("the keeper of the namespaces fails")
        finally:
            os._exit(status)
    starter.close()
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])
