"""Giving up for good what a helper process was started with: user, capabilities, system calls."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sampan.linux import seccomp, syscalls
from sampan.linux.capabilities import drop_bounding

NOBODY = 65534


def become_nobody(calls: Sequence[str]) -> None:
    """Be nobody, without capabilities and not dumpable, with these system calls alone (seccomp(2)).

    Raises:
        OSError: the kernel's refusal; the caller is to end then.
    """
    if os.geteuid() == 0:
        drop_bounding(())
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
