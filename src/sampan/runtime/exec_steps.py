"""The way of an exec from the host into its container, as two lists of steps for `steps_program`.

The first leads into the container's cgroups and waits; the second, written when the program is known, goes on
into the namespaces, gives up all rights that the program is not to have (`exec_rights`), and only then forks
into the container's pid namespace (`exec_start`). The order of the steps is that of `init`: each is what
those before it still permit. One exec of a container is much like the next: what does not depend on its
program is kept for that.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import struct
from dataclasses import fields
from operator import attrgetter
from typing import Any

from sampan.dataclasses import dataclass
from sampan.linux import namespaces, rlimits, syscalls
from sampan.runtime.bundle import ProcessSpec
from sampan.runtime.exec_rights import become_user, check_inside, load_filter
from sampan.runtime.exec_start import not_forked, start, step_in
from sampan.runtime.init import Refused, cwd_text
from sampan.runtime.steps import NEXT, SECOND_STEP, Meaning, Steps
from sampan.runtime.steps_program import FIRST_BYTES, ROOM_BYTES
from sampan.runtime.targets import Target
from sampan.runtime.told import BORN, MOVED, NO_DEVPTS, TERMINAL, Hands

_DEVPTS_SUPER_MAGIC = 0x1CD1
_TIOCSPTLCK, _TIOCGPTPEER, _TIOCSWINSZ = 0x40045431, 0x5441, 0x5414
_F_SETFD, _FD_CLOEXEC = 2, 1
_KEYCTL_JOIN_SESSION_KEYRING = 1
_TERMINAL_OPEN = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
_OWN_SCORE = "/proc/self/oom_score_adj"
# All of a process but what `start` alone needs.
_KIND = attrgetter(*(one.name for one in fields(ProcessSpec) if one.name not in ("args", "env")))
_BENEATH = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS | syscalls.RESOLVE_NO_SYMLINKS


@dataclass(slots=True)
class Way:
    """What both lists need to know.

    Attributes:
        machine: as `uname -m` says.
        hands: the process's descriptors.
        where: what it is to join.
        session: name of its session keyring.
        guarded: it is killed when this process dies.
        own_view: it sees its own cgroup as the root of the hierarchy.
        paths: of `hands.tasks`, for messages.
    """

    machine: str
    hands: Hands
    where: Target
    session: str
    guarded: bool
    own_view: bool
    paths: tuple[str, ...] = ()


@dataclass(slots=True)
class _Kept:
    """The list of the last exec, before what was its alone; good for one of which the same is known.

    Attributes:
        known: all that it depends on.
        place: what the caller needs of it besides.
    """

    known: tuple[Any, ...]
    steps: Steps
    place: Any


_first: _Kept | None = None
_second: _Kept | None = None


def _means(stage: str, text: str = "{}") -> Meaning:
    return lambda number: Refused(stage, text.format(os.strerror(number)), number)


# --- into the cgroups ---


def first_steps(way: Way) -> Steps:
    """The list that leads to the wait for "go"."""
    global _first
    name = f"_ses.{way.session}"
    known = (way.machine, way.hands, way.guarded, way.paths, len(os.fsencode(name)))
    if _first is None or _first.known != known:
        _first = _Kept(known, *_to_the_cgroups(way, name))
    steps = _first.steps.copy()
    steps.put_text(_first.place, name)
    return steps


def _to_the_cgroups(way: Way, name: str) -> tuple[Steps, int]:
    """The list, and where the name of its session keyring lies."""
    hands = way.hands
    steps = Steps(way.machine, hands.channel)
    steps.call("prctl", syscalls.PR_SET_DUMPABLE, 0)
    steps.call("fcntl", hands.channel, _F_SETFD, _FD_CLOEXEC)
    if hands.unified >= 0:
        _enter_unified(steps, hands)
    if way.guarded:
        steps.call("prctl", syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    steps.call("setsid")
    place = steps.text(name)
    steps.forgive(
        "keyctl", _KEYCTL_JOIN_SESSION_KEYRING, place,
        errors=(errno.ENOSYS, errno.EPERM, errno.EACCES),
        means=_means("keyring", "unable to join session keyring: {}"),
    )  # fmt: skip
    zero = steps.text("0")
    for fd, path in zip(hands.tasks, way.paths, strict=True):
        steps.call("write", fd, zero, 1, means=_means("cgroup", f"{path}: {{}}"))
    steps.call("read", hands.channel, steps.room(16), 16, failed="alone", zero="alone")
    steps.call("pread64", 0, SECOND_STEP, ROOM_BYTES - FIRST_BYTES, FIRST_BYTES, positive=SECOND_STEP)
    steps.label("alone")
    steps.call("exit_group", 1)
    return steps, place


def _enter_unified(steps: Steps, hands: Hands) -> None:
    """Be born in there: who moves there takes a lock of the whole system (cgroup_procs_write_start)."""
    means = _means("cgroup", "join the container's cgroup: {}")

    def not_born(number: int) -> Exception:
        return not_forked(number) if number == errno.EAGAIN else means(number)

    born = steps.numbers(BORN, 0)
    flags = syscalls.CLONE_INTO_CGROUP | syscalls.CLONE_PARENT
    wanted = steps.numbers(flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, hands.unified)
    made = steps.call("clone3", wanted, 88, failed="unborn", zero="entered", store=born + 8, means=not_born)
    steps.call("write", hands.channel, born, 16)
    steps.call("exit_group", 0)
    steps.label("unborn")
    for number in (errno.EINVAL, errno.E2BIG, errno.ENOSYS):  # CLONE_INTO_CGROUP came with kernel 5.7
        steps.call("compare", born + 8, -number, failed=NEXT, zero="move")
    told = steps.numbers(made, 0)
    steps.call("compare", born + 8, 0, failed=NEXT, store=told + 8)
    steps.tell(told, 16)
    steps.label("move")
    procs = steps.text("cgroup.procs")
    opened = steps.call("openat", hands.unified, procs, os.O_WRONLY | os.O_CLOEXEC, means=means)
    steps.keep(opened, steps.call("write", 0, steps.text("0"), 1, means=means), 0)
    steps.call("write", hands.channel, steps.numbers(MOVED, 0), 16)
    steps.label("entered")


# --- into the namespaces, and out of all rights ---


def second_steps(way: Way, wanted: ProcessSpec, size: tuple[int, int] | None) -> Steps:
    """The list from "go" to the program.

    Args:
        wanted: the program.
        size: rows and columns of its terminal.

    Raises:
        Refused: the program's description is at fault.
    """
    global _second
    score = _present_score() if wanted.oom_score_adj is not None else None
    processes = resource.getrlimit(resource.RLIMIT_NPROC)
    where, kind = (way.machine, way.hands, way.where, way.guarded, way.own_view), _KIND(wanted)
    known = (*where, *kind, size, score, processes)
    if _second is None or _second.known != known:
        _second = _Kept(known, *_out_of_all_rights(way, wanted, size, score))
    steps = _second.steps.copy()
    start(steps, way.hands, wanted, _second.place)
    return steps


def _present_score() -> int:
    fd = os.open(_OWN_SCORE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(fd, 16))
    finally:
        os.close(fd)


def _out_of_all_rights(
    way: Way, wanted: ProcessSpec, size: tuple[int, int] | None, score: int | None
) -> tuple[Steps, list[tuple[int, int, int]]]:
    """The list up to the program, and the limits that come with that."""
    hands = way.hands
    steps = Steps(way.machine, hands.channel, first=False)
    _set_oom_score(steps, wanted.oom_score_adj, score)
    attributes = _open_apparmor(steps, wanted)
    _join(steps, way)
    if wanted.terminal:
        _make_terminal(steps, hands, size or wanted.console_size)
    else:
        for number, fd in enumerate(hands.stdio):
            if fd > 2:
                steps.call("dup3", fd, number, 0)
    late = _set_rlimits(steps, wanted)
    if attributes:
        profile = f"exec {wanted.apparmor_profile}".encode()
        failure = f"unable to apply apparmor profile {wanted.apparmor_profile}: {{}}"
        written = steps.call("write", 0, steps.data(profile), len(profile), means=_means("apparmor", failure))
        for opened in attributes:
            steps.keep(opened, written, 0)
    if wanted.terminal or wanted.uid or "user" in way.where.namespaces:
        for number in (0,) if wanted.terminal else hands.owned:
            steps.call("fchown", number, wanted.uid, -1, failed=NEXT)  # so that /dev/stdout opens again
    steps.call("umask", wanted.umask)
    reached = _change_directory(steps, wanted.cwd)
    if wanted.no_new_privileges:
        steps.call("prctl", syscalls.PR_SET_NO_NEW_PRIVS, 1)
    else:
        load_filter(steps, way.where.filters)
    become_user(steps, wanted, "user" in way.where.namespaces, reached)
    if wanted.no_new_privileges:
        load_filter(steps, way.where.filters)
    step_in(steps, hands, way.guarded)
    return steps, late


def _set_oom_score(steps: Steps, score: int | None, present: int | None) -> None:
    """Where the host's /proc is seen; until then the process has this one's score."""
    if score is None or score == present:
        return
    path, text = steps.text(_OWN_SCORE), b"%d" % score
    opened = steps.call("openat", syscalls.AT_FDCWD, path, os.O_WRONLY | os.O_CLOEXEC)
    place = steps.data(text)
    if score == 0:  # nobody asked; the daemon itself was raised, and may not lower it again
        steps.keep(opened, steps.forgive("write", 0, place, len(text), errors=(errno.EACCES,)), 0)
        return
    lacking = Refused("oom", f"oom_score_adj {score}: lowering it needs CAP_SYS_RESOURCE", errno.EPERM)
    other = _means("oom", f"oom_score_adj {score}: {{}}")
    written = steps.call(
        "write", 0, place, len(text),
        means=lambda number: lacking if number == errno.EACCES else other(number),
    )  # fmt: skip
    steps.keep(opened, written, 0)


def _open_apparmor(steps: Steps, wanted: ProcessSpec) -> list[int]:
    """Open the attribute where the host's /proc is seen; the steps whose result it may be."""
    if not wanted.apparmor_profile:
        return []
    missing = f"apparmor profile {wanted.apparmor_profile} given, but this kernel has no AppArmor"
    first, second = (steps.text(f"/proc/thread-self/attr/{name}exec") for name in ("apparmor/", ""))
    flags = os.O_WRONLY | os.O_CLOEXEC
    found = steps.call(
        "openat", syscalls.AT_FDCWD, first, flags, failed=NEXT, zero="attribute", positive="attribute"
    )
    means = _means("apparmor", missing)
    other = steps.call("openat", syscalls.AT_FDCWD, second, flags, means=means)
    steps.label("attribute")
    steps.call("getpid")
    return [found, other]


def _join(steps: Steps, way: Way) -> None:
    kinds = [kind for kind in way.where.namespaces if not (way.own_view and kind == "cgroup")]
    flags = 0
    for kind in kinds:
        flags |= namespaces.flag(kind)
    spaces = way.hands.spaces or ([(way.hands.container, flags)] if flags else [])
    for fd, wanted in spaces:
        steps.call("setns", fd, wanted, means=_means("init", "join the container's namespaces: {}"))
    if way.own_view:
        steps.call("unshare", syscalls.CLONE_NEWCGROUP)


def _make_terminal(steps: Steps, hands: Hands, size: tuple[int, int] | None) -> None:
    """Make one in the container's own devpts, give its master to the channel, take its other end."""
    means = _means("terminal", "open /dev/pts/ptmx: {}")
    master = max([*hands.all(), 2]) + 1
    slave = master + 1
    how = steps.numbers(_TERMINAL_OPEN, 0, _BENEATH)
    path = steps.text("/dev/pts/ptmx")
    attempts = [
        steps.call(
            "openat2",
            syscalls.AT_FDCWD,
            path,
            how,
            24,
            failed=NEXT if attempt < 3 else "",
            zero="opened",
            positive="opened",
            means=means,
        )
        for attempt in range(1, 4)  # EAGAIN, where a rename races
    ]
    steps.label("opened")
    moved = steps.call("dup3", 0, master, os.O_CLOEXEC, means=means)
    for attempt in attempts:
        steps.keep(attempt, moved, 0)
    found = steps.scratch(256)
    steps.call("fstatfs", master, found, means=means)
    steps.call("compare", found, _DEVPTS_SUPER_MAGIC, failed="no devpts", zero="devpts", positive="no devpts")
    steps.label("no devpts")
    steps.tell(steps.numbers(NO_DEVPTS, 0), 16)
    steps.label("devpts")
    steps.call("ioctl", master, _TIOCSPTLCK, steps.room(), means=means)
    # By way of the master, not by a path that somebody may have replaced.
    other = steps.call("ioctl", master, _TIOCGPTPEER, _TERMINAL_OPEN, means=means)
    steps.keep(other, steps.call("dup3", 0, slave, os.O_CLOEXEC, means=means), 0)
    if size:
        window = struct.pack("<4H", size[0] & 0xFFFF, size[1] & 0xFFFF, 0, 0)
        steps.call("ioctl", master, _TIOCSWINSZ, steps.data(window), means=means)
    control = steps.data(struct.pack("<QiiiI", 20, 1, 1, master, 0))  # cmsg(3): SOL_SOCKET, SCM_RIGHTS
    vector = steps.numbers(steps.numbers(TERMINAL, 0), 16)
    steps.call("sendmsg", hands.channel, steps.numbers(0, 0, vector, 1, control, 24, 0), 0, means=means)
    for number in range(3):
        steps.call("dup3", slave, number, 0, means=means)


def _set_rlimits(steps: Steps, wanted: ProcessSpec) -> list[tuple[int, int, int]]:
    """Set limits. One that the process's own forks would feel is returned, if it needs no right later on."""
    late = []
    for entry in wanted.rlimits:
        try:
            number, soft, hard = rlimits.numbers(entry)
        except ValueError as error:
            raise Refused("rlimit", str(error), errno.EINVAL) from None
        _, present = resource.getrlimit(number)
        if entry["type"] == "RLIMIT_NPROC" and (present == rlimits.INFINITY or 0 <= hard <= present):
            late.append((number, soft, hard))
            continue

        def means(code: int, entry: dict[str, object] = entry) -> Refused:
            refused = rlimits.refusal(entry, code)
            return Refused("rlimit", refused.strerror or "", code)

        steps.call("prlimit64", 0, number, steps.numbers(soft, hard), 0, means=means)
    return late


def _change_directory(steps: Steps, path: str) -> int:
    """Go to the working directory; where what is not zero tells that the user is to do it, as root may not.

    The kernel's own getcwd then tells whether it lies inside the root: a descriptor to the host that leaked
    could otherwise be entered through /proc/self/fd (CVE-2024-21626).
    """
    told = steps.numbers(0, 0)
    means: Meaning = lambda number: Refused("cwd", cwd_text(path, number), number)  # noqa: E731
    step = steps.call(
        "chdir", steps.text(path), store=told + 8, failed="no directory", zero="there", means=means
    )
    steps.put(told, step)
    steps.label("no directory")
    steps.call("compare", told + 8, -errno.EACCES, failed=NEXT, zero="later")
    steps.tell(told, 16)
    steps.label("there")
    check_inside(steps)
    steps.label("later")
    steps.call("getpid")
    return told + 8
