"""Capability names, and the calls that change a process's five sets (capabilities(7), capset(2)).

The order around a change of user: `drop_bounding` first (it needs CAP_SETPCAP), then PR_SET_KEEPCAPS and
setuid(2), then `set_process`, at last `raise_ambient`.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from functools import cache

from sampan.linux import syscalls

# The position is the kernel's number (Linux include/uapi/linux/capability.h).
ALL: tuple[str, ...] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)

# What Docker gives a container that asks for nothing.
DEFAULT: tuple[str, ...] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)

_NUMBERS = {name: number for number, name in enumerate(ALL)}
_VERSION_3 = 0x20080522
_PR_CAPBSET_READ = 23
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def number(name: str) -> int:
    """The kernel's number of a capability, by its full name in capitals.

    Raises:
        ValueError: there is none of this name.
    """
    try:
        return _NUMBERS[name]
    except KeyError:
        raise ValueError(f"unknown capability {name!r}") from None


@cache
def last_cap() -> int:
    """The highest capability number that the running kernel knows."""
    try:
        with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
            return int(file.read())
    except OSError:
        highest = len(ALL) - 1
        while highest > 0 and _bounding_has(highest) is None:
            highest -= 1
        return highest


def _bounding_has(capability: int) -> bool | None:
    try:
        return bool(syscalls.prctl(_PR_CAPBSET_READ, capability))
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise


def bounding() -> frozenset[str]:
    """The capabilities in this process's bounding set: no child of ours can ever have others."""
    return frozenset(name for name in ALL if _bounding_has(_NUMBERS[name]))


def mask(names: Iterable[str]) -> int:
    """The bits of a set of names; those that the running kernel is too old for are left out.

    Raises:
        ValueError: a name that no kernel knows.
    """
    known = last_cap()
    bits = 0
    for name in names:
        position = number(name)
        if position <= known:
            bits |= 1 << position
    return bits


def drop_bounding(keep: Iterable[str]) -> None:
    """Remove every capability from the bounding set but those in `keep`. Needs CAP_SETPCAP."""
    kept = mask(keep)
    for capability in range(last_cap() + 1):
        if not kept >> capability & 1:
            try:
                syscalls.prctl(syscalls.PR_CAPBSET_DROP, capability)  # no error where it is gone already
            except PermissionError:
                if _bounding_has(capability):
                    raise


def get_process() -> tuple[int, int, int]:
    """This thread's effective, permitted and inheritable sets, as bits."""
    data = (_Data * 2)()
    if syscalls.libc.capget(ctypes.byref(_Header(_VERSION_3, 0)), data) < 0:
        syscalls.raise_errno("capget")
    low, high = data
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def process_sets(
    effective: Iterable[str], permitted: Iterable[str], inheritable: Iterable[str], held: int, inherited: int
) -> tuple[int, int, int]:
    """The bits of the three sets that a process can be given which has those of `held` and `inherited`."""
    allowed = mask(permitted) & held
    return mask(effective) & allowed, allowed, mask(inheritable) & (held | inherited)


def set_process(effective: Iterable[str], permitted: Iterable[str], inheritable: Iterable[str]) -> None:
    """Set this thread's three classic sets.

    A capability that this process does not have itself cannot be given; it is left out, as a container of a
    daemon that lacks one runs without it.

    Raises:
        OSError: as capset(2).
    """
    _, held, inherited = get_process()
    wanted = process_sets(effective, permitted, inheritable, held, inherited)
    data = (_Data * 2)()
    for half in range(2):
        data[half].effective, data[half].permitted, data[half].inheritable = (
            bits >> (32 * half) & 0xFFFFFFFF for bits in wanted
        )
    if syscalls.libc.capset(ctypes.byref(_Header(_VERSION_3, 0)), data) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"capset: {os.strerror(code)}")


def raise_ambient(names: Iterable[str]) -> None:
    """Make the ambient set hold these and no others; what is not permitted and inheritable is left out."""
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _, permitted, inheritable = get_process()
    bits = mask(names) & permitted & inheritable
    for capability in range(last_cap() + 1):
        if bits >> capability & 1:
            syscalls.prctl(syscalls.PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)
