"""Helper processes beside a daemon: fresh interpreters that know of its own code and of nothing else.

Isolated (-I), without site (-S), in a session of their own, at the root directory, with one socket of ours.
They outlive their maker or not, as they please.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import sampan
from sampan.dataclasses import dataclass

PLAIN_ENVIRONMENT = {"PATH": os.defpath}
_BOOTSTRAP = "import sys; {path}; from {module} import {function}; {function}({arguments})"


@dataclass(frozen=True, slots=True)
class Program:
    """What to run.

    Attributes:
        module, function: of our code; the function is called with numbers.
        name: as ps shows it, behind the interpreter's words.
        libraries: whether it needs more than the standard library and our own code.
    """

    module: str
    name: str
    function: str = "main"
    libraries: bool = False

    def text(self, arguments: Sequence[int]) -> str:
        """The program, for the interpreter's -c."""
        if self.libraries:
            path = f"sys.path[:] = {[place for place in sys.path if os.path.isabs(place)]!r}"
        else:
            path = f"sys.path.append({str(Path(sampan.__file__).resolve().parent.parent)!r})"
        shown = ", ".join(map(str, arguments))
        return _BOOTSTRAP.format(path=path, module=self.module, function=self.function, arguments=shown)


def start_helper(
    program: Program,
    arguments: Sequence[int],
    *,
    words: Sequence[str] = (),
    fds: Sequence[int] = (),
    interpreter: tuple[str, str | None] | None = None,
    environment: Mapping[str, str] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start one.

    Args:
        program: what to run.
        arguments: numbers for its function; the first is that of a descriptor, which is handed on.
        words: shown behind its name.
        fds: further descriptors to hand on.
        interpreter: another than ours: argv[0], and its file if that is elsewhere.
        environment: instead of ours.
        stderr: where its errors go; None for where ours do.

    Raises:
        OSError: it cannot be started.
    """
    argv0, executable = interpreter or (sys.executable, None)
    return subprocess.Popen(
        [argv0, "-I", "-S", "-X", "utf8", "-c", program.text(arguments), program.name, *words],
        executable=executable,
        pass_fds=(arguments[0], *fds),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        start_new_session=True,
        cwd="/",
    )
