"""Rights and confinement: capabilities, system call filters, keyrings, AppArmor."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from sampan.doctor.trials.place import Place
from sampan.doctor.trials.running import Fails, NotTried, Trial
from sampan.engine.profiles import apparmor as profiles
from sampan.linux import apparmor, capabilities, process, seccomp, syscalls

_NEEDED = (
    *("CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_SETUID", "CAP_SETGID"),
    *("CAP_SETPCAP", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETFCAP"),
)
_WISHED = {
    "CAP_SYS_RESOURCE": "--ulimit and --oom-score-adj beyond what this process has",
    "CAP_SYS_PTRACE": "--cap-add SYS_PTRACE, and looking at processes of other users",
}


def _effective() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _root(_: Place) -> None:
    held = _effective()
    missing = [name for name in _NEEDED if not held >> capabilities.number(name) & 1]
    if missing:
        raise Fails(
            f"root, but without {', '.join(missing)}",
            "if this is a container itself, run it with --privileged or --cap-add",
        )


def _wishes(_: Place) -> None:
    held = _effective()
    missing = [name for name in _WISHED if not held >> capabilities.number(name) & 1]
    if missing:
        raise Fails(
            "not held: " + ", ".join(f"{name} ({_WISHED[name]})" for name in missing),
            "if this is a container itself, run it with --cap-add",
        )


def _seccomp(_: Place) -> None:
    """A filter is put in force, and a call that it forbids is made."""
    if os.geteuid() != 0:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    rule = {"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOTNAM}
    seccomp.load(seccomp.compile_filter({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    try:
        os.getpriority(os.PRIO_PROCESS, 0)
    except OSError as error:
        if error.errno == errno.ENOTNAM:
            return
        raise
    raise Fails("a filter was loaded, and what it forbids works all the same")


def _keyring(_: Place) -> None:
    try:
        process.join_session_keyring("sampan-doctor")
    except OSError as error:
        if error.errno != errno.EDQUOT:
            raise
        raise Fails(
            "the quota of keys is used up",
            "`sysctl -w kernel.keys.root_maxkeys=1000000 kernel.keys.root_maxbytes=25000000`",
        ) from None


def _apparmor(_: Place) -> str:
    if not apparmor.enabled():
        raise NotTried("this kernel does not have it, or not switched on")
    why = profiles.lacking()
    if why:
        parser = "`apt-get install apparmor`" if "is missing" in why else ""
        mount = "`mount -t securityfs securityfs /sys/kernel/security`" if "securityfs" in why else ""
        raise Fails(why, parser or mount)
    return "on, with its parser"


RIGHTS = (
    Trial("capabilities", _root, "any container", needed=True),
    Trial("capabilities for limits", _wishes, "raising limits"),
)
TRIALS = (
    Trial("system call filter (seccomp)", _seccomp, "keeping containers from dangerous system calls",
          "seccomp", True, rootless=True),
    Trial("session keyring", _keyring, "any container, once the quota is used up", "keys", rootless=True),
    Trial("AppArmor", _apparmor, "its profile for containers", rootless=True, here=True),
)  # fmt: skip
