"""All that a process has started, by /proc (proc_pid_stat(5)): for those that no cgroup holds together."""

from __future__ import annotations

import os
import signal

_ROUNDS = 100


def family(pid: int) -> set[int]:
    """A process's living descendants, and what is in its session, if that is not its parent's; not itself.

    Who has left the session and lost a parent is not found, unless the process adopts orphans.
    """
    children: dict[int, list[int]] = {}
    sessions: dict[int, list[int]] = {}
    known: dict[int, tuple[int, int]] = {}
    dead: set[int] = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it has gone meanwhile
        one, parent, session = int(name), int(fields[1]), int(fields[3])
        known[one] = parent, session
        children.setdefault(parent, []).append(one)
        sessions.setdefault(session, []).append(one)
        if fields[0] in b"ZX":
            dead.add(one)
    parent, session = known.get(pid, (0, 0))
    left = [pid]
    if session and known.get(parent, (0, 0))[1] != session:
        left += sessions[session]
    members = set(left)
    while left:
        for child in children.get(left.pop(), ()):
            if child not in members:
                members.add(child)
                left.append(child)
    return members - dead - {pid}


def kill_family(pid: int) -> None:
    """Send SIGKILL to a process's family, so that none forks away meanwhile; it is left alone itself."""
    stopped: set[int] = set()
    for _ in range(_ROUNDS):
        running = family(pid) - stopped
        if not running:
            break
        for member in running:
            _send(member, signal.SIGSTOP)
        stopped |= running
    for member in stopped:
        _send(member, signal.SIGKILL)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
