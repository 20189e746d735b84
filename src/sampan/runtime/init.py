"""What runs between clone3 and execve in the container's first process; further ones take `exec_steps`.

The code is Python in a fork of the launcher. From the moment the root changes nothing may be imported (the
launcher has emptied the import system), and from the moment it is in the container's pid namespace it may be
looked at from inside: it stays non-dumpable.
The order of the steps follows the OCI runtime spec (runtime.md, "Lifecycle") and what each takes away from
the next: privileges go last, the system call filter very last when `no_new_privs` permits.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import socket
import stat
import struct
from collections.abc import Callable
from dataclasses import field
from typing import NoReturn

from sampan.dataclasses import dataclass
from sampan.linux import (
    beneath,
    capabilities,
    namespaces,
    process,
    procfs,
    rlimits,
    seccomp,
    syscalls,
    terminals,
    userns,
)
from sampan.linux.mounts import MountOptions
from sampan.runtime import hooks
from sampan.runtime.bundle import ContainerSpec, ProcessSpec
from sampan.runtime.operations import Plan
from sampan.runtime.rootfs import MountedRoot

_DEVPTS_SUPER_MAGIC = 0x1CD1
# What the interpreter, the launcher and the monitor have changed; the launcher began with defaults.
_CHANGED_SIGNALS = (
    signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD,
)  # fmt: skip
_PLAIN_BIND = MountOptions()
_SYS_GETCWD = {"x86_64": 79, "aarch64": 17}


class Refused(Exception):
    """A step failed.

    Args:
        stage: which one; "exec" and "cwd" are about the program that the user named.
        text: for the user.
        number: the errno, 0 for none.
    """

    def __init__(self, stage: str, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.stage = stage
        self.text = text
        self.number = number


@dataclass(slots=True)
class Entry:
    """What the new process is given.

    Attributes:
        process: the program and as whom.
        channel: to the parent; it closes at execve, which is how the parent learns of it.
        stdio: descriptors for 0, 1 and 2; unused with a terminal.
        filters: the compiled seccomp program and its flags, or None.
        session: name of the new session keyring.
        terminal_size: rows and columns.
        guarded: die when the parent dies.
        wait: called before execve (before the startContainer hooks, if there are any); `sampan-runtime
            create` waits for `start` there.
        kept: descriptors that `wait` needs.
    """

    process: ProcessSpec
    channel: socket.socket
    stdio: tuple[int, int, int]
    filters: tuple[bytes, int] | None
    session: str
    terminal_size: tuple[int, int] | None
    guarded: bool = True
    wait: Callable[[], None] | None = None
    kept: tuple[int, ...] = ()
    state: dict[str, object] = field(default_factory=dict)
    _proc: int | None = None

    def proc(self, alone: bool = False) -> int:
        """The private procfs, mounted when first needed; `alone` as for `procfs.open_private`."""
        if self._proc is None:
            self._proc = procfs.open_private(alone)
        return self._proc


def run(entry: Entry, body: Callable[[Entry], None]) -> NoReturn:
    """Run `body` in the fresh child; it ends in execve, or the parent is told why not."""
    try:
        body(entry)
        raise Refused("exec", "execve returned")
    except Refused as error:
        report = {"stage": error.stage, "text": error.text, "errno": error.number}
    except OSError as error:
        where = f": {error.filename}" if isinstance(error.filename, str) else ""
        report = {"stage": "init", "text": f"{error.strerror}{where}", "errno": error.errno or 0}
    except BaseException as error:
        report = {"stage": "init", "text": f"{type(error).__name__}: {error}", "errno": 0}
    try:
        entry.channel.send(json.dumps(report).encode())
    except BrokenPipeError:
        os.write(2, f"{report['text']}\n".encode())  # it was left alone before `start`
    finally:
        os._exit(1)


def container(
    entry: Entry, spec: ContainerSpec, rootfs: str, plan: Plan, enter_cgroups: Callable[[], None]
) -> None:
    """Become the first process of a container. Runs in the namespaces that clone made."""
    _start(entry)
    enter_cgroups()
    for kind, path in spec.namespaces.items():
        if path and kind not in ("pid", "mount"):
            namespaces.join_path(kind, path)
    if spec.namespaces["mount"]:
        namespaces.join_path("mount", spec.namespaces["mount"])
    if spec.namespaces.get("network") == "":
        _raise_loopback()
    if entry.channel.recv(16) != b"go":
        os._exit(1)  # the parent gave up; nobody listens
    if spec.namespaces.get("cgroup") == "":
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    root = MountedRoot(rootfs, spec.rootfs_propagation)
    if spec.sysctl or entry.process.apparmor_profile:
        # Early: an old kernel can make one only while nobody else is here, nothing hidden, nothing read-only.
        entry.proc(alone=not (spec.namespaces["mount"] or spec.rootfs_propagation in ("shared", "rshared")))
    try:
        plan.execute(root)
    except OSError as error:
        raise Refused("mount", error.strerror or str(error), error.errno or 0) from None
    if entry.process.terminal:
        _open_terminal(entry, root.fd, console=root)
    hooks.run_all(spec.hooks.get("createContainer", []), entry.state)
    root.enter()
    if spec.hostname:
        syscalls.sethostname(spec.hostname)
    if spec.domainname:
        syscalls.setdomainname(spec.domainname)
    for key, value in spec.sysctl.items():
        path = key if "/" in key else key.replace(".", "/")
        try:
            procfs.write(entry.proc(), f"sys/{path}", value)
        except OSError as error:
            raise Refused("sysctl", f"open sysctl {key} file: {error.strerror}", error.errno or 0) from None
    if not entry.process.terminal:
        _take_stdio(entry.stdio)
    if entry.wait is not None and spec.hooks.get("startContainer"):
        entry.wait()
        entry.wait = None
    hooks.run_all(spec.hooks.get("startContainer", []), entry.state)
    _become(entry)


def set_oom_score(process_id: str, wanted: ProcessSpec) -> None:
    """Set how soon the out-of-memory killer takes a process, where the host's /proc is seen.

    Args:
        process_id: its pid, or "self".

    Raises:
        Refused: that needs a right which we lack.
    """
    if wanted.oom_score_adj is None:
        return
    with open(f"/proc/{process_id}/oom_score_adj", "r+b", buffering=0) as file:
        if int(file.read()) == wanted.oom_score_adj:
            return
        try:
            file.seek(0)
            file.write(b"%d" % wanted.oom_score_adj)
        except PermissionError:
            if wanted.oom_score_adj == 0:
                return  # nobody asked; the daemon itself was raised, and may not lower it again
            raise Refused(
                "oom",
                f"oom_score_adj {wanted.oom_score_adj}: lowering it needs CAP_SYS_RESOURCE",
                errno.EPERM,
            ) from None


def _start(entry: Entry) -> None:
    if entry.guarded:
        process.die_with_parent()
    process.reset_signals(_CHANGED_SIGNALS)
    os.setsid()
    try:
        process.join_session_keyring(f"_ses.{entry.session}")
    except OSError as error:
        raise Refused(
            "keyring", f"unable to join session keyring: {error.strerror}", error.errno or 0
        ) from None


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh22x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running


def _open_terminal(entry: Entry, root: int, console: MountedRoot | None = None) -> None:
    """Make a terminal in the container's own devpts, give its master to the parent, take its other end."""
    try:
        ptmx = beneath.open_path(root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY, follow=False)
        if procfs.filesystem_magic(ptmx) != _DEVPTS_SUPER_MAGIC:
            raise OSError(errno.EINVAL, "not on a devpts file system")
        master, slave, number = terminals.open_pair(ptmx)
    except OSError as error:
        raise Refused("terminal", f"open /dev/pts/ptmx: {error.strerror}", error.errno or 0) from None
    size = entry.terminal_size or entry.process.console_size
    if size:
        terminals.set_size(master, *size)
    if console is not None:
        _bind_console(console, slave, number)
    socket.send_fds(entry.channel, [b"terminal"], [master])
    os.close(master)
    _take_stdio((slave, slave, slave))
    os.close(slave)
    terminals.make_controlling(0)


def _bind_console(root: MountedRoot, slave: int, number: str) -> None:
    source = root.open(f"/dev/pts/{number}", follow=False)
    target = root.make_file("/dev/console")
    try:
        if os.fstat(source).st_rdev != os.fstat(slave).st_rdev:
            raise Refused("terminal", "the container's /dev/pts is not its own")
        root.bind(source, target, _PLAIN_BIND)
    finally:
        os.close(source)
        os.close(target)


def _take_stdio(stdio: tuple[int, int, int]) -> None:
    # Standard descriptors of the launcher are all /dev/null, so none of `stdio` is below 3.
    for number, fd in enumerate(stdio):
        os.dup2(fd, number)


def _own_stdio(uid: int) -> None:
    """Let the user open /dev/stdout and the like again: they are re-opened by their owner's rights."""
    for fd in (0, 1, 2):
        found = os.fstat(fd)
        if found.st_uid == uid or (stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)):
            continue
        if not (stat.S_ISFIFO(found.st_mode) or os.isatty(fd)):
            continue
        try:
            os.fchown(fd, uid, found.st_gid)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM, errno.EROFS):
                raise


def no_such_user(uid: int, gid: int) -> Refused:
    """What a namespace says that lacks a user or group."""
    text = f"user {uid}:{gid} does not exist in the user namespace that the process lives in"
    return Refused("user", text, errno.EINVAL)


def _become(entry: Entry) -> NoReturn:
    """Give up everything that the process is not to have, and execute its program."""
    wanted = entry.process
    _set_rlimits(wanted)
    if wanted.apparmor_profile:
        _set_apparmor(entry, wanted.apparmor_profile)
    _own_stdio(wanted.uid)
    process.close_all_but([entry.channel.fileno(), *entry.kept], entry.proc)
    entry._proc = None
    os.umask(wanted.umask)
    inside = _change_directory(wanted.cwd, first=True)
    if wanted.no_new_privileges:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    elif entry.filters is not None:
        seccomp.load(*entry.filters)
    given = wanted.capabilities
    if given is not None:
        capabilities.drop_bounding(given.bounding)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    _set_groups(wanted)
    try:
        os.setresgid(wanted.gid, wanted.gid, wanted.gid)
        os.setresuid(wanted.uid, wanted.uid, wanted.uid)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise no_such_user(wanted.uid, wanted.gid) from None
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 0)
    if not inside:
        _change_directory(wanted.cwd, first=False)
    if given is not None:
        capabilities.set_process(given.effective, given.permitted, given.inheritable)
        capabilities.raise_ambient(given.ambient)
    if entry.guarded:
        process.die_with_parent()
        poll = select.poll()
        poll.register(entry.channel, select.POLLHUP)
        if any(events & select.POLLHUP for _, events in poll.poll(0)):
            os._exit(1)  # the parent died before the kernel was told to watch it
    program = find_program(wanted)
    if entry.wait is not None:
        entry.wait()
    if wanted.no_new_privileges and entry.filters is not None:
        seccomp.load(*entry.filters)
    try:
        process.execute(program, wanted.args, wanted.env)
    except OSError as error:
        text = f"exec {program}: {os.strerror(error.errno or 0).lower()}"
        raise Refused("exec", text, error.errno or 0) from None
    raise AssertionError


def must_set_groups(wanted: ProcessSpec) -> bool:
    """Whether a process without its supplementary groups would not be what was asked for.

    In a user namespace with one id nobody may set them; the groups of the daemon's user are nobody's there.
    """
    return bool(set(wanted.additional_gids) - {wanted.gid}) or userns.groups_may_be_set()


def _set_groups(wanted: ProcessSpec) -> None:
    try:
        os.setgroups(wanted.additional_gids)
    except PermissionError:
        if must_set_groups(wanted):
            raise


def _set_rlimits(wanted: ProcessSpec) -> None:
    try:
        rlimits.apply(wanted.rlimits)
    except ValueError as error:
        raise Refused("rlimit", str(error), errno.EINVAL) from None
    except OSError as error:
        raise Refused("rlimit", error.strerror or str(error), error.errno or 0) from None


def _set_apparmor(entry: Entry, profile: str) -> None:
    for path in ("thread-self/attr/apparmor/exec", "thread-self/attr/exec"):
        try:
            procfs.write(entry.proc(), path, f"exec {profile}")
            return
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Refused(
                "apparmor", f"unable to apply apparmor profile {profile}: {error.strerror}", error.errno or 0
            ) from None
    raise Refused("apparmor", f"apparmor profile {profile} given, but this kernel has no AppArmor")


def _change_directory(path: str, first: bool) -> bool:
    """Go to the working directory; True when there. As root first, as the user if root may not (NFS).

    The kernel's own getcwd then tells whether it lies inside the root: a descriptor to the host that leaked
    could otherwise be entered through /proc/self/fd (CVE-2024-21626).
    """
    try:
        os.chdir(path)
    except PermissionError:
        if first:
            return False
        raise Refused("cwd", cwd_text(path, errno.EACCES), errno.EACCES) from None
    except OSError as error:
        raise Refused("cwd", cwd_text(path, error.errno or 0), error.errno or 0) from None
    number = _SYS_GETCWD[os.uname().machine]
    buffer = bytearray(4096)
    view = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    try:
        syscalls.syscall("getcwd", number, view, len(buffer))
        inside = buffer[:1] == b"/"
    except OSError:
        inside = False
    if not inside:
        raise Refused(
            "cwd", f"the working directory {path!r} is outside of the container's root", errno.EPERM
        )
    return True


def cwd_text(path: str, number: int) -> str:
    """Why a working directory cannot be entered, in the words that Docker's clients look for."""
    return f'chdir to cwd ("{path}") set in config.json failed: {os.strerror(number).lower()}'


def find_program(wanted: ProcessSpec) -> str:
    """The file that `args[0]` means, looked up as the user in the container's own PATH.

    Raises:
        Refused: in the words that Docker's clients look for.
    """
    name = wanted.args[0]
    if not name:
        raise Refused("exec", 'exec: "": executable file not found in $PATH', errno.ENOENT)
    if "/" in name:
        number = _executable(name)
        if number == 0:
            return name
        if number == errno.ENOENT:
            raise Refused("exec", f'exec: "{name}": stat {name}: no such file or directory', number)
        raise Refused("exec", f'exec: "{name}": {os.strerror(number).lower()}', number)
    path = ""
    for variable in wanted.env:
        if variable.startswith("PATH="):
            path = variable[5:]
    denied = False
    for directory in path.split(":") if path else []:
        candidate = f"{directory or '.'}/{name}"
        number = _executable(candidate)
        if number == 0:
            return candidate
        denied = denied or number == errno.EACCES
    if denied:
        raise Refused("exec", f'exec: "{name}": permission denied', errno.EACCES)
    raise Refused("exec", f'exec: "{name}": executable file not found in $PATH', errno.ENOENT)


def _executable(path: str) -> int:
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno or errno.ENOENT
    if stat.S_ISDIR(found.st_mode):
        return errno.EISDIR
    return 0 if found.st_mode & 0o111 and os.access(path, os.X_OK, effective_ids=True) else errno.EACCES
