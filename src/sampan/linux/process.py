"""Making processes and changing what one is: clone3(2), execve(2), keyctl(2), signals, descriptors.

A clone that returns in the child as Python must look to the interpreter like `os.fork()`: the GIL stays held
(`ctypes.PyDLL`) and the interpreter's own fork hooks run around it. Only a process with one thread may do it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from sampan.linux import procfs, syscalls


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls",
            "set_tid", "set_tid_size", "cgroup",
        )
    )  # fmt: skip


_PF_EXITING = 0x4  # include/linux/sched.h: set before files are closed

_NO_FD = 0x7FFFFFFF

_held = ctypes.PyDLL(None, use_errno=True)
_held_syscall = _held.syscall
_held_syscall.restype = ctypes.c_long
_before_fork = ctypes.pythonapi.PyOS_BeforeFork
_after_fork_parent = ctypes.pythonapi.PyOS_AfterFork_Parent
_after_fork_child = ctypes.pythonapi.PyOS_AfterFork_Child
for _hook in (_before_fork, _after_fork_parent, _after_fork_child):
    _hook.restype = None
    _hook.argtypes = ()


def clone(flags: int, cgroup_fd: int | None = None) -> tuple[int, int]:
    """Fork with clone3(2): the child is born in the namespaces that `flags` (`CLONE_NEW…`) ask for.

    Args:
        flags: `CLONE_NEW…` flags, and CLONE_PARENT.
        cgroup_fd: on cgroup v2 the directory of the child's cgroup.

    Returns:
        In the parent the child's pid and a pidfd of it; in the child `(0, -1)`.

    Raises:
        OSError: with the kernel's errno; EINVAL for a cgroup on kernels before 5.7.
    """
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArgs(
        flags=flags | syscalls.CLONE_PIDFD | (0 if cgroup_fd is None else syscalls.CLONE_INTO_CGROUP),
        pidfd=ctypes.addressof(pidfd),
        exit_signal=0 if flags & syscalls.CLONE_PARENT else signal.SIGCHLD,  # there it is the caller's own
        cgroup=cgroup_fd or 0,
    )
    pid = _fork(syscalls.SYS_CLONE3, ctypes.byref(arguments), ctypes.c_long(ctypes.sizeof(arguments)))
    if pid < 0 and ctypes.get_errno() == errno.ENOSYS and not flags & syscalls.CLONE_NEWTIME:
        if cgroup_fd is not None:
            syscalls.raise_errno("clone", number=errno.EINVAL)
        # clone(2) takes the pidfd's address for its third argument; the order of the rest is each machine's.
        word = ctypes.c_ulong(flags | syscalls.CLONE_PIDFD | signal.SIGCHLD)
        pid = _fork(_SYS_CLONE[os.uname().machine], word, None, ctypes.byref(pidfd), None, None)
    if pid < 0:
        syscalls.raise_errno("clone3")
    return pid, pidfd.value


def kill_noted(pid: int, ticks: int) -> None:
    """Kill a process that was noted down, if it is still that one: no other that has its pid now.

    Args:
        ticks: its `start_time_ticks`.

    Raises:
        OSError: it cannot be killed; none when it is gone.
    """
    try:
        pidfd = syscalls.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if start_time_ticks(pid) == ticks:
            syscalls.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


_SYS_CLONE = {"x86_64": 56, "aarch64": 220}


def _fork(number: int, *arguments: Any) -> int:
    """A system call that returns twice, between the interpreter's hooks; the pid, or -1 with errno set."""
    _before_fork()
    pid: int = _held_syscall(ctypes.c_long(number), *arguments)
    if pid == 0:
        _after_fork_child()
    else:
        _after_fork_parent()
    return pid


def execute(path: str, arguments: Sequence[str], environment: Sequence[str]) -> None:
    """execve(2) with the environment exactly as given, `NAME=value` texts in their order.

    `os.execve` takes a mapping, which would drop repeated or odd entries that a container may be given.

    Raises:
        OSError: when the program could not be started; otherwise it does not return.
    """

    syscalls.libc.execve(os.fsencode(path), _vector(arguments), _vector(environment))
    syscalls.raise_errno("execve", path)


def _vector(texts: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(texts) + 1))(*[os.fsencode(text) for text in texts], None)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (PR_SET_PDEATHSIG).

    A change of credentials clears it: call it again after setuid. The caller must then see whether the
    parent had died before.
    """
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)


_KEYCTL_JOIN_SESSION_KEYRING = 1
_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}


def join_session_keyring(name: str) -> None:
    """Leave the inherited session keyring for a new one. A kernel without keyrings has nothing to leave."""
    number = _SYS_KEYCTL.get(os.uname().machine)
    if number is None:
        return
    try:
        syscalls.syscall("keyctl", number, _KEYCTL_JOIN_SESSION_KEYRING, os.fsencode(name))
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EACCES):
            raise


def reset_signals(numbers: Iterable[int] = range(1, signal.NSIG)) -> None:
    """Give signals their default disposition and unblock all: execve keeps what is ignored or blocked."""
    for number in numbers:
        if number in (signal.SIGKILL, signal.SIGSTOP, 32, 33):  # 32 and 33 are libc's own
            continue
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def close_all_but(kept: Iterable[int], proc: Callable[[], int] = procfs.open_private) -> None:
    """Close every descriptor above 2 except `kept`.

    Args:
        proc: gives a descriptor of a procfs, for kernels before 5.9: there they are looked up one by one.
    """
    stays = sorted(kept)
    try:
        first = 3
        for fd in stays:
            if fd < first:
                continue
            if fd > first:
                syscalls.close_range(first, fd - 1)
            first = fd + 1
        syscalls.close_range(first)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        for fd in procfs.open_descriptors(proc()):
            if fd > 2 and fd not in stays:
                try:
                    os.close(fd)
                except OSError as gone:
                    if gone.errno != errno.EBADF:  # the one that the list was read from
                        raise


@cache
def can_close_ranges() -> bool:
    """Whether close_range(2) is offered here: it came with kernel 5.9."""
    try:
        syscalls.close_range(_NO_FD, _NO_FD)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return False
    return True


def start_time_ticks(pid: int) -> int | None:
    """When process `pid` started, in clock ticks since boot (proc_pid_stat(5)); None when there is none.

    With the pid it names one process for good, across the pid's reuse.
    """
    fields = _stat(pid)
    return None if not fields or fields[0] in (b"Z", b"X") else int(fields[19])


def parent(pid: int) -> int:
    """The pid of a process's parent; 0 when there is no such process."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def is_exiting(pid: int) -> bool:
    """Whether process `pid` is on its way out or gone: it may still have files open then (PF_EXITING)."""
    fields = _stat(pid)
    return not fields or bool(int(fields[6]) & _PF_EXITING)


def _stat(pid: int) -> list[bytes]:
    """The fields of proc_pid_stat(5) from the state on; none when there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)  # a file object asks ten times more
        try:
            text = os.read(fd, 4096)
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text[text.rfind(b")") + 2 :].split()
