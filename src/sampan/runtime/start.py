"""The parent's half of a start: clone, cgroups, hooks, and the wait until the program runs or was refused.

Used by the monitor, and by `sampan-runtime`, which has none. On failure everything made here is undone.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sampan.errors import SampanError
from sampan.linux import cgroups, namespaces, process, syscalls
from sampan.runtime import hooks, init
from sampan.runtime.bundle import ContainerSpec, ProcessSpec
from sampan.runtime.init import Entry, Refused
from sampan.runtime.operations import Plan
from sampan.runtime.plan import build_plan
from sampan.runtime.targets import Filters, Target


@dataclass(slots=True)
class Started:
    """A process whose program runs. `terminal` is its master descriptor, when it has one."""

    pid: int
    pidfd: int
    terminal: int | None
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Timings:
    """Where a start's time goes: (step, seconds since the previous one)."""

    steps: list[tuple[str, float]] = field(default_factory=list)
    _last: float = field(default_factory=time.perf_counter)

    def mark(self, name: str) -> None:
        """End of the step `name`."""
        now = time.perf_counter()
        self.steps.append((name, now - self._last))
        self._last = now


def plan_container(spec: ContainerSpec) -> Plan:
    """The steps that furnish a container's root on this machine."""
    if not spec.cgroups_path:
        return build_plan(spec, {}, 2)
    manager = cgroups.manager_for(spec.cgroups_path)
    return build_plan(spec, manager.paths(), manager.version)


def start_container(
    identifier: str,
    bundle: str,
    spec: ContainerSpec,
    stdio: tuple[int, int, int],
    filters: Filters,
    *,
    terminal_size: tuple[int, int] | None = None,
    guarded: bool = True,
    wait: Callable[[], None] | None = None,
    kept: tuple[int, ...] = (),
    plan: Plan | None = None,
    timings: Timings | None = None,
    meanwhile: Callable[[int], None] | None = None,
) -> Started:
    """Start a container's first process.

    Args:
        identifier: the container's id.
        bundle: its directory; a relative root.path is taken from there.
        spec: its configuration.
        stdio: descriptors for 0, 1 and 2, without a terminal.
        filters: compiled seccomp program and flags.
        terminal_size: rows and columns.
        guarded: the container is killed when this process dies.
        wait: run in the child before its program; this call then returns when the child gets there.
        kept: descriptors that `wait` needs in the child.
        plan: the steps for its root, if they were planned before.
        timings: filled in, when given.
        meanwhile: called with the child's pid, for what can be done while the child prepares itself.

    Raises:
        Refused: with the stage and the text for the user.
    """
    if spec.process is None:
        raise Refused("config", "config.json: process is missing", errno.EINVAL)
    timings = timings or Timings()
    manager = cgroups.manager_for(spec.cgroups_path) if spec.cgroups_path else None
    warnings: list[str] = []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    state: dict[str, object] = {
        "ociVersion": "1.2.0", "id": identifier, "status": "creating", "bundle": bundle,
        "annotations": spec.annotations,
    }  # fmt: skip

    def announce() -> None:
        theirs.send(b"ready")
        assert wait is not None
        wait()

    entry = Entry(
        spec.process, theirs, stdio, filters, identifier, terminal_size, guarded,
        announce if wait is not None else None, kept, state,
    )  # fmt: skip
    child: tuple[int, int] | None = None
    try:
        if manager is not None:
            try:
                warnings = manager.create(spec.resources)
            except OSError as error:
                where = f": {error.filename}" if error.filename else ""
                raise Refused("cgroup", f"{error.strerror}{where}", error.errno or 0) from None
            except SampanError as error:
                raise Refused("cgroup", error.message) from None
        timings.mark("cgroups made")
        steps = plan or plan_container(spec)
        rootfs = os.path.join(bundle, spec.rootfs)
        flags = 0
        for kind, path in spec.namespaces.items():
            if not path and kind != "cgroup":
                flags |= namespaces.flag(kind)
        joined = spec.namespaces.get("pid")
        join_pid = partial(namespaces.join_path, "pid", joined) if joined else None
        entrance = _cgroup_entry(manager)
        child = _clone(flags, entrance, join_pid)
        if child[0] == 0:
            ours.close()
            init.run(entry, lambda entry: init.container(entry, spec, rootfs, steps, entrance.join))
        theirs.close()
        timings.mark("cloned")
        pid, pidfd = child
        _set_oom_score(pid, spec.process)
        timings.mark("parent done")
        state["pid"] = pid
        for name in ("prestart", "createRuntime"):
            hooks.run_all(spec.hooks.get(name, []), state)
        _go(ours)
        if meanwhile is not None:
            meanwhile(pid)
        terminal = _await_exec(ours)
        timings.mark("executed")
        return Started(pid, pidfd, terminal, warnings)
    except BaseException as error:
        if child is not None:
            _reap(*child)
        if manager is not None:
            _undo(manager.remove, error)
        if isinstance(error, OSError):
            where = f": {error.filename}" if isinstance(error.filename, str) else ""
            raise Refused("init", f"{error.strerror or error}{where}", error.errno or 0) from None
        raise
    finally:
        ours.close()
        theirs.close()


def start_exec(
    identifier: str,
    container_pid: int,
    where: Target,
    load: Callable[[], ProcessSpec],
    stdio: tuple[int, int, int],
    *,
    terminal_size: tuple[int, int] | None = None,
    guarded: bool = True,
    ready: Callable[[], None] | None = None,
    meanwhile: Callable[[int], None] | None = None,
) -> Started:
    """Start one more process in a running container; other arguments as for `start_container`.

    Args:
        load: gives the program to run; called when the process is made already, here and in the child.
        ready: returns when `load` can be called.

    Raises:
        Refused: with the stage and the text for the user.
    """
    manager = cgroups.manager_for(where.cgroups_path) if where.cgroups_path else None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    entry = Entry(None, theirs, stdio, where.filters, identifier, terminal_size, guarded)
    child: tuple[int, int] | None = None
    target = -1
    try:
        target = syscalls.pidfd_open(container_pid)
        kinds = where.namespaces
        join_pid = partial(namespaces.join_process, container_pid, target, ["pid"])
        entrance = _cgroup_entry(manager)
        entrance.neighbour = container_pid
        child = _clone(0, entrance, join_pid if "pid" in kinds else None)
        if child[0] == 0:
            ours.close()
            init.run(
                entry, lambda entry: init.joined(entry, container_pid, target, kinds, entrance.join, load)
            )
        theirs.close()
        pid, pidfd = child
        if ready is not None:
            ready()
        _set_oom_score(pid, load())
        _go(ours)
        if meanwhile is not None:
            meanwhile(pid)
        return Started(pid, pidfd, _await_exec(ours))
    except BaseException as error:
        if child is not None:
            _reap(*child)
        if isinstance(error, OSError):
            raise Refused("init", str(error.strerror or error), error.errno or 0) from None
        raise
    finally:
        if target >= 0:
            os.close(target)
        ours.close()
        theirs.close()


@dataclass(slots=True)
class _CgroupEntry:
    """How a new process gets into its cgroups.

    It is born in its unified one (CLONE_INTO_CGROUP), and writes itself into the `tasks` file of each v1
    hierarchy: moving only oneself takes no lock of the whole system, where a write of another's pid to
    `cgroup.procs` waits for an RCU grace period (Linux kernel/cgroup/cgroup.c, cgroup_procs_write_start).

    A container may have made cgroups inside of its own and given them controllers; on v2 its own then takes
    no process any more (cgroup-v2.rst, "No Internal Process Constraint"), and an exec goes where `neighbour`,
    the container's first process, is.
    """

    directory: int | None
    tasks: tuple[str, ...]
    neighbour: int | None = None

    def close(self) -> None:
        if self.directory is not None:
            os.close(self.directory)

    def clone(self, flags: int) -> tuple[int, int]:
        if self.directory is None:
            return process.clone(flags)
        try:
            return self._clone_into(flags)
        except OSError as error:
            if self.neighbour is None or error.errno not in (errno.EBUSY, errno.EOPNOTSUPP):
                raise
        os.close(self.directory)
        self.directory = None
        path = cgroups.unified_directory(self.neighbour)
        self.directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._clone_into(flags)

    def _clone_into(self, flags: int) -> tuple[int, int]:
        try:
            return process.clone(flags, self.directory)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.E2BIG):
                raise
        # CLONE_INTO_CGROUP came with kernel 5.7. The child waits for our "go", or joins what is here first.
        child = process.clone(flags)
        if child[0] != 0:
            try:
                _write_pid(self.directory, child[0])
            except OSError:
                _reap(*child)
                raise
        return child

    def join(self) -> None:
        for path in self.tasks:
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, b"0")
                finally:
                    os.close(fd)
            except OSError as error:
                raise Refused("cgroup", f"{path}: {error.strerror}", error.errno or 0) from None


def _cgroup_entry(manager: cgroups.Manager | None) -> _CgroupEntry:
    if manager is None:
        return _CgroupEntry(None, ())
    if manager.version == 2:
        return _CgroupEntry(manager.open_dirfd(), ())
    paths = manager.paths()
    unified = paths.pop("", None)
    directory = os.open(unified, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if unified else None
    return _CgroupEntry(directory, tuple(f"{path}/tasks" for path in dict.fromkeys(paths.values())))


def _clone(flags: int, entry: _CgroupEntry, join_pid: Callable[[], None] | None) -> tuple[int, int]:
    """Clone into the container's cgroup. A pid namespace that is joined for the child is left again here."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if join_pid is not None else -1
    if join_pid is not None:
        join_pid()
    child = (-1, -1)
    try:
        child = entry.clone(flags)
    finally:
        if own >= 0:
            if child[0] != 0:
                syscalls.setns(own, syscalls.CLONE_NEWPID)
            os.close(own)
        entry.close()
    return child


def _write_pid(cgroup: int | None, pid: int) -> None:
    fd = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup)
    try:
        os.write(fd, b"%d" % pid)
    finally:
        os.close(fd)


def _set_oom_score(pid: int, wanted: ProcessSpec) -> None:
    if wanted.oom_score_adj is None:
        return
    path = f"/proc/{pid}/oom_score_adj"
    with open(path, "r+b", buffering=0) as file:
        if int(file.read()) == wanted.oom_score_adj:
            return
        try:
            file.seek(0)
            file.write(b"%d" % wanted.oom_score_adj)
        except PermissionError:
            if wanted.oom_score_adj == 0:
                return  # nobody asked; the daemon itself was raised, and may not lower it again
            raise Refused(
                "oom",
                f"oom_score_adj {wanted.oom_score_adj}: lowering it needs CAP_SYS_RESOURCE",
                errno.EPERM,
            ) from None


def _go(channel: socket.socket) -> None:
    try:
        channel.send(b"go")
    except BrokenPipeError:
        pass  # it has failed already; its report is waiting


def _await_exec(channel: socket.socket) -> int | None:
    """Read what the child says until the channel closes, which execve does."""
    terminal: int | None = None
    while True:
        data, fds, _, _ = socket.recv_fds(channel, 65536, 1)
        if fds:
            terminal = fds[0]
            os.set_inheritable(terminal, False)
        if data in (b"", b"ready"):
            return terminal
        if data != b"terminal":
            report: dict[str, Any] = json.loads(data)
            if terminal is not None:
                os.close(terminal)
            raise Refused(report["stage"], report["text"], report["errno"])


def _reap(pid: int, pidfd: int) -> None:
    if pid == 0:
        return
    try:
        syscalls.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    os.waitpid(pid, 0)
    os.close(pidfd)


def _undo(action: Callable[[], None], cause: BaseException) -> None:
    try:
        action()
    except (OSError, SampanError) as error:
        cause.add_note(f"and cleaning up failed: {error}")
