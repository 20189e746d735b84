"""What can go wrong with a start, in the words that Docker's clients know.

SampanError
└── LaunchError    400 or 500   the program could not be started; carries the exit code to report
"""

from __future__ import annotations

import errno

from sampan.errors import SampanError

_NOT_FOUND = (errno.ENOENT, errno.ENOTDIR)
_NOT_ALLOWED = (errno.EACCES, errno.EISDIR, errno.ENOEXEC, errno.EPERM)


class LaunchError(SampanError):
    """A container or exec did not start.

    Attributes:
        exit_code: 127 when the program was not found, 126 when it cannot be executed, else 125.
    """

    def __init__(self, message: str, exit_code: int = 125) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.status = 500 if exit_code == 125 else 400


def launch_error(kind: str, stage: str, text: str, number: int) -> LaunchError:
    """The error for a refused start.

    Args:
        kind: "container" or "exec".
        stage: where it failed; "exec" and "cwd" concern what the user asked to run, "runtime" is an
            external runtime's refusal.
        text: the runtime's own words.
        number: the errno, 0 for none.
    """
    exit_code = 125
    if stage in ("exec", "cwd", "runtime"):
        exit_code = 127 if number in _NOT_FOUND else 126 if number in _NOT_ALLOWED else 125
    if stage == "runtime" and kind == "exec":
        return LaunchError(f"OCI runtime exec failed: {text}", exit_code)
    if stage == "runtime":
        return LaunchError(f"{_CREATE_FAILED}{text}", exit_code)
    return LaunchError(message(kind, text), exit_code)


_CREATE_FAILED = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
)


def message(kind: str, text: str) -> str:
    """The full sentence around the runtime's own words."""
    if kind == "exec":
        return f"OCI runtime exec failed: exec failed: unable to start container process: {text}"
    return (
        f"{_CREATE_FAILED}sampan-runtime create failed: unable to start container process: "
        f"error during container init: {text}"
    )
