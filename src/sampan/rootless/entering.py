"""How a daemon that an ordinary user starts gets a root of its own: by the keeper's namespaces.

The keeper is found or begun, its namespaces are joined, and the process executes itself anew: it keeps its
pid and its descriptors, and the kernel counts its memory to the namespace. What it holds of the keeper is one
connection, in an environment variable.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
from dataclasses import field
from pathlib import Path
from typing import Any, NoReturn

from sampan import outside
from sampan.dataclasses import dataclass
from sampan.errors import SampanError
from sampan.helpers import Program, start_helper
from sampan.linux import syscalls
from sampan.rootless import delegation
from sampan.rootless.keeper import MESSAGE_BYTES, SOCKET

_PROGRAM = Program("sampan.rootless.keeper", "sampan-keeper")
_VARIABLE = "SAMPAN_KEEPER"
_FLAGS = (  # as `spaces.KINDS`
    syscalls.CLONE_NEWUSER, syscalls.CLONE_NEWNS, syscalls.CLONE_NEWNET, syscalls.CLONE_NEWCGROUP,
)  # fmt: skip
_PATIENCE_S = 60.0
_ATTEMPTS = 3


@dataclass(slots=True)
class Inside:
    """What the keeper told of the namespaces that we are in.

    Attributes:
        connection: to the keeper; it is readable when that has gone.
        uplink: the program that leads out of the network namespace; "" for none.
        cgroups: whether containers can have cgroups.
        warnings: what is not as it would be with root.
    """

    connection: socket.socket
    uplink: str
    cgroups: bool
    warnings: list[str] = field(default_factory=list)


def entered(exec_root: Path) -> Inside | None:
    """What is around us when this process has entered the namespaces; None when it has not."""
    text = os.environ.pop(_VARIABLE, "")
    if not text:
        return None
    number, _, told = text.partition(":")
    note = json.loads(told)
    connection = socket.socket(fileno=int(number))
    connection.set_inheritable(False)
    outside.use(str(exec_root / SOCKET))
    return Inside(connection, note["uplink"], note.get("cgroup") is not None, note["warnings"])


def enter(exec_root: Path) -> NoReturn:
    """Join the namespaces of an exec root, and execute this program anew. For a process with one thread.

    Raises:
        SampanError: there is no keeper and none can be begun, and why.
    """
    try:
        exec_root.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SampanError(f"the exec root {exec_root} cannot be used: {error.strerror}") from None
    connection, told, fds = _meet(exec_root)
    if told.get("cgroup") is not None:
        delegation.move_into(delegation.Cgroup(**told["cgroup"]), delegation.DAEMON)
    directory = os.getcwd()
    for fd, flag in zip(fds, _FLAGS, strict=False):  # an older keeper has no cgroup namespace
        syscalls.setns(fd, flag)
        os.close(fd)
    try:
        os.chdir(directory)
    except OSError:
        os.chdir("/")
    try:
        os.setgroups([])
    except PermissionError:
        pass  # one id alone is mapped: what groups the user has stay, and are nobody's here
    connection.set_inheritable(True)
    os.environ[_VARIABLE] = f"{connection.fileno()}:{json.dumps(told)}"
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def met_again(exec_root: Path) -> socket.socket:
    """A connection to the keeper that has followed one that was killed.

    Raises:
        SampanError: there is none.
    """
    try:
        connection, _, fds = _ask_in(exec_root)
    except OSError as error:
        raise SampanError(f"the keeper of the namespaces has gone: {error.strerror or error}") from None
    for fd in fds:
        os.close(fd)
    return connection


def _meet(exec_root: Path) -> tuple[socket.socket, dict[str, Any], list[int]]:
    """A connection to the keeper, what it tells, and its namespaces."""
    for _ in range(_ATTEMPTS):
        try:
            return _ask_in(exec_root)
        except (FileNotFoundError, ConnectionError):
            pass  # there is none, or it was about to leave
        except OSError as error:
            raise SampanError(f"the keeper of {exec_root} does not answer: {error}") from None
        _begin(exec_root)
    raise SampanError(f"the keeper of {exec_root} ends as soon as it is begun")


def _ask_in(exec_root: Path) -> tuple[socket.socket, dict[str, Any], list[int]]:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(_PATIENCE_S)
        connection.connect(str(exec_root / SOCKET))
        connection.send(b'{"op": "enter"}')
        data, fds, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, len(_FLAGS))
        if not data:
            raise ConnectionResetError("it ends")
        connection.settimeout(None)
        return connection, json.loads(data), fds
    except BaseException:
        connection.close()
        raise


def _begin(exec_root: Path) -> None:
    """Begin a keeper, and wait until it has its namespaces."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            ours.send(os.fsencode(exec_root))
            start_helper(_PROGRAM, [theirs.fileno()])
        poll = select.poll()
        poll.register(ours, select.POLLIN)
        if not poll.poll(_PATIENCE_S * 1000):
            raise SampanError(f"the keeper of {exec_root} does not get ready")
        said = ours.recv(MESSAGE_BYTES)
    answer = json.loads(said) if said else {"error": "the keeper has ended"}
    if "error" in answer:
        raise SampanError(answer["error"])
