"""Classic BPF as seccomp runs it: instructions, and the few shapes that a filter is made of.

Kernel Documentation/networking/filter.rst; `struct seccomp_data` in include/uapi/linux/seccomp.h. Code is a
list of (code, jt, jf, k); offsets of a jump count from the instruction after it. Every piece made here ends
in a return or falls off its end, so that pieces can be put one after another.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

Instruction = tuple[int, int, int, int]
Code = list[Instruction]

LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
JUMP = 0x05
JUMP_EQUAL = 0x15
JUMP_GREATER = 0x25
JUMP_GREATER_EQUAL = 0x35
AND = 0x54
RETURN = 0x06

OFFSET_NUMBER = 0
OFFSET_ARCHITECTURE = 4
OFFSET_ARGUMENTS = 16
MAX_INSTRUCTIONS = 4096

_FAIL = -1  # stands for "to the end of this piece" until its length is known
_PASS = -2


def returns(value: int) -> Code:
    """End the filter with this action."""
    return [(RETURN, 0, 0, value)]


def load(offset: int) -> Code:
    """Fetch a word of the seccomp data."""
    return [(LOAD, 0, 0, offset)]


def branch(test: int, value: int, yes: Code, no: Code) -> Code:
    """`yes` where the loaded word passes the test, else `no`; `yes` must end in a return."""
    if len(yes) <= 255:
        return [(test, 0, len(yes), value), *yes, *no]
    return [(test, 0, 1, value), (JUMP, 0, 0, 1), (JUMP, 0, 0, len(yes)), *yes, *no]


def search(starts: Sequence[int], pieces: Sequence[Code]) -> Code:
    """A binary search for the loaded word.

    Args:
        starts: ascending; piece i is for words from `starts[i]` up to the next start; the first is 0.
        pieces: each ends in a return.
    """
    if len(pieces) == 1:
        return pieces[0]
    middle = len(pieces) // 2
    upper = search(starts[middle:], pieces[middle:])
    lower = search(starts[:middle], pieces[:middle])
    return branch(JUMP_GREATER_EQUAL, starts[middle], upper, lower)


def compare(index: int, operator: str, value: int, value_two: int, wide: bool) -> Code:
    """A condition on one argument, for `conjunction`.

    Args:
        index: 0 to 5.
        operator: OCI's `SCMP_CMP_…`.
        wide: compare 64 bits; else the low 32.
    """
    low, high = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
    load_low: Instruction = (LOAD, 0, 0, OFFSET_ARGUMENTS + 8 * index)
    load_high: Instruction = (LOAD, 0, 0, OFFSET_ARGUMENTS + 8 * index + 4)
    if operator == "SCMP_CMP_MASKED_EQ":
        low_two, high_two = value_two & 0xFFFFFFFF, value_two >> 32 & 0xFFFFFFFF
        code: Code = [load_low, (AND, 0, 0, low), (JUMP_EQUAL, 0, _FAIL, low_two)]
        if wide:
            code = [load_high, (AND, 0, 0, high), (JUMP_EQUAL, 0, _FAIL, high_two), *code]
        return code
    code = [load_low]
    if operator == "SCMP_CMP_EQ":
        code += [(JUMP_EQUAL, 0, _FAIL, low)]
        return [load_high, (JUMP_EQUAL, 0, _FAIL, high), *code] if wide else code
    if operator == "SCMP_CMP_NE":
        code += [(JUMP_EQUAL, _FAIL, 0, low)]
        return [load_high, (JUMP_EQUAL, 0, _PASS, high), *code] if wide else code
    test = JUMP_GREATER if operator in ("SCMP_CMP_GT", "SCMP_CMP_LE") else JUMP_GREATER_EQUAL
    if operator in ("SCMP_CMP_GT", "SCMP_CMP_GE"):
        code += [(test, 0, _FAIL, low)]
        above, below = _PASS, _FAIL
    else:
        code += [(test, _FAIL, 0, low)]
        above, below = _FAIL, _PASS
    if not wide:
        return code
    return [load_high, (JUMP_GREATER, above, 0, high), (JUMP_EQUAL, 0, below, high), *code]


def conjunction(conditions: Sequence[Code], then: Code) -> Code:
    """`then`, which ends in a return, where all conditions hold; else fall off the end."""
    total = sum(map(len, conditions)) + len(then)
    code: Code = []
    for condition in conditions:
        end = len(code) + len(condition)
        for instruction in condition:
            operation, *targets, value = instruction
            position = len(code)
            offsets = [
                total - position - 1 if target == _FAIL else end - position - 1 if target == _PASS else target
                for target in targets
            ]
            code.append((operation, offsets[0], offsets[1], value))
    return code + then


def assemble(code: Code) -> bytes:
    """The program as the kernel takes it: an array of `struct sock_filter`.

    Raises:
        ValueError: it is longer than the kernel allows.
    """
    if len(code) > MAX_INSTRUCTIONS:
        raise ValueError(
            f"the seccomp filter has {len(code)} instructions; the kernel takes {MAX_INSTRUCTIONS}"
        )
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
