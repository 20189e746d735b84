"""An interpreter that nothing it starts can write to (CVE-2019-5736).

A process in a container may see us at /proc/<pid>/exe between joining and execve, or make us execute
`/proc/self/exe`; with the host's own python there, it could overwrite it. So the launcher runs from a
read-only overlay of the interpreter's directory that is mounted nowhere, or, where that cannot be had, from a
sealed copy in memory (memfd_create(2), F_ADD_SEALS). A shared libpython gets an overlay of its own.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
import tempfile

from sampan.dataclasses import dataclass
from sampan.linux import syscalls

_F_ADD_SEALS = 1033
_ALL_SEALS = 0x1 | 0x2 | 0x4 | 0x8


@dataclass(slots=True)
class Interpreter:
    """How to execute the sealed interpreter.

    Attributes:
        executable: what to give to execve.
        argv0: what to call it, so that it finds its standard library.
        fds: descriptors to pass on; the caller closes its own.
        environment: variables that the dynamic loader needs.
        kind: "overlay" or "memory".
    """

    executable: str
    argv0: str
    fds: tuple[int, ...]
    environment: dict[str, str]
    kind: str

    def close(self) -> None:
        """Close the descriptors here; a process already started keeps its own."""
        for fd in self.fds:
            os.close(fd)


def interpreter(kind: str = "") -> Interpreter:
    """Seal the running interpreter.

    Args:
        kind: "overlay" or "memory"; "" is the first that works.

    Raises:
        OSError: when neither can be had.
    """
    path = os.path.realpath(sys.executable)
    library = _shared_library()
    if kind in ("", "overlay"):
        try:
            return _overlaid(path, library)
        except OSError:
            if kind:
                raise
    fd = _copy(path)
    environment = {"LD_LIBRARY_PATH": os.path.dirname(library)} if library else {}
    return Interpreter(f"/proc/self/fd/{fd}", path, (fd,), environment, "memory")


def _overlaid(path: str, library: str | None) -> Interpreter:
    fds = []
    try:
        fds.append(_overlay(os.path.dirname(path)))
        environment = {}
        if library:
            fds.append(_overlay(os.path.dirname(library)))
            environment["LD_LIBRARY_PATH"] = f"/proc/self/fd/{fds[1]}"
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    executable = f"/proc/self/fd/{fds[0]}/{os.path.basename(path)}"
    return Interpreter(executable, path, tuple(fds), environment, "overlay")


def _overlay(directory: str) -> int:
    """A detached overlay of one directory. Without an upper one it cannot be written to, whoever tries."""
    context = syscalls.fsopen("overlay")
    try:
        with tempfile.TemporaryDirectory(prefix="sampan-") as empty:
            # An overlay that has only lower directories wants two of them.
            lower = ":".join(part.replace("\\", "\\\\").replace(":", "\\:") for part in (directory, empty))
            syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, "lowerdir", lower)
            syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE)
            attributes = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOSUID
            return syscalls.fsmount(context, attributes)
    finally:
        os.close(context)


def _copy(path: str) -> int:
    fd = os.memfd_create("python", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(path, "rb") as source:
        while os.sendfile(fd, source.fileno(), None, 1 << 24):
            pass
    os.fchmod(fd, 0o555)
    fcntl.fcntl(fd, _F_ADD_SEALS, _ALL_SEALS)
    return fd


def _shared_library() -> str | None:
    """The libpython that this process has mapped, if it is not part of the executable."""
    with open("/proc/self/maps") as file:
        found = re.search(r" (/\S*/libpython\d\S*\.so[.\d]*)$", file.read(), re.MULTILINE)
    return found[1] if found else None
