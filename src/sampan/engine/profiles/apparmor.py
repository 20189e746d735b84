"""The default AppArmor profile, and keeping it loaded (apparmor.d(5)).

It has the name and the effect of Docker's, so that both engines can share a machine: whoever comes first
loads it. Within a container it allows what the capabilities allow, but for what reaches past the container:
mounts, the kernel's switches in /proc and /sys, and tracing or signalling what is not a container. An allowed
set cannot be cut out of a denied one, so the paths that stay writable (/proc/<pid>, /proc/sys/kernel/shm* and
sem, /sys/fs/cgroup) are spared letter by letter.
"""

from __future__ import annotations

import os
import threading

from sampan.errors import SampanError
from sampan.linux import apparmor, userns

NAME = "docker-default"


def _around(prefix: str, spared: str, rest: str = "**") -> list[str]:
    """Globs for everything below `prefix` whose name does not begin with `spared`."""
    return [f"{prefix}{spared[:count]}[^{letter}]{rest}" for count, letter in enumerate(spared)]


def text() -> str:
    """The profile as apparmor_parser(8) reads it. It includes no file, so any parser will do."""
    unwritable = [
        "/proc/*",
        *_around("/proc/", "sys", "*/**")[1:],
        "/proc/[^0-9s]*/**",
        "/proc/sys?*/**",
        *("/proc/sys/[^k]**", "/proc/sys/k[^e]**", "/proc/sys/ke[^r]**"),
        *("/proc/sys/kernel/{s,se,sh}", "/proc/sys/kernel/[^s]**", "/proc/sys/kernel/s[^eh]**"),
        *("/proc/sys/kernel/se[^m]**", "/proc/sys/kernel/sh[^m]**"),
    ]
    fixed = [*_around("/sys/", "fs", "*/**"), "/sys/fs?*/**", *_around("/sys/fs/", "cgroup", "*/**")]
    hidden = ["/proc/kcore", "/proc/sysrq-trigger", "/sys/firmware/**", "/sys/kernel/security/**"]
    rules = [
        *("network", "capability", "file", "umount", "unix"),
        "signal (receive) peer=unconfined",
        *(f"signal (receive) peer={engine}" for engine in ("runc", "crun")),
        f"signal (send, receive) peer={NAME}",
        *("ptrace (readby)", "ptrace (tracedby)", f"ptrace (trace, read) peer={NAME}"),
        "deny mount",
        *(f"deny {path} w" for path in unwritable),
        *(f"deny {path} wklx" for path in fixed),
        *(f"deny {path} rwklx" for path in hidden),
    ]
    body = "".join(f"  {rule},\n" for rule in rules)
    return f"profile {NAME} flags=(attach_disconnected,mediate_deleted) {{\n{body}}}\n"


_lock = threading.Lock()


def lacking() -> str:
    """Why AppArmor, though the kernel has it on, cannot be used here; "" when it can, or is not on."""
    if not apparmor.enabled():
        return ""
    if os.environ.get("container"):  # noqa: SIM112  (whoever made a container around us calls it so)
        return "sampand runs in a container itself"
    if userns.nested():
        return "sampand is not the machine's root"
    if not apparmor.visible():
        return "securityfs is not mounted on /sys/kernel/security"
    if not os.path.exists(apparmor.PARSER):
        return f"{apparmor.PARSER} is missing (Debian: install the package apparmor)"
    return ""


def supported() -> bool:
    """Whether containers get a profile on this machine."""
    return apparmor.enabled() and not lacking()


def ensure() -> None:
    """See that the profile is loaded; an upgrade of the machine's own profiles may have removed it.

    Raises:
        SampanError: it cannot be; a container must not run without it unless it was asked for so.
    """
    with _lock:
        if apparmor.loaded(NAME):
            return
        try:
            apparmor.load(text())
        except OSError as error:
            raise SampanError(
                f"AppArmor enabled on system but the {NAME} profile could not be loaded: {error.strerror}"
            ) from None
