"""Which files an exec's command may mean, and what it means that none of them was executed."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from sampan.runtime.bundle import ProcessSpec
from sampan.runtime.init import Refused

_UNKNOWN = (errno.ENOSYS, errno.EPERM)  # faccessat2(2) came with kernel 5.8, and a filter may know none


def candidates(wanted: ProcessSpec) -> list[str]:
    """The paths to try in turn: `args[0]`, or where a shell would look for it in the container's own PATH.

    Raises:
        Refused: it is empty.
    """
    name = wanted.args[0]
    if not name:
        raise Refused("exec", 'exec: "": executable file not found in $PATH', errno.ENOENT)
    if "/" in name:
        return [name]
    path = ""
    for variable in wanted.env:
        if variable.startswith("PATH="):
            path = variable[5:]
    return [f"{directory or '.'}/{name}" for directory in path.split(":")] if path else []


def refusal(wanted: ProcessSpec, results: Sequence[tuple[int, int, int]]) -> Refused:
    """Why the program was not started, in the words that Docker's clients look for.

    Args:
        results: for each candidate what execve(2), opening it as a directory, and access(2) gave.
    """
    name, denied = wanted.args[0], False
    for path, (executed, opened, permitted) in zip(candidates(wanted), results, strict=False):
        if executed > 0:
            break
        if opened >= 0:
            number = errno.EISDIR
        elif permitted == 0:
            return Refused("exec", f"exec {path}: {os.strerror(-executed).lower()}", -executed)
        else:
            number = -executed if -permitted in _UNKNOWN else -permitted
        if "/" in name:
            if number == errno.ENOENT:
                return Refused("exec", f'exec: "{name}": stat {name}: no such file or directory', number)
            return Refused("exec", f'exec: "{name}": {os.strerror(number).lower()}', number)
        denied = denied or number == errno.EACCES
    if denied:
        return Refused("exec", f'exec: "{name}": permission denied', errno.EACCES)
    return Refused("exec", f'exec: "{name}": executable file not found in $PATH', errno.ENOENT)
