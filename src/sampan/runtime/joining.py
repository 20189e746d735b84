"""The parent's half of an exec's start: one more process in a running container.

The process is made by a small program (`steps_program`) that is given lists of steps: a fork of this process
would first have to copy what Python touches. posix_spawn(3) shares our memory until that program runs.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import struct

from sampan.dataclasses import dataclass
from sampan.errors import SampanError
from sampan.linux import cgroups, kernel, namespaces, process, syscalls
from sampan.runtime.bundle import ProcessSpec
from sampan.runtime.entrance import cgroup_paths
from sampan.runtime.exec_steps import Way, first_steps, second_steps
from sampan.runtime.init import Refused
from sampan.runtime.newborn import reap
from sampan.runtime.searching import refusal
from sampan.runtime.start import Started
from sampan.runtime.steps import Meaning
from sampan.runtime.steps_program import FIRST_BYTES, NAME
from sampan.runtime.targets import Target
from sampan.runtime.told import (
    BORN,
    CANDIDATE,
    GO,
    MOVED,
    NO_DEVPTS,
    OUTSIDE,
    PROGRAM,
    SEARCHED,
    TERMINAL,
    TOLD,
    Hands,
)

# What the interpreter, the launcher and the monitor have changed; the launcher began with defaults.
_CHANGED_SIGNALS = (
    signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD,
)  # fmt: skip
_MESSAGE_BYTES = 65536
_CREDENTIALS = struct.Struct("iII")  # unix(7), struct ucred
_ANCILLARY = socket.CMSG_SPACE(4) + socket.CMSG_SPACE(_CREDENTIALS.size)


@dataclass(slots=True)
class Program:
    """The exec's program, once it is known; it may be about to fail yet."""

    pid: int
    pidfd: int


class Newcomer:
    """One exec's process on its way, from the first of its makers to its program.

    Args:
        program: a descriptor of the program that takes the steps.
        way: where they lead.
        report: our end of `way.hands.report`.

    Attributes:
        channel: it says here what becomes of it; execve closes that, which is how its success is known.
        pid, pidfd: the child of ours that it is now: at last the reaper, or without one the program.
        makers: children of ours that have made it and are about to end.
        program: its program, once it has told of it.
        terminal: the master of its terminal, once it has sent that.
        unborn: a child of ours may be there that we do not know of.
        gone: nobody has the channel any more.

    Raises:
        OSError: it could not be made.
    """

    def __init__(self, program: int, way: Way, channel: socket.socket, report: socket.socket | None) -> None:
        self.channel = channel
        self.report = report
        self.makers: list[int] = []
        self.program: Program | None = None
        self.terminal: int | None = None
        self._way = way
        self._wanted: ProcessSpec | None = None
        self._children: dict[int, int] = {}  # by their makers, of whom the first may be the last to tell
        self._early = 0  # the pid of its program, as the kernel told it
        self._failure: Exception | None = None
        self.gone = False
        self._meanings: dict[int, Meaning] = {}
        self._births = 2 if way.hands.unified >= 0 else 1
        self._list = os.memfd_create("steps", os.MFD_CLOEXEC)
        try:
            steps = first_steps(way)
            self._meanings.update(steps.meanings)
            os.write(self._list, steps.finish())
            kept = [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in way.hands.all()]
            self.pid = os.posix_spawn(
                f"/proc/self/fd/{program}", [NAME], {},
                file_actions=[(os.POSIX_SPAWN_DUP2, self._list, 0), *kept],
                setsigmask=(), setsigdef=_CHANGED_SIGNALS,
            )  # fmt: skip
        except BaseException:
            os.close(self._list)
            raise
        self.pidfd = syscalls.pidfd_open(self.pid)

    @property
    def unborn(self) -> bool:
        """See above."""
        return self._births > 0

    def go(self, wanted: ProcessSpec, size: tuple[int, int] | None) -> None:
        """Tell it its program, and let it go on.

        Args:
            size: rows and columns of its terminal.

        Raises:
            Refused, OSError: that cannot be.
        """
        self._wanted = wanted
        steps = second_steps(self._way, wanted, size)
        self._meanings.update(steps.meanings)
        os.pwrite(self._list, steps.finish(), FIRST_BYTES)
        try:
            self.channel.send(GO)
        except BrokenPipeError:
            pass  # it has failed already; its report is waiting

    def hear(self) -> bool:
        """Take one message; whether its program runs.

        It may come from whoever has got hold of it in the container by now: nothing of it is believed but
        what the kernel says.

        Raises:
            Refused: it could not start.
        """
        data, ancillary, _, _ = self.channel.recvmsg(_MESSAGE_BYTES, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        sender = self._take(ancillary)
        if not data:
            self.gone = True
            if self.program is None or self._failure is not None:
                raise self._failure or Refused("init", "the process was killed before it began")
            return True
        if len(data) < TOLD.size:
            raise Refused("init", "the process was tampered with")
        told, result = TOLD.unpack_from(data)
        if told == BORN and self._births:
            self._children[sender] = result
            while self._births and self.pid in self._children:
                self._born(self._children.pop(self.pid))
        elif told == MOVED and self._births == 2 and sender == self.pid:
            self._births = 1
        elif told == PROGRAM and self.program is None and not self._early:
            self._early = sender
        elif told != TERMINAL:
            self._failure = self._refusal(told, result, data)
            if sender == self.pid:
                self._births = 0  # who tells of its own failure has made nobody
        if self._births:
            return False  # who is told of, and who tells, may be heard before its maker
        if self._failure is not None:
            raise self._failure
        if self._early and self.program is None:
            self._know(self._early)
        return False

    def _take(self, ancillary: list[tuple[int, int, bytes]]) -> int:
        """The sender's pid; a descriptor is kept if it is the terminal's."""
        sender = 0
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                sender = _CREDENTIALS.unpack(content)[0]
            elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                (fd,) = struct.unpack("i", content[:4])
                # The first is the one: it was sent before anything was in the container, even if the process
                # that sent it is not known yet, as its maker may tell of it later.
                if self._births and self.terminal is None and self._wanted and self._wanted.terminal:
                    self.terminal = fd
                else:
                    os.close(fd)
        return sender

    def _born(self, pid: int) -> None:
        """It has gone on in a child of ours, and is about to end itself."""
        self.makers.append(self.pid)
        os.close(self.pidfd)
        self.pid, self.pidfd = pid, syscalls.pidfd_open(pid)
        self._births -= 1

    def _know(self, pid: int) -> None:
        """Its program is this process, whose pid the kernel has told; a reaper waits for our word."""
        if self.report is None:
            if pid != self.pid:
                raise Refused("init", "the process was tampered with")
            self.program = Program(pid, os.dup(self.pidfd))
            return
        pidfd = syscalls.pidfd_open(pid)
        if process.parent(pid) != self.pid:
            os.close(pidfd)
            raise Refused("init", "the process was tampered with")
        self.program = Program(pid, pidfd)
        self._let_wait()

    def _refusal(self, told: int, result: int, data: bytes) -> Exception:
        number = -result if 0 < -result < 4096 else 0
        if told == SEARCHED and self._wanted is not None:
            whole = len(data) - (len(data) - TOLD.size) % CANDIDATE.size
            return refusal(self._wanted, list(CANDIDATE.iter_unpack(data[TOLD.size : whole])))
        if told == NO_DEVPTS:
            return Refused("terminal", "open /dev/pts/ptmx: not on a devpts file system", errno.EINVAL)
        if told == OUTSIDE and self._wanted is not None:
            text = f"the working directory {self._wanted.cwd!r} is outside of the container's root"
            return Refused("cwd", text, errno.EPERM)
        meaning = self._meanings.get(told)
        return meaning(number) if meaning is not None else Refused("init", os.strerror(number), number)

    def leave(self) -> None:
        """Have it end where it waits for `go`; what there is else is to be heard of, and killed then."""
        self.channel.shutdown(socket.SHUT_WR)

    def reap_makers(self) -> None:
        """Collect those that have made it."""
        for pid in self.makers:
            os.waitpid(pid, 0)
        self.makers.clear()

    def close(self) -> None:
        """Close the channel and the list; the process goes on."""
        self.channel.close()
        os.close(self._list)

    @property
    def reaper(self) -> bool:
        """Whether it is a reaper by now."""
        return self.report is not None and not self._births and bool(self.makers)

    def kill(self) -> None:
        """Kill it, and let go of its terminal and its program; it is still to be waited for.

        A reaper is not killed, but told to wait for its program, which would be a zombie else.
        """
        if self.terminal is not None:
            os.close(self.terminal)
            self.terminal = None
        program, self.program = self.program, None
        if program is not None:
            _kill(program.pidfd)
            os.close(program.pidfd)
        if self.reaper:
            self._let_wait()
        else:
            _kill(self.pidfd)

    def _let_wait(self) -> None:
        assert self.report is not None
        try:
            self.report.send(GO)
        except OSError:
            pass  # it has been killed, as its end will tell, or has had its word


def _kill(pidfd: int) -> None:
    try:
        syscalls.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass


def begin_exec(
    program: int,
    identifier: str,
    container_pid: int,
    where: Target,
    stdio: tuple[int, int, int],
    *,
    guarded: bool = True,
    leaf: cgroups.Leaf | None = None,
    reaped: bool = True,
) -> Newcomer:
    """Make the process, which goes to the container's cgroups and waits for `Newcomer.go`.

    Args:
        program: a descriptor of the program that takes the steps (`steps_program`).
        identifier: the exec's id.
        container_pid: the container's first process.
        where: what to join.
        stdio: descriptors for 0, 1 and 2, without a terminal.
        guarded: it is killed when this process dies.
        leaf: its own cgroup below the container's.
        reaped: its program has a reaper for parent, which tells of its end; `Newcomer.report` is ours.

    Raises:
        Refused: with the stage and the text for the user.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    reports = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) if reaped else None
    if reports is not None:
        reports[0].setblocking(False)  # somebody in the container may keep the other end
    opened: list[int] = []
    try:
        container = syscalls.pidfd_open(container_pid)
        opened.append(container)
        unified, paths = _cgroups(container_pid, where, leaf)
        if unified:
            opened.append(os.open(unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        directory = opened[-1] if unified else -1
        tasks = where.tasks
        if not tasks:
            for path in paths:
                opened.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
            tasks = tuple(opened[len(opened) - len(paths) :]) if paths else ()
        own_view = leaf is not None and "cgroup" in where.namespaces
        kinds = [kind for kind in where.namespaces if not (own_view and kind == "cgroup")]
        spaces = namespaces.open_each(container_pid, kinds) if kernel.release() < (5, 8) else []
        opened += [fd for fd, _ in spaces]
        if stdio[0] < 3:
            opened.append(os.dup(stdio[0]))
            stdio = (opened[-1], stdio[1], stdio[2])
        owned = tuple(
            number for number, fd in enumerate(stdio) if stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd)
        )
        report = reports[1].fileno() if reports is not None else -1
        hands = Hands(theirs.fileno(), report, container, directory, tasks, stdio, owned, tuple(spaces))
        way = Way(os.uname().machine, hands, where, identifier, guarded, own_view, paths)
        newcomer = Newcomer(program, way, ours, reports[0] if reports is not None else None)
    except OSError as error:
        _close(ours, reports[0] if reports is not None else None)
        where_ = f"{error.filename}: " if isinstance(error.filename, str) else ""
        raise Refused("init", f"{where_}{error.strerror or error}", error.errno or 0) from None
    except SampanError as error:
        _close(ours, reports[0] if reports is not None else None)
        raise Refused("init", error.message) from None
    finally:
        _close(theirs, reports[1] if reports is not None else None)
        for fd in opened:
            os.close(fd)
    return newcomer


def _close(*sockets: socket.socket | None) -> None:
    for one in sockets:
        if one is not None:
            one.close()


def _cgroups(container_pid: int, where: Target, leaf: cgroups.Leaf | None) -> tuple[str, tuple[str, ...]]:
    """The directory in the unified hierarchy, "" for none, and the `tasks` files in the others.

    A container may have made cgroups inside of its own and given them controllers; on v2 its own then takes
    no process any more (cgroup-v2.rst, "No Internal Process Constraint"), and an exec without a cgroup of its
    own goes where the container's first process is.
    """
    if not where.cgroups_path:
        return "", ()
    manager = cgroups.manager_for(where.cgroups_path)
    unified, paths = cgroup_paths(manager, leaf)
    if unified and leaf is None and manager.version == 2:
        unified = cgroups.unified_directory(container_pid)
    return unified, paths


def open_tasks(cgroups_path: str) -> tuple[int, ...]:
    """The `tasks` files of a container's v1 cgroups, for one who starts many processes in it.

    Opening them anew costs each as much as joining. None where an exec's own cgroup is among them (v1 alone,
    see `cgroups.Leaf`), or where there is no v1.
    """
    if not cgroups_path:
        return ()
    manager = cgroups.manager_for(cgroups_path)
    if manager.version == 2 or "" not in manager.paths():
        return ()
    opened: list[int] = []
    try:
        for path in cgroup_paths(manager)[1]:
            opened.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
    except OSError:
        for fd in opened:
            os.close(fd)
        return ()  # each exec opens them, and says which is missing
    return tuple(opened)


def start_exec(
    program: int,
    identifier: str,
    container_pid: int,
    where: Target,
    wanted: ProcessSpec,
    stdio: tuple[int, int, int],
    *,
    guarded: bool = True,
) -> Started:
    """Start a process without a reaper and wait until its program runs; arguments as for `begin_exec`.

    Raises:
        Refused: with the stage and the text for the user.
    """
    newcomer = begin_exec(program, identifier, container_pid, where, stdio, guarded=guarded, reaped=False)
    try:
        newcomer.go(wanted, None)
        while not newcomer.hear():
            pass
    except BaseException as error:
        newcomer.kill()
        newcomer.reap_makers()
        reap(newcomer.pid, newcomer.pidfd)
        if isinstance(error, OSError):
            raise Refused("init", str(error.strerror or error), error.errno or 0) from None
        raise
    finally:
        newcomer.close()
    newcomer.reap_makers()
    assert newcomer.program is not None
    os.close(newcomer.program.pidfd)
    return Started(newcomer.pid, newcomer.pidfd, newcomer.terminal)
