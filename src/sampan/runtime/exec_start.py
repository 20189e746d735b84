"""The last of an exec's way, as steps: into the container's pid namespace, where the program starts.

What arrives there has the container's rights alone, since somebody in there who may trace any process
(CAP_SYS_PTRACE) can seize it. It is the reaper: it forks once more for the program, adopts what that leaves
behind, tells how it ended, and stays until all of it has ended. So nothing becomes a zombie to a process 1
that never reaps. It begins to wait when it hears that the program's pid is known, which nobody else can have
meanwhile; it holds no descriptor but that for its report.
"""

from __future__ import annotations

import errno
import os
import signal
import struct

from sampan.linux import process, syscalls
from sampan.runtime.bundle import ProcessSpec
from sampan.runtime.init import Refused
from sampan.runtime.searching import candidates
from sampan.runtime.steps import NEXT, Steps
from sampan.runtime.steps_program import NAME
from sampan.runtime.told import BORN, CANDIDATE, PROGRAM, SEARCHED, UNTRIED, Hands

_TIOCSCTTY = 0x540E
_SIG_SETMASK = 2
_AT_EACCESS = 0x200
_LAST_FD = 0xFFFFFFFF


def not_forked(number: int) -> Refused:
    """Why a fork was refused: in the container's cgroup it counts."""
    text = f"fork: {os.strerror(number)}"
    if number == errno.EAGAIN:
        text += ": the limit on processes (--pids-limit, --ulimit nproc) leaves no room for an exec"
    return Refused("init", text, number)


def step_in(steps: Steps, hands: Hands, guarded: bool) -> None:
    """Fork into the pid namespace, as a child of our parent (clone(2), CLONE_PARENT)."""
    steps.call("rt_sigprocmask", _SIG_SETMASK, steps.numbers(-1), 0, 8)
    steps.call("prctl", syscalls.PR_SET_NAME, steps.text(NAME))
    born = steps.numbers(BORN, 0)
    steps.call("clone", syscalls.CLONE_PARENT, store=born + 8, zero="inside", means=not_forked)
    steps.call("write", hands.channel, born, 16)
    steps.call("exit_group", 0)
    steps.label("inside")
    if guarded:
        steps.call("prctl", syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have died before the kernel was told to watch it.
        poll = steps.data(struct.pack("<ihh", hands.channel, 0, 0))
        steps.call("ppoll", poll, 1, steps.numbers(0, 0), 0, 8, failed=NEXT, positive="end")
    if hands.report >= 0:
        _reap(steps, hands)
    else:
        steps.call("setsid")


def _reap(steps: Steps, hands: Hands) -> None:
    """Fork for the program; the rest of the reaper's life."""
    steps.call("prctl", syscalls.PR_SET_CHILD_SUBREAPER, 1)
    own = steps.call("getpid")
    made = steps.call("clone", signal.SIGCHLD, zero="program's", means=not_forked)
    _close_all_but(steps, hands.report, 0, hands)
    ended, status = steps.room(), steps.room()
    steps.call("read", hands.report, steps.room(), 8, failed="end", zero="end")
    steps.label("wait")
    steps.call("wait4", -1, status, 0, 0, store=ended, failed="end")
    steps.keep(made, steps.call("compare", ended, 0, failed="wait", positive="wait"), 1)
    steps.call("write", hands.report, status, 8, failed=NEXT)
    steps.call("close", hands.report)
    steps.label("rest")
    steps.call("wait4", -1, 0, 0, 0, failed="end", zero="rest", positive="rest")
    steps.label("program's")
    steps.call("setsid")
    steps.call("prctl", syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = steps.room()
    steps.call("getppid", store=parent)
    steps.keep(own, steps.call("compare", parent, 0, failed="end", positive="end"), 1)


def start(steps: Steps, hands: Hands, wanted: ProcessSpec, limits: list[tuple[int, int, int]]) -> None:
    """Become the program, or tell why not."""
    if wanted.terminal:
        steps.call("ioctl", 0, _TIOCSCTTY, 0)
    steps.call("rt_sigprocmask", _SIG_SETMASK, steps.numbers(0), 0, 8)
    for number, soft, hard in limits:
        steps.call("prlimit64", 0, number, steps.numbers(soft, hard), 0)
    steps.call("write", hands.channel, steps.numbers(PROGRAM, 0), 16)
    _close_all_but(steps, hands.channel, 3, hands)
    paths = candidates(wanted)
    size = 16 + CANDIDATE.size * len(paths)
    told = steps.numbers(SEARCHED, 0, *[UNTRIED] * 3 * len(paths))
    arguments, environment = steps.texts(wanted.args), steps.texts(wanted.env)
    for number, path in enumerate(paths):
        results = told + 16 + CANDIDATE.size * number
        file, after = steps.text(path), f"after {number}"
        steps.call("execve", file, arguments, environment, store=results, failed=NEXT)
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        steps.call(
            "openat", syscalls.AT_FDCWD, file, flags,
            store=results + 8, failed=NEXT, zero=after, positive=after,
        )  # fmt: skip
        steps.call(
            "faccessat2", syscalls.AT_FDCWD, file, os.X_OK, _AT_EACCESS,
            store=results + 16, failed=NEXT, zero="found", positive="found",
        )  # fmt: skip
        steps.label(after)
        steps.call("getpid")
    steps.label("found")
    steps.tell(told, size)
    steps.label("end")
    steps.call("exit_group", 0)


def _close_all_but(steps: Steps, kept: int, first: int, hands: Hands) -> None:
    """Close all descriptors from `first` on, one excepted."""
    done = f"closed {kept}"
    ranges = [(low, high) for low, high in ((first, kept - 1), (kept + 1, _LAST_FD)) if low <= high]
    for low, high in ranges[:-1]:
        steps.call("close_range", low, high, 0, failed=NEXT)
    steps.call("close_range", *ranges[-1], 0, failed=NEXT, zero=done)
    if process.can_close_ranges():
        steps.label(done)
        steps.call("getpid")
        return
    last = max([*hands.all(), 2])  # and behind it perhaps the terminal's two ends
    for fd in sorted({0, 1, 2, *hands.all(), last + 1, last + 2}):
        if fd >= first and fd != kept:
            steps.call("close", fd, failed=NEXT)
    steps.label(done)
    steps.call("getpid")
