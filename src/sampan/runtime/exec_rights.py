"""Giving up all rights that an exec's program is not to have, as steps; `init` does the same itself."""

from __future__ import annotations

import errno
import os
import struct
from functools import cache

from sampan.linux import capabilities, syscalls
from sampan.runtime.bundle import ProcessSpec
from sampan.runtime.init import Refused, cwd_text, must_set_groups, no_such_user
from sampan.runtime.steps import Meaning, Steps
from sampan.runtime.targets import Filters
from sampan.runtime.told import OUTSIDE

_PR_CAP_AMBIENT_RAISE, _PR_CAP_AMBIENT_CLEAR_ALL = 2, 4
_CAPABILITY_VERSION_3 = 0x20080522
_SECCOMP_SET_MODE_FILTER = 1


@cache
def _present() -> tuple[int, int, int]:
    """Bits of this process's sets: bounding, permitted, inheritable. An exec's begin with them."""
    _, held, inherited = capabilities.get_process()
    return capabilities.mask(capabilities.bounding()), held, inherited


def load_filter(steps: Steps, filters: Filters) -> None:
    """Put the container's system call filter in force."""
    if filters is None:
        return
    program, flags = filters
    code = steps.data(program)
    argument = steps.data(struct.pack("<QQ", len(program) // 8, code))
    steps.call(
        "seccomp", _SECCOMP_SET_MODE_FILTER, flags, argument,
        means=lambda number: Refused("init", f"seccomp: {os.strerror(number)}", number),
    )  # fmt: skip


def become_user(steps: Steps, wanted: ProcessSpec, in_user_namespace: bool, reached: int) -> None:
    """Give up capabilities, become the user, and go where only that may.

    Args:
        in_user_namespace: the process has joined one, and so has all capabilities there.
        reached: zero lies there when the working directory was reached before.
    """
    full = (1 << capabilities.last_cap() + 1) - 1
    bounding, held, inherited = (full, full, 0) if in_user_namespace else _present()
    given = wanted.capabilities
    if given is not None:
        for number in _bits(bounding & ~capabilities.mask(given.bounding)):
            steps.call("prctl", syscalls.PR_CAPBSET_DROP, number, means=_means(f"drop capability {number}"))
    steps.call("prctl", syscalls.PR_SET_KEEPCAPS, 1)
    if must_set_groups(wanted):
        groups = struct.pack(f"<{len(wanted.additional_gids)}I", *wanted.additional_gids)
        place = steps.data(groups)
        steps.call("setgroups", len(wanted.additional_gids), place, means=_means("setgroups"))
    for name, number in (("setresgid", wanted.gid), ("setresuid", wanted.uid)):
        steps.call(name, *[number] * 3, means=_identity(name, wanted.uid, wanted.gid))
    steps.call("prctl", syscalls.PR_SET_KEEPCAPS, 0)
    steps.call("compare", reached, 0, failed="as user", positive="as user", zero="in directory")
    steps.label("as user")
    means: Meaning = lambda number: Refused("cwd", cwd_text(wanted.cwd, number), number)  # noqa: E731
    steps.call("chdir", steps.text(wanted.cwd), means=means)
    check_inside(steps)
    steps.label("in directory")
    steps.call("getpid")
    if given is None:
        return
    sets = capabilities.process_sets(
        given.effective, given.permitted, given.inheritable, held & bounding | inherited, inherited
    )
    halves = [bits >> shift & 0xFFFFFFFF for shift in (0, 32) for bits in sets]
    header = steps.data(struct.pack("<IiII", _CAPABILITY_VERSION_3, 0, 0, 0))
    steps.call("capset", header, steps.data(struct.pack("<6I", *halves)), means=_means("capset"))
    steps.call("prctl", syscalls.PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for number in _bits(capabilities.mask(given.ambient) & sets[1] & sets[2]):
        steps.call("prctl", syscalls.PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)


def check_inside(steps: Steps) -> None:
    """See that the working directory lies inside the root: the kernel's answer begins with a slash then."""
    name = f"inside {steps.length}"
    place = steps.scratch(4096 + 8) + 8
    steps.call("getcwd", place, 4096)
    # The eight bytes that end with the answer's first one, which so is the number's highest.
    wrong = f"not {name}"
    steps.call("compare", place - 7, ord("/") << 56, failed=wrong, zero=name, positive=wrong)
    steps.label(wrong)
    steps.tell(steps.numbers(OUTSIDE, 0), 16)
    steps.label(name)


def _identity(what: str, uid: int, gid: int) -> Meaning:
    return lambda number: no_such_user(uid, gid) if number == errno.EINVAL else _means(what)(number)


def _means(what: str) -> Meaning:
    return lambda number: Refused("init", f"{what}: {os.strerror(number)}", number)


def _bits(mask: int) -> list[int]:
    return [number for number in range(mask.bit_length()) if mask >> number & 1]
