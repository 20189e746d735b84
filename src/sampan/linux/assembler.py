"""A few instructions of an imaginary machine, as bytes of x86-64 and of AArch64.

Enough to write a small program once and have it for both: eight-byte registers, loads and stores, jumps
on a comparison, system calls. References: Intel SDM volume 2; Arm ARM, section C6.
"""

from __future__ import annotations

import fcntl
import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from sampan.errors import Unsupported

Value = str | int  # a register's name or a number

REGISTERS = ("a", "e", "m", "s", "t", "u", "p", "v", "w")
EQUAL, NOT_EQUAL, LESS, GREATER = "equal", "not equal", "less", "greater"


class Assembler(ABC):
    """Collects code; jumps and addresses of labels are filled in at the end.

    All registers but `w` keep their value over a system call.
    """

    elf_machine: int
    calls: ClassVar[dict[str, int]]

    def __init__(self) -> None:
        self.code = bytearray()
        self._labels: dict[str, int] = {}
        self._fixups: list[tuple[int, str, Callable[[int], bytes]]] = []

    def label(self, name: str) -> None:
        """Name this place."""
        self._labels[name] = len(self.code)

    def data(self, name: str, content: bytes) -> None:
        """Put bytes here, named, and go on at a multiple of four."""
        self.label(name)
        self.code += content + bytes(-len(content) % 4)

    def _later(self, label: str, size: int, encode: Callable[[int], bytes]) -> None:
        """Leave room for what `encode` makes of the distance from here to the label."""
        self._fixups.append((len(self.code), label, encode))
        self.code += bytes(size)

    def finish(self) -> bytes:
        """The code, complete."""
        for place, label, encode in self._fixups:
            piece = encode(self._labels[label] - place)
            self.code[place : place + len(piece)] = piece
        return bytes(self.code)

    def jump_if(self, register: str, condition: str, other: Value, label: str) -> None:
        """Jump when the register compares so (signed) with a number or another register."""
        self._compare(register, other)
        self._branch(condition, label)

    def call(self, name: str, *arguments: Value, result: str | None = None) -> None:
        """A system call; its result, or minus its errno, goes to `result`."""
        for position, argument in enumerate(arguments):
            self._argument(position, argument)
        self._trap(self.calls[name], result)

    @abstractmethod
    def enter(self, stack_bytes: int) -> None:
        """Put the first stack pointer into `a`, reserve stack, and put its lowest address into `m`."""

    @abstractmethod
    def move(self, register: str, value: Value) -> None:
        """Copy a register or set a number."""

    @abstractmethod
    def address(self, register: str, label: str) -> None:
        """The address of a label."""

    @abstractmethod
    def add(self, register: str, number: int) -> None:
        """Add 0 to 4095."""

    @abstractmethod
    def subtract(self, register: str, other: str) -> None:
        """Subtract another register."""

    @abstractmethod
    def mask(self, register: str, number: int) -> None:
        """Keep the bits of `number`."""

    @abstractmethod
    def shift_right(self, register: str, bits: int) -> None:
        """Divide by a power of two, unsigned."""

    @abstractmethod
    def load(self, register: str, base: str, offset: int, size: int) -> None:
        """Fetch 1, 4 or 8 bytes, without sign; `offset` is a multiple of `size`."""

    @abstractmethod
    def store(self, register: str, base: str, offset: int, size: int) -> None:
        """Put 1 or 8 bytes."""

    @abstractmethod
    def jump(self, label: str) -> None:
        """Go on at a label."""

    @abstractmethod
    def call_listed(self, base: str, result: str) -> None:
        """A system call whose number and six arguments lie in memory, 8 bytes each; `p`, `v` are lost."""

    @abstractmethod
    def _compare(self, register: str, other: Value) -> None: ...

    @abstractmethod
    def _branch(self, condition: str, label: str) -> None: ...

    @abstractmethod
    def _argument(self, position: int, value: Value) -> None: ...

    @abstractmethod
    def _trap(self, number: int, result: str | None) -> None: ...


class X86(Assembler):
    """x86-64. System calls leave all registers alone but rax, rcx and r11."""

    elf_machine = 62
    calls: ClassVar[dict[str, int]] = {
        "write": 1, "close": 3, "rt_sigprocmask": 14, "ioctl": 16, "pread64": 17, "getpid": 39, "clone": 56,
        "execve": 59, "wait4": 61, "kill": 62, "setpgid": 109, "prctl": 157, "rt_sigtimedwait": 128,
        "exit_group": 231,
    }  # fmt: skip
    _numbers: ClassVar[dict[str, int]] = dict(zip(REGISTERS, (3, 5, 12, 13, 14, 15, 8, 9, 2), strict=True))
    _arguments = (7, 6, 2, 10)
    _conditions: ClassVar[dict[str, int]] = {EQUAL: 0x84, NOT_EQUAL: 0x85, LESS: 0x8C, GREATER: 0x8F}

    def _put(self, opcode: bytes, reg: int, rm: int, wide: bool = True, tail: bytes = b"") -> None:
        """REX, opcode, ModRM for two registers (`reg` may be an opcode's extension)."""
        rex = 0x40 | (8 if wide else 0) | (reg >> 3) << 2 | rm >> 3
        self.code += bytes((rex,)) + opcode + bytes((0xC0 | (reg & 7) << 3 | rm & 7,)) + tail

    def _put_memory(self, opcode: bytes, reg: int, base: int, offset: int, wide: bool) -> None:
        rex = 0x40 | (8 if wide else 0) | (reg >> 3) << 2 | base >> 3
        sib = b"\x24" if base & 7 == 4 else b""
        modrm = bytes((0x80 | (reg & 7) << 3 | base & 7,))
        self.code += bytes((rex,)) + opcode + modrm + sib + struct.pack("<i", offset)

    def _set(self, register: int, value: Value) -> None:
        if isinstance(value, int):
            self._put(b"\xc7", 0, register, tail=struct.pack("<i", value))
        else:
            self._put(b"\x89", self._numbers[value], register)

    def enter(self, stack_bytes: int) -> None:
        self._put(b"\x89", 4, self._numbers["a"])
        self._put(b"\x81", 5, 4, tail=struct.pack("<i", stack_bytes))
        self._put(b"\x89", 4, self._numbers["m"])

    def move(self, register: str, value: Value) -> None:
        self._set(self._numbers[register], value)

    def address(self, register: str, label: str) -> None:
        number = self._numbers[register]
        self.code += bytes((0x48 | (number >> 3) << 2, 0x8D, (number & 7) << 3 | 5))
        self._later(label, 4, lambda distance: struct.pack("<i", distance - 4))

    def add(self, register: str, number: int) -> None:
        self._put(b"\x81", 0, self._numbers[register], tail=struct.pack("<i", number))

    def subtract(self, register: str, other: str) -> None:
        self._put(b"\x29", self._numbers[other], self._numbers[register])

    def mask(self, register: str, number: int) -> None:
        self._put(b"\x81", 4, self._numbers[register], tail=struct.pack("<i", number))

    def shift_right(self, register: str, bits: int) -> None:
        self._put(b"\xc1", 5, self._numbers[register], tail=bytes((bits,)))

    def load(self, register: str, base: str, offset: int, size: int) -> None:
        opcode = b"\x0f\xb6" if size == 1 else b"\x8b"
        self._put_memory(opcode, self._numbers[register], self._numbers[base], offset, wide=size != 4)

    def store(self, register: str, base: str, offset: int, size: int) -> None:
        opcode = b"\x88" if size == 1 else b"\x89"
        self._put_memory(opcode, self._numbers[register], self._numbers[base], offset, wide=size == 8)

    def jump(self, label: str) -> None:
        self.code += b"\xe9"
        self._later(label, 4, lambda distance: struct.pack("<i", distance - 4))

    def _compare(self, register: str, other: Value) -> None:
        if isinstance(other, int):
            self._put(b"\x81", 7, self._numbers[register], tail=struct.pack("<i", other))
        else:
            self._put(b"\x39", self._numbers[other], self._numbers[register])

    def _branch(self, condition: str, label: str) -> None:
        self.code += bytes((0x0F, self._conditions[condition]))
        self._later(label, 4, lambda distance: struct.pack("<i", distance - 4))

    def _argument(self, position: int, value: Value) -> None:
        self._set(self._arguments[position], value)

    def call_listed(self, base: str, result: str) -> None:
        for position, register in enumerate((0, 7, 6, 2, 10, 8, 9)):
            self._put_memory(b"\x8b", register, self._numbers[base], 8 * position, wide=True)
        self.code += b"\x0f\x05"
        self._put(b"\x89", 0, self._numbers[result])

    def _trap(self, number: int, result: str | None) -> None:
        self._set(0, number)
        self.code += b"\x0f\x05"
        if result is not None:
            self._put(b"\x89", 0, self._numbers[result])


class Arm(Assembler):
    """AArch64. System calls leave all registers alone but x0."""

    elf_machine = 183
    calls: ClassVar[dict[str, int]] = {
        "ioctl": 29, "close": 57, "write": 64, "pread64": 67, "exit_group": 94, "kill": 129,
        "rt_sigprocmask": 135, "rt_sigtimedwait": 137, "setpgid": 154, "prctl": 167, "getpid": 172,
        "clone": 220, "execve": 221, "wait4": 260,
    }  # fmt: skip
    _numbers: ClassVar[dict[str, int]] = dict(zip(REGISTERS, range(19, 28), strict=True))
    _conditions: ClassVar[dict[str, int]] = {EQUAL: 0, NOT_EQUAL: 1, LESS: 11, GREATER: 12}
    _SCRATCH = 9
    _SP = _ZERO = 31

    def _put(self, word: int) -> None:
        self.code += struct.pack("<I", word)

    def _set(self, register: int, value: Value) -> None:
        if isinstance(value, str):
            self._put(0xAA0003E0 | self._numbers[value] << 16 | register)  # orr register, xzr, value
            return
        for half in range(4):
            piece = value >> 16 * half & 0xFFFF
            if half == 0:
                self._put(0xD2800000 | piece << 5 | register)  # movz
            elif piece:
                self._put(0xF2800000 | half << 21 | piece << 5 | register)  # movk

    def enter(self, stack_bytes: int) -> None:
        self._put(0x91000000 | self._SP << 5 | self._numbers["a"])
        self._put(0xD1400000 | stack_bytes >> 12 << 10 | self._SP << 5 | self._SP)  # sub sp, sp, n << 12
        self._put(0x91000000 | self._SP << 5 | self._numbers["m"])

    def move(self, register: str, value: Value) -> None:
        self._set(self._numbers[register], value)

    def address(self, register: str, label: str) -> None:
        number = self._numbers[register]
        self._later(
            label,
            4,
            lambda distance: struct.pack(
                "<I", 0x10000000 | (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5 | number
            ),
        )

    def add(self, register: str, number: int) -> None:
        place = self._numbers[register]
        self._put(0x91000000 | number << 10 | place << 5 | place)

    def subtract(self, register: str, other: str) -> None:
        place = self._numbers[register]
        self._put(0xCB000000 | self._numbers[other] << 16 | place << 5 | place)

    def mask(self, register: str, number: int) -> None:
        place = self._numbers[register]
        self._set(self._SCRATCH, number)
        self._put(0x8A000000 | self._SCRATCH << 16 | place << 5 | place)

    def shift_right(self, register: str, bits: int) -> None:
        place = self._numbers[register]
        self._put(0xD340FC00 | bits << 16 | place << 5 | place)

    def load(self, register: str, base: str, offset: int, size: int) -> None:
        opcode = {1: 0x39400000, 4: 0xB9400000, 8: 0xF9400000}[size]
        self._put(opcode | offset // size << 10 | self._numbers[base] << 5 | self._numbers[register])

    def store(self, register: str, base: str, offset: int, size: int) -> None:
        opcode = {1: 0x39000000, 8: 0xF9000000}[size]
        self._put(opcode | offset // size << 10 | self._numbers[base] << 5 | self._numbers[register])

    def jump(self, label: str) -> None:
        self._later(label, 4, lambda distance: struct.pack("<I", 0x14000000 | distance >> 2 & 0x3FFFFFF))

    def _compare(self, register: str, other: Value) -> None:
        self._set(self._SCRATCH, other)
        self._put(0xEB00001F | self._SCRATCH << 16 | self._numbers[register] << 5)  # cmp

    def _branch(self, condition: str, label: str) -> None:
        code = self._conditions[condition]
        self._later(
            label, 4, lambda distance: struct.pack("<I", 0x54000000 | (distance >> 2 & 0x7FFFF) << 5 | code)
        )

    def _argument(self, position: int, value: Value) -> None:
        self._set(position, value)

    def call_listed(self, base: str, result: str) -> None:
        for position, register in enumerate((8, 0, 1, 2, 3, 4, 5)):
            self._put(0xF9400000 | position << 10 | self._numbers[base] << 5 | register)
        self._put(0xD4000001)
        self._put(0xAA0003E0 | self._numbers[result])

    def _trap(self, number: int, result: str | None) -> None:
        self._set(8, number)
        self._put(0xD4000001)
        if result is not None:
            self._put(0xAA0003E0 | self._numbers[result])  # mov result, x0: orr result, xzr, x0


MACHINES: dict[str, type[Assembler]] = {"x86_64": X86, "aarch64": Arm}  # by what `uname -m` says


def assembler_for(machine: str, feature: str) -> Assembler:
    """An assembler of a machine's code.

    Args:
        machine: as `uname -m` says.
        feature: what is to be offered there.

    Raises:
        Unsupported: it is none of `MACHINES`.
    """
    if machine not in MACHINES:
        raise Unsupported(f"{feature} is offered on {' and '.join(MACHINES)}, not on {machine}")
    return MACHINES[machine]()


_BASE = 0x400000
_PT_LOAD, _PT_GNU_STACK = 1, 0x6474E551


def executable(assembler: Assembler, room: tuple[int, int] = (0, 0)) -> bytes:
    """A static executable of this code (elf(5)).

    Args:
        assembler: what has collected it.
        room: address and size of memory that it can write to, all zero at first.
    """
    code = assembler.finish()
    segments = 3 if room[1] else 2
    headers = 64 + segments * 56
    size = headers + len(code)
    identity = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = identity + struct.pack(
        "<HHIQQQIHHHHHH",
        *(2, assembler.elf_machine, 1, _BASE + headers, 64, 0),
        *(0, 64, 56, segments, 64, 0, 0),
    )
    header += struct.pack("<IIQQQQQQ", _PT_LOAD, 5, 0, _BASE, _BASE, size, size, 0x10000)
    if room[1]:
        header += struct.pack("<IIQQQQQQ", _PT_LOAD, 6, 0, room[0], room[0], 0, room[1], 0x10000)
    header += struct.pack("<IIQQQQQQ", _PT_GNU_STACK, 6, 0, 0, 0, 0, 0, 16)  # not executable
    return header + code


def sealed(name: str, program: bytes) -> int:
    """A descriptor of a program in memory, which nobody can write to any more (memfd_create(2))."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, program)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
