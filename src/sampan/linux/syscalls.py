"""One thin function per system call that Python's `os` does not offer, and one place that raises errors.

Numbers below 424 differ by machine and are taken from libc's own wrappers; from 424 on (`pidfd_send_signal`)
every architecture shares one table (Linux `include/uapi/asm-generic/unistd.h`). Each function's manual page
carries its name, in section 2.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Any

# --- libc ---

libc = ctypes.CDLL(None, use_errno=True)

SYS_PIDFD_SEND_SIGNAL = 424
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_FSPICK = 433
SYS_PIDFD_OPEN = 434
SYS_CLONE3 = 435
SYS_CLOSE_RANGE = 436
SYS_OPENAT2 = 437
SYS_PIDFD_GETFD = 438
SYS_MOUNT_SETATTR = 442

_MEANINGS = {
    errno.ENOSYS: "this kernel does not have the {name} system call",
    errno.EPERM: "the kernel refused {name}: it needs a capability that this process lacks",
}


def raise_errno(name: str, path: str | bytes | None = None, number: int | None = None) -> None:
    """Raise the `OSError` for the last failed call.

    Args:
        name: the system call, for messages.
        path: the file the call was about, when there is one.
        number: the errno; the calling thread's last one when not given.
    """
    code = ctypes.get_errno() if number is None else number
    text = _MEANINGS.get(code, "{name}: {text}").format(name=name, text=os.strerror(code))
    raise OSError(code, text, os.fsdecode(path) if path is not None else None)


def _check(result: int, name: str, path: str | bytes | None = None) -> int:
    if result < 0:
        raise_errno(name, path)
    return result


def syscall(name: str, number: int, *arguments: Any, path: str | bytes | None = None) -> int:
    """Call by number. Integers go as `long`, so that no pointer or flag is cut to 32 bits.

    Raises:
        OSError: with the kernel's errno.
    """
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = _syscall(ctypes.c_long(number), *converted)
    return _check(result, name, path)


_syscall = libc.syscall
_syscall.restype = ctypes.c_long

# --- mounts, the old way (mount(2), umount2(2)) ---

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOSYMFOLLOW = 0x100
MS_NOATIME = 0x400
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000
MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8


def mount(
    source: str | None, target: str, fstype: str | None, flags: int = 0, data: str | None = None
) -> None:
    """Mount `source` on `target`; see mount(2). Any of the texts but `target` may be None."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, fstype, data)]
    _check(libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]), "mount", target)


def umount2(target: str, flags: int = 0) -> None:
    """Unmount `target`; `MNT_DETACH` lets go at once and cleans up when the last user leaves."""
    _check(libc.umount2(os.fsencode(target), flags), "umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root mount of this mount namespace and move the old one to `put_old`."""
    number = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
    syscall("pivot_root", number, os.fsencode(new_root), os.fsencode(put_old), path=new_root)


# --- mounts, by descriptor (kernel 5.2; mount_setattr 5.12) ---

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
FSCONFIG_CMD_RECONFIGURE = 7
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000


def open_tree(directory: int, path: str, flags: int) -> int:
    """A descriptor of the mount at `path`, or with `OPEN_TREE_CLONE` of a detached copy of it."""
    return syscall("open_tree", SYS_OPEN_TREE, directory, os.fsencode(path), flags, path=path)


def move_mount(from_fd: int, from_path: str, to_fd: int, to_path: str, flags: int) -> None:
    """Attach or move a mount, both ends given by descriptor and path."""
    syscall(
        "move_mount", SYS_MOVE_MOUNT, from_fd, os.fsencode(from_path), to_fd, os.fsencode(to_path), flags,
        path=to_path or None,
    )  # fmt: skip


def fsopen(fstype: str) -> int:
    """A descriptor of a file system about to be configured."""
    return syscall("fsopen", SYS_FSOPEN, os.fsencode(fstype), FSOPEN_CLOEXEC)


def fsconfig(fd: int, command: int, key: str | None = None, value: str | None = None, aux: int = 0) -> None:
    """Set one option of a file system opened by `fsopen`, or carry out `FSCONFIG_CMD_…`."""
    encoded = [None if text is None else os.fsencode(text) for text in (key, value)]
    syscall("fsconfig", SYS_FSCONFIG, fd, command, encoded[0], encoded[1], aux)


def fsmount(fd: int, attributes: int = 0) -> int:
    """A descriptor of a detached mount of the configured file system; `attributes` are `MOUNT_ATTR_…`."""
    return syscall("fsmount", SYS_FSMOUNT, fd, FSMOUNT_CLOEXEC, attributes)


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount_setattr(
    directory: int,
    path: str,
    flags: int,
    *,
    set_: int = 0,
    clear: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """Change attributes of the mount at `path`, or with `AT_RECURSIVE` of the whole tree at once."""
    attr = _MountAttr(set_, clear, propagation, userns_fd)
    syscall(
        "mount_setattr", SYS_MOUNT_SETATTR, directory, os.fsencode(path), flags, ctypes.byref(attr),
        ctypes.sizeof(attr), path=path or None,
    )  # fmt: skip


# --- files ---

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(directory: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open with rules for how the path may resolve (kernel 5.6). The descriptor is close-on-exec.

    `RESOLVE_IN_ROOT` treats `directory` as the root: `..` and absolute links stay inside it, even while
    somebody swaps components. EAGAIN, which the kernel gives when a rename races, is tried again.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    encoded = os.fsencode(path)
    for _ in range(64):
        result: int = _syscall(
            ctypes.c_long(SYS_OPENAT2), ctypes.c_long(directory), encoded, ctypes.byref(how),
            ctypes.c_long(ctypes.sizeof(how)),
        )  # fmt: skip
        if result >= 0:
            return result
        if ctypes.get_errno() != errno.EAGAIN:
            break
    raise_errno("openat2", path)
    raise AssertionError


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """Close every descriptor from `first` to `last` (kernel 5.9); `flags` 4 only marks them close-on-exec."""
    syscall("close_range", SYS_CLOSE_RANGE, first, last, flags)


# --- namespaces and processes ---

CLONE_NEWTIME = 0x80
CLONE_PIDFD = 0x1000
CLONE_PARENT = 0x8000
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces."""
    _check(libc.unshare(flags), "unshare")


def setns(fd: int, nstype: int = 0) -> None:
    """Join the namespace behind `fd`, or with a pidfd (kernel 5.8) all the kinds set in `nstype`."""
    _check(libc.setns(fd, nstype), "setns")


def pidfd_open(pid: int, flags: int = 0) -> int:
    """A descriptor of process `pid`; it becomes readable when the process ends."""
    return syscall("pidfd_open", SYS_PIDFD_OPEN, pid, flags)


def pidfd_send_signal(pidfd: int, signum: int) -> None:
    """Signal exactly the process behind `pidfd`, never one that reuses its pid."""
    syscall("pidfd_send_signal", SYS_PIDFD_SEND_SIGNAL, pidfd, signum, None, 0)


def sethostname(name: str) -> None:
    """Set the host name of this UTS namespace."""
    encoded = os.fsencode(name)
    _check(libc.sethostname(encoded, len(encoded)), "sethostname")


def setdomainname(name: str) -> None:
    """Set the NIS domain name of this UTS namespace."""
    encoded = os.fsencode(name)
    _check(libc.setdomainname(encoded, len(encoded)), "setdomainname")


PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47


_ZERO = ctypes.c_ulong(0)


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """See prctl(2); returns the call's non-negative result."""
    arguments = [ctypes.c_ulong(value) if value else _ZERO for value in (arg2, arg3, arg4, arg5)]
    return _check(libc.prctl(option, *arguments), "prctl")


# --- disk ---


def syncfs(fd: int) -> None:
    """Return once the file system that holds `fd` has written everything to disk; see syncfs(2)."""
    _check(libc.syncfs(fd), "syncfs")


def prctl_name(name: str) -> None:
    """Set the name of the calling thread, at most 15 bytes, as ps(1) shows it (PR_SET_NAME)."""
    _check(libc.prctl(PR_SET_NAME, ctypes.c_char_p(os.fsencode(name))), "prctl")
