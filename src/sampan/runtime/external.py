"""Containers by an OCI runtime that is a program of its own (runc, crun, …), called by the monitor.

The command line is runc's, which all of them have: `create`, `start`, `exec`, `delete`. What such a program
makes becomes the monitor's child once the program has left (prctl(2), PR_SET_CHILD_SUBREAPER): its streams,
signals and end are then as those of our own. Its state lies in the run's directory and vanishes with it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from typing import NoReturn

from sampan.linux import cgroups, process, syscalls, terminals
from sampan.runtime.init import Refused
from sampan.runtime.protocol import PROGRAM_FD, REPORT_FD
from sampan.runtime.start import Started

STATE_DIRECTORY = "runtime"  # within the run's directory
_DELETE_S = 10.0
_NO_PROGRAM = ("executable file", "no such file or directory")
_NO_RIGHT = ("permission denied", "is a directory", "exec format error")
_PHRASES = ("No such file or directory", "Permission denied", "Is a directory", "Exec format error")
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class Runtime:
    """One container's external runtime.

    Args:
        words: what starts the program: its path and arguments for every call.
        identifier: the container's id.
        rundir: the container's run directory.
    """

    def __init__(self, words: Sequence[str], identifier: str, rundir: str) -> None:
        self.name = os.path.basename(words[0])
        self._words = list(words)
        self._id = identifier
        self._rundir = rundir
        self._adopting = 0
        self._knows_cgroups: bool | None = None

    # --- the container ---

    def start_container(
        self,
        bundle: str,
        stdio: tuple[int, int, int],
        terminal: bool,
        terminal_size: tuple[int, int] | None,
        meanwhile: Callable[[int], None],
    ) -> Started:
        """Create and start the container.

        Args:
            bundle: the directory of its config.json.
            stdio: descriptors for 0, 1 and 2, without a terminal.
            terminal: whether it has one.
            terminal_size: its rows and columns.
            meanwhile: called with its pid before it is started.

        Raises:
            Refused: with the runtime's own words; nothing is left of it.
        """
        console = Console(self._rundir) if terminal else None
        self.adopt_orphans(True)
        try:
            arguments = ["create", "--bundle", bundle, "--pid-file", f"{self._rundir}/init.pid"]
            pid = self._spawn(self._rundir, [*arguments, *_flags(console), self._id], stdio)
            self.check(self._rundir, "create", _wait(pid))
            started = self.collect(self._rundir, console, terminal_size)
        except BaseException:
            self.delete()
            raise
        finally:
            self.adopt_orphans(False)
            if console is not None:
                console.close()
        try:
            meanwhile(started.pid)
            self.check(self._rundir, "start", _wait(self._spawn(self._rundir, ["start", self._id])))
        except BaseException:
            self.delete()
            _abandon(started)
            raise
        return started

    def delete(self) -> str:
        """Remove what the runtime keeps of the container, and kill it if it lives; what went wrong, or ""."""
        try:
            pid = self._spawn(self._rundir, ["delete", "--force", self._id])
            status = _wait(pid, _DELETE_S)
        except Refused as error:
            return error.text
        return "" if status == 0 else self._words_of(self._rundir, "delete", status)

    # --- execs ---

    def spawn_exec(
        self,
        rundir: str,
        stdio: tuple[int, int, int],
        console: Console | None,
        reaper: tuple[int, int] | None = None,
        leaf: cgroups.Leaf | None = None,
    ) -> int:
        """Begin to add a process to the container, as `process.json` in `rundir` has it.

        Args:
            rundir: the exec's run directory.
            stdio: descriptors for 0, 1 and 2, without a terminal.
            console: its terminal, if it has one.
            reaper: the program of its reaper, and where that reports.
            leaf: its own cgroup, below the container's in the hierarchy of the freezer.

        Returns:
            the pid of the runtime, which leaves when the process runs or is refused.

        Raises:
            Refused: the runtime cannot be called.
        """
        arguments = ["exec", "--detach", "--process", f"{rundir}/process.json"]
        arguments += ["--pid-file", f"{rundir}/init.pid", *_flags(console)]
        if leaf is not None:
            arguments.append(f"--cgroup=freezer:/{os.path.basename(leaf.path)}")
        if reaper is None:
            return self._spawn(rundir, [*arguments, self._id], stdio)
        program, report = reaper
        places = {REPORT_FD: report, PROGRAM_FD: program}
        more = [places[fd] for fd in range(3, 3 + len(places))]
        return self._spawn(rundir, [*arguments, f"--preserve-fds={len(more)}", self._id], (*stdio, *more))

    def knows_cgroups(self) -> bool:
        """Whether an exec can have a cgroup of its own: with runc since 1.1, which is when `features` came.

        crun has `--cgroup` too, but on cgroup v1 wants the cgroup in each hierarchy.
        """
        if self._knows_cgroups is None:
            self._knows_cgroups = False
            if self.name == "runc":
                nowhere = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
                try:
                    pid = self._spawn(self._rundir, ["features"], (nowhere, nowhere, nowhere))
                finally:
                    os.close(nowhere)
                self._knows_cgroups = _wait(pid) == 0
        return self._knows_cgroups

    def adopt_orphans(self, wanted: bool) -> None:
        """Whether what the runtime leaves behind becomes our child; calls with True and False are counted.

        Not for longer than it takes: a container in the host's pid namespace has orphans of its own.
        """
        self._adopting += 1 if wanted else -1
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1 if self._adopting else 0)

    @property
    def busy(self) -> bool:
        """Whether a call is under way that may leave us a child whom nobody knows yet."""
        return self._adopting > 0

    def check(self, rundir: str, verb: str, status: int) -> None:
        """Raise `Refused` in the runtime's words unless its call was a success."""
        if status == 0:
            return
        text = self._words_of(rundir, verb, status)
        number = 0
        if any(phrase in text for phrase in _NO_PROGRAM):
            number = errno.ENOENT
        elif any(phrase in text for phrase in _NO_RIGHT):
            number = errno.EACCES
        raise Refused("runtime", text, number)

    def collect(self, rundir: str, console: Console | None, terminal_size: tuple[int, int] | None) -> Started:
        """The process that a call has made, now our child.

        Raises:
            Refused: the runtime has not said which it is, or has kept its terminal.
        """
        try:
            with open(f"{rundir}/init.pid", "rb") as file:
                pid = int(file.read())
            pidfd = syscalls.pidfd_open(pid)
        except (OSError, ValueError) as error:
            raise Refused("runtime", f"{self.name} has left no process behind: {error}") from None
        started = Started(pid, pidfd, None)
        if console is not None:
            try:
                started.terminal = console.take()
                if terminal_size is not None:
                    terminals.set_size(started.terminal, *terminal_size)
            except OSError as error:
                _abandon(started)
                raise Refused("runtime", f"{self.name} has sent no terminal: {error}") from None
        return started

    # --- calls ---

    def _spawn(self, rundir: str, arguments: list[str], given: tuple[int, ...] = (0, 0, 0)) -> int:
        """Run the program with these descriptors from 0 on; descriptor 0 is /dev/null here."""
        log = f"{rundir}/runtime.log"
        try:
            os.unlink(log)
        except FileNotFoundError:
            pass
        words = [*self._words, "--root", f"{self._rundir}/{STATE_DIRECTORY}"]
        words += ["--log", log, "--log-format", "json", *arguments]
        pid = -1
        # None of them may be the place of another.
        copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(given)) for fd in given]
        try:
            os.stat(words[0])
            # Not posix_spawn(3): it leaves glibc's own signals ignored, and so they are in the container.
            pid = os.fork()
        except OSError as error:
            raise Refused("runtime", f"{words[0]}: {error.strerror}", error.errno or 0) from None
        finally:
            if pid != 0:
                for fd in copies:
                    os.close(fd)
        if pid == 0:
            _become(words, copies)
        return pid

    def _words_of(self, rundir: str, verb: str, status: int) -> str:
        """The last error in the runtime's log."""
        text = f"exit status {status}" if status >= 0 else f"killed by signal {-status}"
        try:
            with open(f"{rundir}/runtime.log", encoding="utf-8", errors="replace") as log:
                for line in log:
                    entry = json.loads(line)
                    if entry.get("level") in ("error", "fatal"):
                        text = str(entry.get("msg", "")).strip()
        except (OSError, ValueError, AttributeError):
            pass
        for phrase in _PHRASES:  # clients look for Go's spelling
            text = text.replace(phrase, phrase.lower())
        return f"{self.name} {verb} failed: {text.replace(chr(10), ' ')}"


class Console:
    """The socket on which a runtime hands over the terminal of what it starts (OCI runtime command line).

    Args:
        rundir: where to put it.
    """

    def __init__(self, rundir: str) -> None:
        self._name = f"{rundir}/console.sock"
        self._directory = os.open(rundir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # By way of a descriptor of ours: a socket's path may have 107 bytes only.
        self._socket.bind(f"/proc/self/fd/{self._directory}/console.sock")
        self._socket.listen(1)
        self._socket.setblocking(False)
        self.path = f"/proc/{os.getpid()}/fd/{self._directory}/console.sock"

    def take(self) -> int:
        """The terminal's master, from a runtime that has left.

        Raises:
            OSError: it has sent none.
        """
        connection, _ = self._socket.accept()
        with connection:
            _, fds, _, _ = socket.recv_fds(connection, 4096, 1, socket.MSG_CMSG_CLOEXEC)
        if not fds:
            raise OSError(errno.EPROTO, "no descriptor came with its message")
        os.set_inheritable(fds[0], False)
        return fds[0]

    def close(self) -> None:
        """Take the socket away."""
        self._socket.close()
        os.close(self._directory)
        try:
            os.unlink(self._name)
        except FileNotFoundError:
            pass


def _become(words: list[str], given: list[int]) -> NoReturn:
    """The rest of a forked child's life: the program, or exit status 127."""
    try:
        process.reset_signals()
        for place, fd in enumerate(given):
            os.dup2(fd, place)
        os.execve(words[0], words, _ENVIRONMENT)
    finally:
        os._exit(127)


def _flags(console: Console | None) -> list[str]:
    return [] if console is None else ["--console-socket", console.path]


def _abandon(started: Started) -> None:
    """End a process that is not wanted after all."""
    try:
        syscalls.pidfd_send_signal(started.pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        os.waitpid(started.pid, 0)
    except ChildProcessError:
        pass  # the runtime's own child still, and collected there
    os.close(started.pidfd)
    if started.terminal is not None:
        os.close(started.terminal)


def _wait(pid: int, limit_s: float | None = None) -> int:
    """The exit code of a child, negative for a signal; one that takes longer than `limit_s` is killed."""
    if limit_s is not None:
        pidfd = syscalls.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(limit_s * 1000):
                os.kill(pid, signal.SIGKILL)
        finally:
            os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
