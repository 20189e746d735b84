"""From an OCI `linux.seccomp` object to a BPF program, and into the kernel (seccomp(2), config-linux.md).

For a call, the first listed rule whose argument conditions hold decides, then the first rule without
conditions, then the default action. A name that an architecture does not have says nothing there. Calls newer
than every name in a restrictive profile answer ENOSYS, so that libraries fall back to older ones.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sampan.errors import InvalidParameter, Unsupported
from sampan.linux import bpf, syscalls
from sampan.linux.syscall_table import X32_BIT, table

_RETURNS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_WITH_DATA = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
_OPERATORS = frozenset(
    f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
)  # fmt: skip
_KILL = _RETURNS["SCMP_ACT_KILL_PROCESS"]
_ENOSYS = _RETURNS["SCMP_ACT_ERRNO"] | errno.ENOSYS

# Linux include/uapi/linux/audit.h
_AUDIT = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
}
_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_FAMILY = {
    "SCMP_ARCH_X86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "SCMP_ARCH_AARCH64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
_NARROW = ("SCMP_ARCH_X86", "SCMP_ARCH_ARM")

# 32-bit x86 can make these calls through one number too, by the first argument (socketcall(2), ipc(2)).
_SOCKETCALL = (
    "socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom shutdown "
    "setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg"
).split()
_MULTIPLEXED = {name: ("socketcall", number) for number, name in enumerate(_SOCKETCALL, 1)} | {
    name: ("ipc", number)
    for name, number in {
        "semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4, "msgsnd": 11, "msgrcv": 12, "msgget": 13,
        "msgctl": 14, "shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24,
    }.items()
}  # fmt: skip

FLAG_TSYNC = 1
FLAG_LOG = 2
FLAG_SPEC_ALLOW = 4
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": FLAG_SPEC_ALLOW,
}
_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER = 1


class _Condition(NamedTuple):
    argument: int
    operator: str
    value: int
    value_two: int


class _Rule(NamedTuple):
    action: int
    conditions: tuple[_Condition, ...]


def compile_filter(profile: Mapping[str, Any], machine: str | None = None) -> bytes:
    """The program for a profile; equal profiles are compiled once.

    Args:
        profile: OCI `linux.seccomp`.
        machine: as uname(2) names it; this one's when not given.

    Raises:
        InvalidParameter: the profile contradicts itself or names what nobody knows.
        Unsupported: it asks for SCMP_ACT_NOTIFY, or the machine's architecture is not known here.
    """
    return _compile(json.dumps(profile, sort_keys=True), machine or os.uname().machine)


def flags_of(profile: Mapping[str, Any]) -> int:
    """The flags for `load` that a profile asks for.

    Raises:
        InvalidParameter, Unsupported: an unknown one, or one that goes with SCMP_ACT_NOTIFY.
    """
    given = profile.get("flags")
    if given is None:
        return FLAG_SPEC_ALLOW
    bits = 0
    for name in given:
        if name == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV":
            raise Unsupported(f"seccomp: {name} is not supported, as there is no SCMP_ACT_NOTIFY")
        if name not in _FLAGS:
            raise InvalidParameter(f"seccomp: unknown flag {name!r}")
        bits |= _FLAGS[name]
    return bits


@lru_cache(maxsize=8)
def _compile(text: str, machine: str) -> bytes:
    profile = json.loads(text)
    for member in ("listenerPath", "listenerMetadata"):
        if profile.get(member):
            raise Unsupported(f"seccomp: {member} is not supported")
    if machine not in _NATIVE:
        raise Unsupported(f"seccomp filters are not offered on {machine}")
    default = _action(profile.get("defaultAction"), profile.get("defaultErrnoRet"))
    restrictive = profile["defaultAction"] not in _PERMISSIVE
    code = bpf.load(bpf.OFFSET_ARCHITECTURE)
    rules = _parse_rules(profile.get("syscalls") or [])
    sections = []
    wanted = _architectures(profile.get("architectures") or [], _NATIVE[machine])
    for architecture in wanted:
        if architecture == "SCMP_ARCH_X32":
            continue
        section = _section(architecture, rules, default, restrictive)
        if architecture == "SCMP_ARCH_X86_64":
            beyond = bpf.returns(_KILL)
            if "SCMP_ARCH_X32" in wanted:
                beyond = _section("SCMP_ARCH_X32", rules, default, restrictive)
            # -1 is what a tracer leaves of a call that it has cancelled: no call at all, and not x32
            beyond = bpf.branch(bpf.JUMP_EQUAL, 0xFFFFFFFF, bpf.returns(default), beyond)
            section = bpf.branch(bpf.JUMP_GREATER_EQUAL, X32_BIT, beyond, section)
        sections.append((_AUDIT[architecture], bpf.load(bpf.OFFSET_NUMBER) + section))
    rest = bpf.returns(_KILL)
    for audit, section in reversed(sections):
        rest = bpf.branch(bpf.JUMP_EQUAL, audit, section, rest)
    try:
        return bpf.assemble(code + rest)
    except ValueError as error:
        raise InvalidParameter(str(error)) from None


def _architectures(given: Sequence[str], native: str) -> list[str]:
    """Those of this machine's family that the profile names, its own first: others can never run here."""
    for name in given:
        if not name.startswith("SCMP_ARCH_"):
            raise InvalidParameter(f"seccomp: unknown architecture {name!r}")
    return [name for name in _FAMILY[native] if name == native or name in given]


def _action(name: Any, data: int | None) -> int:
    if name == "SCMP_ACT_NOTIFY":
        raise Unsupported("seccomp: SCMP_ACT_NOTIFY is not supported")
    if name not in _RETURNS:
        raise InvalidParameter(f"seccomp: unknown action {name!r}")
    if data is not None and name not in _WITH_DATA:
        raise InvalidParameter(
            f"seccomp: errnoRet goes with SCMP_ACT_ERRNO and SCMP_ACT_TRACE, not with {name}"
        )
    if data is not None and not 0 <= data <= 0xFFFF:
        raise InvalidParameter(f"seccomp: errnoRet {data} is out of range")
    value = _RETURNS[name]
    return value | (errno.EPERM if data is None else data) if name in _WITH_DATA else value


def _parse_rules(entries: Sequence[Mapping[str, Any]]) -> list[tuple[str, _Rule]]:
    rules: list[tuple[str, _Rule]] = []
    for entry in entries:
        action = _action(entry.get("action"), entry.get("errnoRet"))
        conditions = [_condition(argument) for argument in entry.get("args") or []]
        indexes = [condition.argument for condition in conditions]
        # Conditions on different arguments must all hold; two on the same one are alternatives, as elsewhere.
        if len(set(indexes)) == len(indexes):
            alternatives = [tuple(conditions)]
        else:
            alternatives = [(condition,) for condition in conditions]
        names = entry.get("names") or []
        if not names:
            raise InvalidParameter("seccomp: a rule names no system call")
        rules += [(name, _Rule(action, each)) for name in names for each in alternatives]
    return rules


def _condition(argument: Mapping[str, Any]) -> _Condition:
    index, operator = argument.get("index"), argument.get("op")
    if not isinstance(index, int) or not 0 <= index <= 5:
        raise InvalidParameter(f"seccomp: argument index {index!r} is not one of 0 to 5")
    if operator not in _OPERATORS:
        raise InvalidParameter(f"seccomp: unknown operator {operator!r}")
    return _Condition(index, operator, argument.get("value") or 0, argument.get("valueTwo") or 0)


def _section(
    architecture: str, rules: Sequence[tuple[str, _Rule]], default: int, restrictive: bool
) -> bpf.Code:
    """The search over one architecture's numbers; the number is loaded."""
    numbers = table(architecture)
    by_number: dict[int, list[_Rule]] = {}
    for name, rule in rules:
        number = numbers.get(name)
        if number is not None:
            by_number.setdefault(number, []).append(rule)
        if architecture == "SCMP_ARCH_X86" and name in _MULTIPLEXED and not rule.conditions:
            common, which = _MULTIPLEXED[name]
            through = _Rule(rule.action, (_Condition(0, "SCMP_CMP_EQ", which, 0),))
            by_number.setdefault(numbers[common], []).append(through)
    starts: list[int] = []
    pieces: list[bpf.Code] = []

    def put(start: int, piece: bpf.Code) -> None:
        if starts and starts[-1] == start:
            starts.pop()
            pieces.pop()
        if not pieces or pieces[-1] != piece:
            starts.append(start)
            pieces.append(piece)

    put(0, bpf.returns(default))
    for number in sorted(by_number):
        put(number, _decide(by_number[number], default, wide=architecture not in _NARROW))
        put(number + 1, bpf.returns(default))
    if restrictive and by_number and default != _ENOSYS:
        put(max(by_number) + 1, bpf.returns(_ENOSYS))
    return bpf.search(starts, pieces)


def _decide(rules: Sequence[_Rule], default: int, wide: bool) -> bpf.Code:
    last = next((rule.action for rule in rules if not rule.conditions), default)
    conditional = [rule for rule in rules if rule.conditions]
    while conditional and conditional[-1].action == last:
        conditional.pop()
    code: bpf.Code = []
    for rule in conditional:
        tests = [
            bpf.compare(one.argument, one.operator, one.value, one.value_two, wide) for one in rule.conditions
        ]
        code += bpf.conjunction(tests, bpf.returns(rule.action))
    return code + bpf.returns(last)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def load(program: bytes, flags: int = 0) -> None:
    """Put a program in force on the calling thread, for good; its children inherit it.

    Args:
        program: from `compile_filter`.
        flags: `FLAG_…`, as `flags_of` gives them.

    Raises:
        OSError: EACCES without CAP_SYS_ADMIN or no_new_privs.
    """
    code = ctypes.create_string_buffer(program, len(program))
    argument = _Program(len(program) // 8, ctypes.addressof(code))
    number = _SYS_SECCOMP[os.uname().machine]
    syscalls.syscall("seccomp", number, _SET_MODE_FILTER, flags, ctypes.byref(argument))
