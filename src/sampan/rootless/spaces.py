"""The namespaces that a daemon without root lives in: found again while any process is in them.

User, mount and network namespace (user_namespaces(7), mount_namespaces(7), network_namespaces(7)), and where
the user has a cgroup, one in which that is the root (cgroup_namespaces(7)). The user is root there; users of
images are the user's subordinate ids. They last as long as a descriptor of the keeper's, the daemon, or the
monitor of a container; a file in the exec root tells which they were.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import struct
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sampan.dataclasses import dataclass
from sampan.errors import SampanError
from sampan.linux import syscalls
from sampan.rootless import subids
from sampan.rootless.delegation import Cgroup

KINDS = ("user", "mnt", "net", "cgroup")  # the last where there is a cgroup
_FLAGS = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET
_SIOCSIFFLAGS, _IFF_UP_RUNNING = 0x8914, 0x1 | 0x40
_MAP_TIMEOUT_S = 30


@dataclass(slots=True)
class Spaces:
    """The namespaces.

    Attributes:
        fds: a descriptor of each of `KINDS`, or of all but the last.
        lacking: why users of images cannot exist; "" when they can.
        cgroup: the root of the cgroup namespace; None when that is not ours, and its files cannot be changed.
    """

    fds: tuple[int, ...]
    lacking: str = ""
    cgroup: Cgroup | None = None

    def record(self, path: Path) -> None:
        """Write down which they are."""
        inodes = [os.fstat(fd).st_ino for fd in self.fds]
        note: dict[str, Any] = {"inodes": inodes, "lacking": self.lacking}
        if self.cgroup is not None:
            note["cgroup"] = asdict(self.cgroup)
        temporary = path.with_name(f".{path.name}")
        temporary.write_text(json.dumps(note))
        temporary.rename(path)

    def names(self) -> list[str]:
        """As /proc/<pid>/ns shows them."""
        return [f"{kind}:[{os.fstat(fd).st_ino}]" for kind, fd in zip(KINDS, self.fds, strict=False)]


def find(path: Path) -> Spaces | None:
    """Those that were written down, if a process still is in all of them."""
    try:
        note = json.loads(path.read_text())
        kinds = KINDS[: len(note["inodes"])]
        wanted = [f"{kind}:[{inode}]" for kind, inode in zip(kinds, note["inodes"], strict=True)]
        lacking = str(note["lacking"])
        cgroup = Cgroup(**note["cgroup"]) if "cgroup" in note else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
    for pid in inhabitants(wanted[:1]):
        if names_of(pid, len(kinds)) != wanted:
            continue
        fds = []
        try:
            for kind in kinds:
                fds.append(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
            if [os.fstat(fd).st_ino for fd in fds] == note["inodes"]:
                return Spaces(tuple(fds), lacking, cgroup)
        except OSError:
            pass  # it has just ended
        for fd in fds:
            os.close(fd)
    return None


def inhabitants(names: list[str]) -> list[int]:
    """The processes whose namespaces begin with these."""
    here = os.getpid()
    return [
        int(entry)
        for entry in os.listdir("/proc")
        if entry.isdigit() and int(entry) != here and names_of(int(entry), len(names)) == names
    ]


def names_of(pid: int, count: int) -> list[str]:
    """The namespaces of a process; none when it is not ours to look at."""
    try:
        return [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in KINDS[:count]]
    except OSError:
        return []


def make(cgroup: Cgroup | None) -> Spaces:
    """Make new ones. For a process with one thread.

    Args:
        cgroup: the one that this process is in, if that is ours.

    Raises:
        SampanError: this machine does not let its users, and what mends it.
    """
    ids = subids.find(os.getuid())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ours.close()
            _settle(theirs, cgroup)
            status = 0
        except BaseException as error:
            number = error.errno if isinstance(error, OSError) else 0
            theirs.send(json.dumps([number or errno.EIO, str(error)]).encode())
        finally:
            os._exit(status)
    theirs.close()
    try:
        _hear(ours)
        lacking = _map(pid, ids)
        ours.send(b"mapped")
        _hear(ours)
        kinds = KINDS if cgroup is not None else KINDS[:-1]
        fds = tuple(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds)
    finally:
        ours.close()
        os.waitpid(pid, 0)
    return Spaces(fds, lacking, cgroup)


def _settle(channel: socket.socket, cgroup: Cgroup | None) -> None:
    """In the child: be born in them, and arrange what is there."""
    syscalls.prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
    syscalls.unshare(_FLAGS if cgroup is None else _FLAGS | syscalls.CLONE_NEWCGROUP)
    channel.send(b"made")
    if channel.recv(16) != b"mapped":
        return
    # What the machine mounts later is seen here, and nothing of ours out there.
    syscalls.mount(None, "/", None, syscalls.MS_SLAVE | syscalls.MS_REC)
    syscalls.mount(None, "/", None, syscalls.MS_SHARED | syscalls.MS_REC)
    if cgroup is not None:
        # No new mount of that file system: the kernel refuses it on top of another one.
        syscalls.mount(cgroup.directory, cgroup.root, None, syscalls.MS_BIND)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP_RUNNING))
    channel.send(b"ready")
    channel.recv(1)  # until the parent has them


def _hear(channel: socket.socket) -> None:
    said = channel.recv(4096)
    if said in (b"made", b"ready"):
        return
    number, text = json.loads(said) if said else (errno.EIO, "the process ended")
    raise SampanError(
        f"without root a user namespace is needed, and cannot be had: {text}; {_remedy(number)}"
    )


def _remedy(number: int) -> str:
    """What helps against a refusal."""
    if number == errno.ENOSPC:
        return "sudo sysctl -w user.max_user_namespaces=15000"
    if _switch("kernel/unprivileged_userns_clone") == "0":
        return "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    if _switch("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    return "see `sampan doctor`, or use a daemon with root"


def _switch(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""


def _map(pid: int, ids: subids.SubordinateIds) -> str:
    """Write the maps of the child's namespace; why only the user's own ids are in them, or ""."""
    lacking = ids.lacking
    if not lacking:
        failures = [
            _run(program, pid, subids.lines(own, ranges))
            for program, own, ranges in (
                (ids.newuidmap, os.getuid(), ids.uids),
                (ids.newgidmap, os.getgid(), ids.gids),
            )
        ]
        if not any(failures):
            return ""
        if not failures[0] or not failures[1]:
            raise SampanError(f"one of the user's maps could not be written: {''.join(failures)}")
        lacking = failures[0]
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {os.getuid()} 1"),
        ("gid_map", f"0 {os.getgid()} 1"),
    ):
        Path(f"/proc/{pid}/{name}").write_text(text)
    return lacking


def _run(program: str, pid: int, lines: list[tuple[int, int, int]]) -> str:
    words = [program, str(pid), *(str(number) for line in lines for number in line)]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_MAP_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program}: {error}"
    return (done.stderr.strip() or f"{program} failed") if done.returncode else ""
