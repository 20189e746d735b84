"""The parent's half of a container's start: cgroups, clone, hooks, the wait for its program.

Used by the monitor, and by `sampan-runtime`, which has none. On failure everything made here is undone.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from dataclasses import field
from functools import partial

from sampan.dataclasses import dataclass
from sampan.errors import SampanError
from sampan.linux import cgroups, idmaps, namespaces
from sampan.runtime import hooks, init
from sampan.runtime.bundle import ContainerSpec, IdMappings
from sampan.runtime.entrance import cgroup_entry, clone
from sampan.runtime.init import Entry, Refused
from sampan.runtime.newborn import Newborn
from sampan.runtime.operations import BindMount, Plan
from sampan.runtime.plan import build_plan
from sampan.runtime.targets import Filters


@dataclass(slots=True)
class Started:
    """A process whose program runs. `terminal` is its master descriptor, when it has one."""

    pid: int
    pidfd: int
    terminal: int | None
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Timings:
    """Where a start's time goes: (step, seconds since the one before); `began` is by the monotonic clock."""

    steps: list[tuple[str, float]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    _last: float = 0.0

    def __post_init__(self) -> None:
        self._last = self.began

    def mark(self, name: str) -> None:
        """End of the step `name`."""
        now = time.monotonic()
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
    newborn: Newborn | None = None
    maps: list[int] = []
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
        _make_id_maps(steps, maps)
        rootfs = os.path.join(bundle, spec.rootfs)
        flags = 0
        for kind, path in spec.namespaces.items():
            if not path and kind != "cgroup":
                flags |= namespaces.flag(kind)
        joined = spec.namespaces.get("pid")
        join_pid = partial(namespaces.join_path, "pid", joined) if joined else None
        entrance = cgroup_entry(manager)
        try:
            child = clone(flags, entrance, join_pid)
        except OSError as error:
            raise _not_born(spec, error) from None
        if child[0] == 0:
            ours.close()
            init.run(entry, lambda entry: init.container(entry, spec, rootfs, steps, entrance.join))
        theirs.close()
        timings.mark("cloned")
        newborn = Newborn(child, ours)
        init.set_oom_score(str(newborn.pid), spec.process)
        timings.mark("parent done")
        state["pid"] = newborn.pid
        for name in ("prestart", "createRuntime"):
            hooks.run_all(spec.hooks.get(name, []), state)
        newborn.go()
        if meanwhile is not None:
            meanwhile(newborn.pid)
        while not newborn.hear():
            pass
        timings.mark("executed")
        return Started(newborn.pid, newborn.pidfd, newborn.terminal, warnings)
    except BaseException as error:
        if newborn is not None:
            newborn.abandon()
        if manager is not None:
            _undo(manager.remove, error)
        if isinstance(error, OSError):
            where = f": {error.filename}" if isinstance(error.filename, str) else ""
            raise Refused("init", f"{error.strerror or error}{where}", error.errno or 0) from None
        raise
    finally:
        ours.close()
        theirs.close()
        for fd in maps:
            os.close(fd)


def _make_id_maps(plan: Plan, opened: list[int]) -> None:
    """Give the steps for id-mapped mounts their user namespaces, which the child inherits.

    Args:
        opened: receives their descriptors, which are the caller's to close, also after an error.
    """
    made: dict[IdMappings, int] = {}
    for step in plan.steps:
        if not isinstance(step, BindMount) or step.id_mappings is None:
            continue
        wanted = step.id_mappings
        if wanted not in made:
            try:
                made[wanted] = idmaps.user_namespace(wanted.uids, wanted.gids)
            except OSError as error:
                raise Refused(
                    "mount",
                    f"{step.describe()}: an id-mapped mount needs a user namespace: {error.strerror}",
                    error.errno or 0,
                ) from None
            opened.append(made[wanted])
        step.options.id_map = made[wanted]


def _not_born(spec: ContainerSpec, error: OSError) -> OSError:
    """Why the container's namespaces could not be made, where the kernel's word alone would be a riddle."""
    from sampan.linux import features  # only here: the launcher stays small

    kinds = [kind for kind, path in spec.namespaces.items() if not path]
    found = features.namespace_refusal(kinds, error.errno or 0)
    return OSError(error.errno, f"{error.strerror}: {found.cause}; {found.remedy}") if found else error


def _undo(action: Callable[[], None], cause: BaseException) -> None:
    try:
        action()
    except (OSError, SampanError) as error:
        cause.add_note(f"and cleaning up failed: {error}")
