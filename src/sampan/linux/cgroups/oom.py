"""The kernel's word that a cgroup is out of memory, as something to wait on.

cgroup v1: an eventfd registered for `memory.oom_control` in `cgroup.event_control`, which speaks before
anybody is killed (Documentation/admin-guide/cgroup-v1/memory.rst, section 10). cgroup v2: a change of
`memory.events`, which is an exceptional condition for poll(2).
"""

from __future__ import annotations

import os
import select

from sampan.linux.cgroups.manager import Manager


class OomNotifier:
    """Readable when the cgroup has run out of memory, and on v2 also at other pressure on its limit.

    Args:
        manager: of the cgroup, which exists.

    Raises:
        OSError: it is gone, or has no memory controller.
    """

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._epoll: select.epoll | None = None
        paths = manager.paths()
        if manager.version == 2:
            self._file = os.open(f"{paths['']}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
            self._epoll = changes_of(self._file)
            return
        if "memory" not in paths:
            raise FileNotFoundError(2, "no memory controller")
        self._file = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            _register(paths["memory"], self._file)
        except OSError:
            os.close(self._file)
            raise

    def fileno(self) -> int:
        """What to wait on until it is readable."""
        return self._file if self._epoll is None else self._epoll.fileno()

    def drain(self) -> None:
        """Take the word, so that the next one is heard."""
        if self._epoll is not None:
            os.pread(self._file, 4096, 0)
            return
        try:
            os.eventfd_read(self._file)
        except BlockingIOError:
            pass

    def kills(self) -> int:
        """How many processes were killed so far."""
        return self._manager.oom_kills()

    def close(self) -> None:
        """Listen no more."""
        if self._epoll is not None:
            self._epoll.close()
        os.close(self._file)


def changes_of(file: int) -> select.epoll:
    """Readable when an open file of a cgroup was changed since it was last read.

    Such files always count as readable themselves: hence a second epoll that asks for nothing but the change.
    """
    os.pread(file, 4096, 0)
    changes = select.epoll()
    changes.register(file, select.EPOLLPRI)
    return changes


def _register(directory: str, eventfd: int) -> None:
    control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
    try:
        words = os.open(f"{directory}/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(words, b"%d %d" % (eventfd, control))
        finally:
            os.close(words)
    finally:
        os.close(control)
