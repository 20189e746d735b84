"""A static program that carries out a list of system calls, which `steps` writes: the way into a container.

It is written instruction by instruction for want of a compiler, and has nothing of its maker's memory: what a
process in the container could ever see of it, the container may see. It reads the list from its standard
input into a place of fixed address, takes one step after the other, and knows four things to do with a
result: keep it, and go on elsewhere when it is negative, zero or positive. Where a failure leads nowhere, the
step's address and the result go to the channel as two numbers of eight bytes, and the program ends with 1.
"""

from __future__ import annotations

import os
from functools import cache

from sampan.linux.assembler import EQUAL, LESS, Assembler, assembler_for, executable, sealed

NAME = "sampan-reaper"  # as ps shows it: most of its life it waits for what an exec has started

# Where the list lies, and what stands at its head.
ADDRESS = 0x10000000
ROOM_BYTES = 8 << 20
FIRST_BYTES = 0x8000  # are read at the start; the list itself says when to read the rest
CHANNEL, MESSAGE, FIRST_STEP = ADDRESS, ADDRESS + 8, ADDRESS + 64

# Offsets in a step, whose fields have eight bytes each: number, six arguments, what becomes of the result.
STORE, FAILED, ZERO, POSITIVE, STEP_BYTES = 56, 64, 72, 80, 88
COMPARE = 0x10000  # the number of no system call: what lies at the first argument, minus the second


def steps_program(machine: str) -> bytes:
    """The executable.

    Args:
        machine: `x86_64` or `aarch64`.

    Raises:
        Unsupported: another one.
    """
    assembler = assembler_for(machine, "exec")
    _program(assembler)
    return executable(assembler, (ADDRESS, ROOM_BYTES))


@cache
def sealed_steps_program() -> int:
    """A descriptor of this machine's program, which nobody can write to; made once, it stays open.

    Raises:
        Unsupported: it is not written for this machine.
    """
    return sealed(NAME, steps_program(os.uname().machine))


def _program(asm: Assembler) -> None:
    """a: the step; t: its result; s: the channel; u, v: at hand."""
    asm.call("pread64", 0, ADDRESS, FIRST_BYTES, 0)
    asm.move("a", FIRST_STEP)
    asm.label("step")
    asm.load("t", "a", 0, 8)
    asm.jump_if("t", EQUAL, COMPARE, "compare")
    asm.call_listed("a", "t")
    asm.label("result")
    asm.load("u", "a", STORE, 8)
    asm.jump_if("u", EQUAL, 0, "branch")
    asm.store("t", "u", 0, 8)
    asm.label("branch")
    asm.jump_if("t", LESS, 0, "failed")
    asm.jump_if("t", EQUAL, 0, "zero")
    asm.load("a", "a", POSITIVE, 8)
    asm.jump("step")
    asm.label("zero")
    asm.load("a", "a", ZERO, 8)
    asm.jump("step")
    asm.label("failed")
    asm.load("u", "a", FAILED, 8)
    asm.jump_if("u", EQUAL, 0, "report")
    asm.move("a", "u")
    asm.jump("step")
    asm.label("compare")
    asm.load("u", "a", 8, 8)
    asm.load("t", "u", 0, 8)
    asm.load("u", "a", 16, 8)
    asm.subtract("t", "u")
    asm.jump("result")
    asm.label("report")
    asm.move("u", MESSAGE)
    asm.store("a", "u", 0, 8)
    asm.store("t", "u", 8, 8)
    asm.move("s", CHANNEL)
    asm.load("s", "s", 0, 8)
    asm.call("write", "s", "u", 16)
    asm.call("exit_group", 1)
