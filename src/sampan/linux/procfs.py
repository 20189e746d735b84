"""A procfs that is certainly procfs: attributes and sysctls are read and written through a private mount.

What lies at /proc inside a container can be covered or replaced by its image; a write meant for
/proc/self/attr or /proc/sys would then go elsewhere (CVE-2019-16884, CVE-2025-52881).
"""

from __future__ import annotations

import ctypes
import errno
import os

from sampan.linux import syscalls

PROC_SUPER_MAGIC = 0x9FA0


def filesystem_magic(fd: int) -> int:
    """`f_type` of the file system that `fd` is on (fstatfs(2))."""
    buffer = (ctypes.c_long * 32)()
    if syscalls.libc.fstatfs(fd, ctypes.byref(buffer)) < 0:
        syscalls.raise_errno("fstatfs")
    return int(buffer[0])


def open_private(alone: bool = False) -> int:
    """A descriptor of a detached, unshared procfs mount of this process's pid namespace.

    A kernel or container that refuses one (no fsopen, or a /proc that is partly covered) gives the /proc at
    hand, verified to be procfs.

    Args:
        alone: no other process is in this mount namespace, and nothing mounted here reaches another: then
            mount(2) can make one too, since nobody sees it before it is detached.
    """
    try:
        context = syscalls.fsopen("proc")
        try:
            syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE)
            attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC
            return syscalls.fsmount(context, attributes)
        finally:
            os.close(context)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        alone = alone and error.errno == errno.ENOSYS
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    if alone:
        syscalls.mount("proc", "/proc", "proc", flags)
    fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if alone:
        syscalls.umount2("/proc", syscalls.MNT_DETACH)
    if filesystem_magic(fd) != PROC_SUPER_MAGIC:
        os.close(fd)
        raise OSError(errno.EINVAL, "/proc is not a proc file system")
    return fd


def open_descriptors(proc_fd: int) -> list[int]:
    """The numbers of this process's open descriptors, as the procfs behind `proc_fd` has them."""
    fd = syscalls.openat2(
        proc_fd, "self/fd", os.O_RDONLY | os.O_DIRECTORY, 0,
        syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_MAGICLINKS | syscalls.RESOLVE_NO_XDEV,
    )  # fmt: skip
    try:
        return [int(name) for name in os.listdir(fd)]
    finally:
        os.close(fd)


def write(proc_fd: int, path: str, value: str) -> None:
    """Write `value` to the file `path` of the procfs behind `proc_fd`, and to nothing else.

    Raises:
        OSError: with the file's path; ELOOP when something is not what it should be.
    """
    fd = syscalls.openat2(
        proc_fd, path, os.O_WRONLY, 0,
        syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_MAGICLINKS | syscalls.RESOLVE_NO_XDEV,
    )  # fmt: skip
    try:
        if filesystem_magic(fd) != PROC_SUPER_MAGIC:
            raise OSError(errno.ELOOP, "not on a proc file system", path)
        os.write(fd, os.fsencode(value))
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), f"/proc/{path}") from None
    finally:
        os.close(fd)
