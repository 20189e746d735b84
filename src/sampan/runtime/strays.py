"""Children that the monitor has without having made them: orphans, and those whose maker was killed.

While one of them is a zombie its pid namespace does not end (pid_namespaces(7)), nor does the container.
"""

from __future__ import annotations

import os
import select
import signal

from sampan.runtime.loop import Loop


def wake_at_children(loop: Loop) -> None:
    """Let a child's end begin a turn of the loop: that of a stray is announced by nothing else."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    loop.watch(reader, select.EPOLLIN, lambda _: _empty(reader))


def _empty(pipe: int) -> None:
    os.read(pipe, 4096)


def reap_strays(ours: set[int]) -> None:
    """Collect those that have ended.

    Args:
        ours: children that somebody else waits for.
    """
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in ours:
            return
        os.waitpid(found.si_pid, 0)
