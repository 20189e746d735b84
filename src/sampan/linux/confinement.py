"""How a helper process begins, and gives up for good what it was started with: user, capabilities, calls."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence

from sampan.linux import process, seccomp, syscalls, userns
from sampan.linux.capabilities import drop_bounding, set_process

NOBODY = 65534


def begin(name: str, fd: int) -> socket.socket:
    """Be a process that has nothing but one socket, and that only SIGTERM and SIGKILL end.

    Args:
        name: shown by ps(1), of which the kernel takes 15 bytes.
        fd: the socket.
    """
    syscalls.prctl_name(name[:15])
    process.reset_signals()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    process.close_all_but([fd])
    end = socket.socket(fileno=fd)
    end.set_inheritable(False)
    return end


def become_nobody(calls: Sequence[str]) -> None:
    """Be nobody, without capabilities and not dumpable, with these system calls alone (seccomp(2)).

    Raises:
        OSError: the kernel's refusal; the caller is to end then.
    """
    if os.geteuid() == 0:
        drop_bounding(())
        if userns.nested() and not userns.has(NOBODY, NOBODY):  # a map of one id: there is nobody else to be
            set_process((), (), ())
        else:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)  # and with the user the capabilities go
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": [],
        "syscalls": [{"names": calls, "action": "SCMP_ACT_ALLOW"}],
    }
    seccomp.load(seccomp.compile_filter(profile), 0)
