"""A list of system calls for the program of `steps_program`.

Its control flow is the list's: each step names the steps that follow a negative, a zero and a positive
result, and the place where the result is kept, which may be another step's argument.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from sampan.runtime.steps_program import (
    ADDRESS,
    COMPARE,
    FAILED,
    FIRST_BYTES,
    FIRST_STEP,
    POSITIVE,
    ROOM_BYTES,
    STORE,
    ZERO,
)

# Linux arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
_NUMBERS: dict[str, tuple[int, int]] = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "rt_sigprocmask": (14, 135), "ioctl": (16, 29),
    "pread64": (17, 67), "getpid": (39, 172), "clone": (56, 220), "sendmsg": (46, 211), "execve": (59, 221),
    "wait4": (61, 260), "fcntl": (72, 25), "getcwd": (79, 17), "chdir": (80, 49), "fchown": (93, 55),
    "umask": (95, 166), "getppid": (110, 173), "setsid": (112, 157), "setgroups": (116, 159),
    "setresuid": (117, 147), "setresgid": (119, 149), "capset": (126, 91), "fstatfs": (138, 44),
    "prctl": (157, 167), "exit_group": (231, 94), "keyctl": (250, 219), "openat": (257, 56),
    "unshare": (272, 97), "ppoll": (271, 73), "dup3": (292, 24), "prlimit64": (302, 261), "setns": (308, 268),
    "seccomp": (317, 277), "clone3": (435, 435), "close_range": (436, 436), "openat2": (437, 437),
    "faccessat2": (439, 439),
}  # fmt: skip
_COLUMN = {"x86_64": 0, "aarch64": 1}
_STEP = struct.Struct("<11q")
_UNUSED = [(0,) * (6 - used) for used in range(7)]
_PLACE = struct.Struct("<Q")
_WORD = 0xFFFFFFFFFFFFFFFF

Meaning = Callable[[int], Exception]
Label = str | int  # a step's name or address
NEXT = "next"  # goes on with the step that follows, as zero and positive results do


@cache
def _numbers(machine: str) -> dict[str, int]:
    column = _COLUMN[machine]
    return {"compare": COMPARE, **{name: numbers[column] for name, numbers in _NUMBERS.items()}}


class Steps:
    """One part of such a list.

    Attributes:
        meanings: what failures of steps mean, by the steps' addresses.

    Args:
        machine: as `uname -m` says.
        channel: the descriptor on which the program tells what happens.
        first: whether it is what the program starts with; what follows is read by a step of that.
    """

    def __init__(self, machine: str, channel: int, first: bool = True) -> None:
        self._channel = channel
        self._numbers = _numbers(machine)
        self._base = ADDRESS if first else ADDRESS + FIRST_BYTES
        self._limit = FIRST_BYTES if first else ROOM_BYTES - FIRST_BYTES
        self._blob = bytearray(FIRST_STEP - ADDRESS if first else 0)
        self._first = first
        self._next: list[int] = []  # where the next step's address is to be put
        self._names: list[str] = []  # labels of the next step
        self._labels: dict[str, int] = {}
        self._waiting: dict[str, list[int]] = {}
        self.meanings: dict[int, Meaning] = {}
        self.call("getpid")  # so that a part begins with a step

    def copy(self) -> Steps:
        """The same steps, to be gone on with apart from these."""
        twin = Steps.__new__(Steps)
        twin._channel, twin._numbers, twin._first = self._channel, self._numbers, self._first
        twin._base, twin._limit, twin._blob = self._base, self._limit, self._blob.copy()
        twin._next, twin._names, twin._labels = self._next.copy(), self._names.copy(), self._labels.copy()
        twin._waiting = {name: places.copy() for name, places in self._waiting.items()}
        twin.meanings = self.meanings.copy()
        return twin

    def data(self, content: bytes) -> int:
        """Put bytes into the list; their address, a multiple of eight as all are."""
        address = self._base + len(self._blob)
        self._blob += content + bytes(-len(content) % 8)
        return address

    def room(self, size: int = 8) -> int:
        """The address of so many zero bytes."""
        return self.data(bytes(size))

    def numbers(self, *values: int) -> int:
        """The address of numbers of eight bytes each."""
        return self.data(struct.pack(f"<{len(values)}Q", *(value & _WORD for value in values)))

    def text(self, content: str | bytes) -> int:
        """The address of a text and the zero byte behind it."""
        return self.data(os.fsencode(content) + b"\0")

    def texts(self, contents: Iterable[str]) -> int:
        """The address of a vector of texts, as execve(2) takes it."""
        return self.numbers(*[self.text(content) for content in contents], 0)

    def call(
        self,
        name: str,
        *arguments: int,
        store: int = 0,
        failed: Label = "",
        zero: Label = NEXT,
        positive: Label = NEXT,
        means: Meaning | None = None,
    ) -> int:
        """Put a step; its address.

        Args:
            name: the system call's.
            arguments: numbers and addresses.
            store: where the result goes, eight bytes.
            failed, zero, positive: the steps that follow. A failure that names none is told, and the end.
            means: what its failure is to the user, by errno.
        """
        place = len(self._blob)
        address = self._base + place
        for waiting in self._next:
            _PLACE.pack_into(self._blob, waiting, address)
        for label in self._names:
            self._labels[label] = address
            for waiting in self._waiting.pop(label, ()):
                _PLACE.pack_into(self._blob, waiting, address)
        number = self._numbers[name]
        self._blob += _STEP.pack(number, *arguments, *_UNUSED[len(arguments)], store, 0, 0, 0)
        self._next, self._names = [], []
        for target, offset in ((failed, FAILED), (zero, ZERO), (positive, POSITIVE)):
            if target is NEXT:
                self._next.append(place + offset)
            elif target:
                self._link(place + offset, target)
        if means is not None:
            self.meanings[address] = means
        return address

    def _link(self, place: int, target: Label) -> None:
        known = target if isinstance(target, int) else self._labels.get(target)
        if known is not None:
            _PLACE.pack_into(self._blob, place, known)
        else:
            self._waiting.setdefault(str(target), []).append(place)

    def put(self, address: int, number: int) -> None:
        """Change eight bytes of what is in the list already."""
        _PLACE.pack_into(self._blob, address - self._base, number & _WORD)

    def put_text(self, address: int, content: str) -> None:
        """Change a text that is in the list already to one of the same length."""
        data = os.fsencode(content)
        place = address - self._base
        assert self._blob[place + len(data)] == 0 and 0 not in self._blob[place : place + len(data)]
        self._blob[place : place + len(data)] = data

    def scratch(self, size: int) -> int:
        """The address of so many bytes that are zero at first and make the list no longer."""
        self._limit -= size + -size % 8
        return self._base + self._limit

    def keep(self, step: int, other: int, argument: int) -> None:
        """Have a step's result become an argument, counted from 0, of another step."""
        self.put(step + STORE, other + 8 + 8 * argument)

    def label(self, name: str) -> None:
        """Name the step that is put next."""
        self._names.append(name)

    def forgive(self, name: str, *arguments: int, errors: Sequence[int], means: Meaning | None = None) -> int:
        """A step that may fail with some errnos; its address. Others are told as its own."""
        own, done = f"forgive {len(self._blob)}", f"forgiven {len(self._blob)}"
        message = self.numbers(0, 0)
        address = self.call(
            name, *arguments, store=message + 8, failed=own, zero=done, positive=done, means=means
        )
        self.put(message, address)
        self.label(own)
        for number in errors:
            self.call("compare", message + 8, -number, failed=NEXT, zero=done)
        self.tell(message, 16)
        self.label(done)
        return address

    def tell(self, message: int, size: int) -> None:
        """Send bytes to the channel and end."""
        self.call("write", self._channel, message, size, failed=NEXT)
        self.call("exit_group", 1)

    @property
    def length(self) -> int:
        """How many bytes it has so far."""
        return len(self._blob)

    def finish(self) -> bytes:
        """The bytes: of the first part at the start of the file, of the other from `FIRST_BYTES` on.

        Raises:
            OSError: it is too long (E2BIG).
        """
        assert not self._waiting, self._waiting
        if len(self._blob) > self._limit:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        if self._first:
            _PLACE.pack_into(self._blob, 0, self._channel)
        return bytes(self._blob)


SECOND_STEP = ADDRESS + FIRST_BYTES  # where the second part begins
