"""System calls that the daemon and its containers' starts make, and that older kernels or sandboxes lack."""

from __future__ import annotations

import errno
import os
import signal
import subprocess

from sampan.doctor.trials.place import Place
from sampan.doctor.trials.running import Fails, Trial
from sampan.linux import kernel, process, syscalls

_OLDER = "nothing, as the older way is taken"


def _openat2(_: Place) -> None:
    kernel.check()


def _clone3(_: Place) -> None:
    try:  # with a size that no structure has, it makes nothing
        syscalls.syscall("clone3", syscalls.SYS_CLONE3, None, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def _pidfd(_: Place) -> None:
    fd = syscalls.pidfd_open(os.getpid())
    try:
        syscalls.pidfd_send_signal(fd, 0)
    finally:
        os.close(fd)
    pid, pidfd = process.clone(0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(pidfd)


def _mount_api(_: Place) -> None:
    from sampan.linux import mounts

    os.close(mounts.new_filesystem("tmpfs", "tmpfs", ["size=4096"], 0))


def _mount_setattr(_: Place) -> None:
    from sampan.linux import mounts

    fd = mounts.new_filesystem("tmpfs", "tmpfs", ["size=4096"], 0)
    try:
        syscalls.mount_setattr(fd, "", syscalls.AT_EMPTY_PATH, set_=syscalls.MOUNT_ATTR_RDONLY)
    finally:
        os.close(fd)


def _close_range(_: Place) -> None:
    syscalls.close_range(1 << 20)


def _sealed(_: Place) -> str:
    """As the launcher starts: by an interpreter that nobody can write to."""
    from sampan.runtime import sealed

    found = sealed.interpreter()
    try:
        done = subprocess.run(
            [found.argv0, "-I", "-S", "-c", "pass"],
            executable=found.executable, pass_fds=found.fds, env=found.environment, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
    except OSError as error:
        remedy = "`sysctl -w vm.memfd_noexec=0`" if _memfd_noexec() else ""
        raise Fails(f"a copy of Python ({found.kind}) does not start: {error.strerror}", remedy) from None
    finally:
        found.close()
    if done.returncode:
        raise Fails(f"a copy of Python ({found.kind}) does not start: {done.stderr.strip()[-200:]}")
    return f"by {found.kind}"


def _memfd_noexec() -> bool:
    try:
        with open("/proc/sys/vm/memfd_noexec", encoding="ascii") as file:
            return int(file.read()) > 0
    except (OSError, ValueError):
        return False


def _memfd(_: Place) -> None:
    import fcntl

    fd = os.memfd_create("sampan-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, b"x")
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        try:
            os.write(fd, b"y")
        except PermissionError:
            return
        raise Fails("a sealed file could be written")
    finally:
        os.close(fd)


def _signals(_: Place) -> None:
    """A process's end is told on a descriptor, which is how a container's is noticed."""
    import select

    pid, pidfd = process.clone(0)
    if pid == 0:
        signal.pause()
    try:
        syscalls.pidfd_send_signal(pidfd, signal.SIGKILL)
        if not select.select([pidfd], [], [], 5)[0]:
            raise Fails("a pidfd does not tell of its process's end")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)


TRIALS = (
    Trial("openat2", _openat2, "anything: paths of containers cannot be resolved safely", "openat2", True,
          rootless=True),
    Trial("clone3", _clone3, _OLDER, "clone3", rootless=True),
    Trial("pidfd", _pidfd, "any container", "pidfd_open", True, rootless=True),
    Trial("pidfd tells of an end", _signals, "any container", "pidfd_open", True, rootless=True),
    Trial("close_range", _close_range, _OLDER, rootless=True),
    Trial("memfd, sealed", _memfd, "the sealed interpreter, where the overlay of it fails too", "memfd",
          rootless=True),
    Trial("sealed interpreter", _sealed, "any container", "memfd", True),
    Trial("mounts by descriptor (fsopen)", _mount_api, _OLDER, "fsopen", apart=syscalls.CLONE_NEWNS),
    Trial("mount_setattr", _mount_setattr, _OLDER, "mount_setattr", apart=syscalls.CLONE_NEWNS),
)  # fmt: skip
