"""Starts programs of ours as `subprocess.Popen` does, by forks of a nursery: see `support.nursery`."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from support.nursery import MOST_BYTES

TESTS = Path(__file__).resolve().parent.parent
SOURCE = TESTS.parent / "src"
RECORDING = TESTS / "support" / "recording"
AT_START = ("LANG", "LC_", "PYTHON", "TZ", "LD_")  # variables that only a new process looks at
LOCALE = "C.UTF-8"


class Nursery:
    """The program, from the first process on that is wanted of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None

    def make(self, order: dict[str, Any], fds: list[int]) -> int:
        """Have a process made, a child of ours.

        Args:
            order: what `nursery.become` reads.
            fds: our descriptors, in the order of `order["fds"]`.

        Returns:
            Its pid.
        """
        with self._lock:
            if self._orders is None or self._owner != os.getpid():  # a fork of ours wants children of its own
                self._begin()
            assert self._orders is not None
            socket.send_fds(self._orders, [json.dumps(order).encode()], fds)
            answer = self._orders.recv(64)
        if not answer:
            raise RuntimeError("the nursery of the tests' programs has died")
        return int(answer)

    def _begin(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = [sys.executable, str(TESTS / "support" / "nursery.py"), str(theirs.fileno()), str(TESTS)]
        self._owner = os.getpid()
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SAMPAN_")}
        path = f"{RECORDING}{os.pathsep}{SOURCE}"
        with theirs:
            self._process = subprocess.Popen(
                program,
                stdin=subprocess.DEVNULL,
                env={**kept, "PYTHONPATH": path, "LC_ALL": LOCALE, "SAMPAN_TEST": TOKEN},
                pass_fds=(theirs.fileno(),),
            )

    def end(self) -> None:
        """End it; what it made lives on."""
        if self._process is not None and self._orders is not None:
            self._orders.close()
            self._process.wait(10)
            self._process = self._orders = None


TOKEN = f"sampan-test-{os.getpid()}"
NURSERY = Nursery()


class Spawned(subprocess.Popen[bytes]):
    """A `python -m sampan.…` that is a fork of the nursery; in all else as `subprocess.Popen` has it.

    Its line in `ps` is the nursery's. A `preexec_fn` has to be one that pickle can name.
    """

    # The method that makes the process is the interpreter's own matter, and has been the same since 3.11.
    def _execute_child(
        self,
        args: list[str],
        executable: None,
        preexec_fn: Any,
        close_fds: bool,
        pass_fds: tuple[int, ...],
        cwd: str | None,
        env: dict[str, str] | None,
        startupinfo: None,
        creationflags: int,
        shell: bool,
        *rest: Any,
    ) -> None:
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *_, start_new_session, _group = rest
        ours = [own if fd == -1 else fd for own, fd in enumerate((p2cread, c2pwrite, errwrite))]
        order = {
            "command": args[2:],
            "fds": [0, 1, 2, *pass_fds],
            "session": start_new_session,
            "directory": cwd or os.getcwd(),
            "environment": dict(os.environ if env is None else env),
            "before": pickle.dumps(preexec_fn).hex() if preexec_fn else "",
        }
        try:
            self.pid = NURSERY.make(order, [*ours, *pass_fds])
            self._child_created = True
        finally:
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]


def spawn(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """`subprocess.Popen`, cheaper where `command` is `[sys.executable, "-m", "sampan.…", …]`."""
    environment = options.get("env") or os.environ
    ours = command[:2] == [sys.executable, "-m"] and command[2].startswith("sampan.")
    if ours and all(map(_is_usual, environment.items())) and sum(map(len, command)) < MOST_BYTES // 2:
        return Spawned(command, **options)
    return subprocess.Popen(command, **options)


def _is_usual(variable: tuple[str, str]) -> bool:
    """Whether the nursery has this one of an environment's variables too, or need not have it."""
    key, value = variable
    if key == "PYTHONPATH":
        return value.split(os.pathsep)[-1] == str(SOURCE)
    if key == "LC_ALL":
        return value == LOCALE
    return not key.startswith(AT_START) or os.environ.get(key) == value


def finished(
    command: list[str], stdin: bytes | None = None, timeout: float | None = None, **options: Any
) -> tuple[int, bytes, bytes]:
    """Run `command` to its end, as `subprocess.run` does.

    Returns:
        Exit status, standard output and standard error.

    Raises:
        subprocess.TimeoutExpired: it was killed after so many seconds.
    """
    source = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    with spawn(command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        try:
            out, err = process.communicate(stdin, timeout)
        except BaseException:
            process.kill()
            raise
    return process.returncode, out, err
