"""The parent's half of an exec's start: one more process in a running container."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial

from sampan.errors import SampanError
from sampan.linux import cgroups, namespaces, syscalls
from sampan.runtime import init
from sampan.runtime.bundle import ProcessSpec
from sampan.runtime.entrance import cgroup_entry, clone
from sampan.runtime.init import Entry, Refused
from sampan.runtime.newborn import Newborn
from sampan.runtime.start import Started
from sampan.runtime.targets import Target


def begin_exec(
    identifier: str,
    container_pid: int,
    where: Target,
    load: Callable[[], ProcessSpec],
    stdio: tuple[int, int, int],
    *,
    terminal_size: tuple[int, int] | None = None,
    guarded: bool = True,
    leaf: cgroups.Leaf | None = None,
    reaper: tuple[int, int] | None = None,
) -> Newborn:
    """Make the process, which waits for "go".

    Args:
        identifier: the exec's id.
        container_pid: the container's first process.
        where: what to join.
        load: gives the program to run; called in the child, after "go".
        stdio: descriptors for 0, 1 and 2, without a terminal.
        terminal_size: rows and columns.
        guarded: it is killed when this process dies.
        leaf: its own cgroup below the container's.
        reaper: descriptors of the program that is to be its parent and reaps what it leaves, and of where
            that tells its exit code.

    Raises:
        Refused: with the stage and the text for the user.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    target = -1
    begun = False
    try:
        manager = cgroups.manager_for(where.cgroups_path) if where.cgroups_path else None
        entry = Entry(None, theirs, stdio, where.filters, identifier, terminal_size, guarded)
        entry.reaper = reaper
        target = syscalls.pidfd_open(container_pid)
        kinds = where.namespaces
        join_pid = partial(namespaces.join_process, container_pid, target, ["pid"])
        entrance = cgroup_entry(manager, leaf)
        entrance.neighbour = container_pid
        entrance.opened = where.tasks
        entry.steps_in = where.watched
        child = clone(0, entrance, join_pid if "pid" in kinds and not where.watched else None)
        if child[0] == 0:
            init.run(
                entry,
                lambda entry: init.joined(
                    entry, container_pid, target, kinds, entrance.join, load, leaf is not None, where.tasks
                ),
            )
        begun = True
        return Newborn(child, ours, where.watched)
    except OSError as error:
        raise Refused("init", str(error.strerror or error), error.errno or 0) from None
    except SampanError as error:
        raise Refused("init", error.message) from None
    finally:
        if target >= 0:
            os.close(target)
        theirs.close()
        if not begun:
            ours.close()


def open_tasks(cgroups_path: str) -> tuple[int, ...]:
    """The `tasks` files of a container's v1 cgroups, for one who starts many processes in it.

    Opening them anew costs each as much as joining. None where its own cgroup is among them (v1 alone, see
    `cgroups.Leaf`), or where there is no v1.
    """
    if not cgroups_path:
        return ()
    manager = cgroups.manager_for(cgroups_path)
    if manager.version == 2 or "" not in manager.paths():
        return ()
    opened: list[int] = []
    try:
        entrance = cgroup_entry(manager)
        entrance.close()
        for path in entrance.tasks:
            opened.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
    except OSError:
        for fd in opened:
            os.close(fd)
        return ()  # each exec opens them, and says which is missing
    return tuple(opened)


def start_exec(
    identifier: str,
    container_pid: int,
    where: Target,
    wanted: ProcessSpec,
    stdio: tuple[int, int, int],
    *,
    guarded: bool = True,
) -> Started:
    """Start a process and wait until its program runs; arguments as for `begin_exec`.

    Raises:
        Refused: with the stage and the text for the user.
    """
    newborn = begin_exec(identifier, container_pid, where, lambda: wanted, stdio, guarded=guarded)
    with newborn.channel:
        try:
            newborn.go()
            while not newborn.hear():
                pass
        except BaseException as error:
            newborn.abandon()
            if isinstance(error, OSError):
                raise Refused("init", str(error.strerror or error), error.errno or 0) from None
            raise
    return Started(newborn.pid, newborn.pidfd, newborn.terminal)
