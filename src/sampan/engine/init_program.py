"""The program that `--init` runs as process 1, and an exec that has a time limit: it starts the command,
hands signals on, and reaps.

`docker-init -- COMMAND ARGUMENT…`, written instruction by instruction for want of a compiler. The
command runs in a process group of its own, in the foreground of the terminal if there is one; the program
ends as the command ends, with its exit code or 128 + n for signal n, and with 126 or 127 without a start.

With `-k` before the `--` it adopts orphans, tells the command's exit code on a descriptor (`REPORT_FD`), one
byte, and stays until all that it has adopted has ended too: nothing is left as a zombie to a process 1 that
never reaps. Who kills an exec kills all of it but this program.
"""

from __future__ import annotations

import os
import tempfile

from sampan.linux.assembler import (
    EQUAL,
    GREATER,
    LESS,
    NOT_EQUAL,
    Assembler,
    assembler_for,
    executable,
    sealed,
)
from sampan.runtime import PROGRAM_FD, REPORT_FD

FILE_NAME = "docker-init"

_STACK_BYTES = 512 * 1024  # a path of PATH and a name are at most 128 KiB each
# Offsets in the reserved stack.
_ALL_SIGNALS, _FIRST_MASK, _STATUS, _GROUP, _STAYS, _PATH = 0, 8, 16, 24, 32, 40
_SIG_SETMASK, _SIGCHLD, _WNOHANG, _TIOCSPGRP = 2, 17, 1, 0x5410
_PR_SET_CHILD_SUBREAPER = 36
_ENOENT, _ENOTDIR = 2, 20


def write_init(directory: str) -> str:
    """See that the program for this machine is in `directory`; returns its path.

    Raises:
        Unsupported: it is not written for this machine.
    """
    path = os.path.join(directory, FILE_NAME)
    content = init_program(os.uname().machine)
    try:
        with open(path, "rb") as file:
            if file.read(len(content) + 1) == content:
                return path
    except FileNotFoundError:
        pass
    fd, temporary = tempfile.mkstemp(prefix=FILE_NAME, dir=directory)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), 0o755)
    os.rename(temporary, path)
    return path


def sealed_init() -> int:
    """A descriptor of the program in memory, which nobody can write to any more (memfd_create(2)).

    Raises:
        Unsupported: it is not written for this machine.
    """
    return sealed(FILE_NAME, init_program(os.uname().machine))


def init_program(machine: str) -> bytes:
    """The static executable (elf(5)).

    Args:
        machine: `x86_64` or `aarch64`.

    Raises:
        Unsupported: another one.
    """
    assembler = assembler_for(machine, "--init")
    _program(assembler)
    return executable(assembler)


def _program(asm: Assembler) -> None:
    """a: argv from the command on; e: the environment; m: reserved stack; s: child, later the result."""
    asm.enter(_STACK_BYTES)
    asm.add("a", 16)  # past argc and argv[0]
    asm.move("e", "a")
    asm.label("find environment")
    asm.load("t", "e", 0, 8)
    asm.add("e", 8)
    asm.jump_if("t", NOT_EQUAL, 0, "find environment")
    asm.move("u", 0)
    asm.store("u", "m", _STAYS, 8)
    asm.load("t", "a", 0, 8)
    asm.jump_if("t", EQUAL, 0, "usage")
    for offset, character in enumerate(b"-k\0"):
        asm.load("u", "t", offset, 1)
        asm.jump_if("u", NOT_EQUAL, character, "separator")
    asm.move("u", 1)
    asm.store("u", "m", _STAYS, 8)
    asm.add("a", 8)
    asm.load("t", "a", 0, 8)
    asm.jump_if("t", EQUAL, 0, "usage")
    asm.label("separator")
    for offset, character in enumerate(b"--\0"):
        asm.load("u", "t", offset, 1)
        asm.jump_if("u", NOT_EQUAL, character, "start")
    asm.add("a", 8)
    asm.load("t", "a", 0, 8)
    asm.jump_if("t", EQUAL, 0, "usage")
    asm.label("start")
    asm.load("u", "m", _STAYS, 8)
    asm.jump_if("u", EQUAL, 0, "fork")
    asm.call("prctl", _PR_SET_CHILD_SUBREAPER, 1)
    asm.label("fork")
    asm.move("t", -1)
    asm.store("t", "m", _ALL_SIGNALS, 8)
    asm.move("u", "m")
    asm.add("u", _FIRST_MASK)
    asm.call("rt_sigprocmask", _SIG_SETMASK, "m", "u", 8)
    asm.call("clone", _SIGCHLD, 0, 0, 0, result="s")
    asm.jump_if("s", LESS, 0, "usage")
    asm.jump_if("s", EQUAL, 0, "child")
    _parent(asm)
    _child(asm)
    asm.label("usage")
    asm.call("exit_group", 1)
    asm.data("default path", b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\0")
    asm.data("complaint", b"docker-init: cannot run \0")
    asm.data("new line", b"\n\0")


def _parent(asm: Assembler) -> None:
    asm.label("wait")
    asm.call("rt_sigtimedwait", "m", 0, 0, 8, result="t")
    asm.jump_if("t", LESS, 0, "wait")
    asm.jump_if("t", EQUAL, _SIGCHLD, "reap")
    asm.call("kill", "s", "t")
    asm.jump("wait")
    asm.label("reap")
    asm.move("u", "m")
    asm.add("u", _STATUS)
    asm.call("wait4", -1, "u", _WNOHANG, 0, result="t")
    asm.jump_if("t", LESS, 1, "wait")
    asm.jump_if("t", NOT_EQUAL, "s", "reap")
    asm.load("s", "m", _STATUS, 4)
    asm.move("t", "s")
    asm.mask("t", 0x7F)
    asm.jump_if("t", GREATER, 0, "signalled")
    asm.shift_right("s", 8)
    asm.mask("s", 0xFF)
    asm.jump("ended")
    asm.label("signalled")
    asm.move("s", "t")
    asm.add("s", 128)
    asm.label("ended")
    asm.load("v", "m", _STAYS, 8)
    asm.jump_if("v", EQUAL, 0, "end")
    asm.move("u", "m")
    asm.add("u", _GROUP)
    asm.store("s", "u", 0, 8)
    asm.call("write", REPORT_FD, "u", 1)
    for descriptor in range(PROGRAM_FD + 1):  # nobody is to wait for the end of a stream that it holds
        asm.call("close", descriptor)
    asm.label("reap the rest")
    asm.move("u", "m")
    asm.add("u", _STATUS)
    asm.call("wait4", -1, "u", 0, 0, result="v")
    asm.jump_if("v", GREATER, 0, "reap the rest")
    asm.label("end")
    asm.call("exit_group", "s")


def _child(asm: Assembler) -> None:
    """t: the command's name; p: what is left of PATH; s: the error to tell; u, v, w: at hand."""
    asm.label("child")
    asm.load("u", "m", _STAYS, 8)
    asm.jump_if("u", EQUAL, 0, "alone")
    asm.call("close", REPORT_FD)
    asm.call("close", PROGRAM_FD)
    asm.label("alone")
    asm.call("setpgid", 0, 0)
    asm.call("getpid", result="t")
    asm.store("t", "m", _GROUP, 8)
    asm.move("u", "m")
    asm.add("u", _GROUP)
    asm.call("ioctl", 0, _TIOCSPGRP, "u")  # fails where stdin is no terminal; SIGTTOU is still blocked
    asm.move("u", "m")
    asm.add("u", _FIRST_MASK)
    asm.call("rt_sigprocmask", _SIG_SETMASK, "u", 0, 8)
    asm.load("t", "a", 0, 8)
    asm.move("u", "t")
    asm.label("look for a slash")
    asm.load("v", "u", 0, 1)
    asm.add("u", 1)
    asm.jump_if("v", EQUAL, 0, "find path")
    asm.jump_if("v", NOT_EQUAL, ord("/"), "look for a slash")
    asm.call("execve", "t", "a", "e", result="s")
    asm.jump("failed")
    asm.label("find path")
    asm.address("p", "default path")
    asm.move("u", "e")
    asm.label("next variable")
    asm.load("v", "u", 0, 8)
    asm.add("u", 8)
    asm.jump_if("v", EQUAL, 0, "search")
    for offset, character in enumerate(b"PATH="):
        asm.load("w", "v", offset, 1)
        asm.jump_if("w", NOT_EQUAL, character, "next variable")
    asm.move("p", "v")
    asm.label("search")
    asm.add("p", len("PATH="))
    asm.move("s", -_ENOENT)
    _search(asm)
    _failure(asm)


def _search(asm: Assembler) -> None:
    asm.label("next directory")
    asm.move("u", "m")
    asm.add("u", _PATH)
    asm.label("copy directory")
    asm.load("v", "p", 0, 1)
    asm.jump_if("v", EQUAL, 0, "directory copied")
    asm.jump_if("v", EQUAL, ord(":"), "directory copied")
    asm.store("v", "u", 0, 1)
    asm.add("u", 1)
    asm.add("p", 1)
    asm.jump("copy directory")
    asm.label("directory copied")
    asm.move("w", "m")
    asm.add("w", _PATH)
    asm.jump_if("u", EQUAL, "w", "add name")  # an empty entry is the working directory
    asm.move("v", ord("/"))
    asm.store("v", "u", 0, 1)
    asm.add("u", 1)
    asm.label("add name")
    asm.move("w", "t")
    asm.label("copy name")
    asm.load("v", "w", 0, 1)
    asm.store("v", "u", 0, 1)
    asm.add("u", 1)
    asm.add("w", 1)
    asm.jump_if("v", NOT_EQUAL, 0, "copy name")
    asm.move("u", "m")
    asm.add("u", _PATH)
    asm.call("execve", "u", "a", "e", result="v")
    asm.jump_if("v", EQUAL, -_ENOENT, "not there")
    asm.jump_if("v", EQUAL, -_ENOTDIR, "not there")
    asm.move("s", "v")
    asm.label("not there")
    asm.load("v", "p", 0, 1)
    asm.add("p", 1)
    asm.jump_if("v", NOT_EQUAL, 0, "next directory")


def _failure(asm: Assembler) -> None:
    asm.label("failed")
    asm.address("p", "complaint")
    for step, following in enumerate(("name", "new line", "")):
        asm.move("u", "p")
        asm.move("v", 0)
        asm.label(f"measure {step}")
        asm.load("w", "u", 0, 1)
        asm.jump_if("w", EQUAL, 0, f"write {step}")
        asm.add("u", 1)
        asm.add("v", 1)
        asm.jump(f"measure {step}")
        asm.label(f"write {step}")
        asm.call("write", 2, "p", "v")
        if following == "name":
            asm.move("p", "t")
        elif following:
            asm.address("p", following)
    asm.jump_if("s", EQUAL, -_ENOENT, "missing")
    asm.jump_if("s", EQUAL, -_ENOTDIR, "missing")
    asm.call("exit_group", 126)
    asm.label("missing")
    asm.call("exit_group", 127)
