"""What a call can end in: the classes of `sampan.errors` by the answer's status, and three of our own.

SampanError
├── NotFound, Conflict, InvalidParameter, …   the daemon's refusal, in its words
├── ConnectionFailed                          nobody answers, or the connection broke
├── DeadlineExceeded (also a TimeoutError)    the call's `timeout` has passed; what it started has been ended
└── CommandFailed                             the command of `run` or `exec` ended with another code than 0
"""

from __future__ import annotations

from sampan.errors import (
    Conflict,
    Forbidden,
    InvalidParameter,
    NotFound,
    NotModified,
    SampanError,
    Unauthorized,
    Unavailable,
    Unsupported,
)

_BY_STATUS: dict[int, type[SampanError]] = {
    kind.status: kind
    for kind in (
        NotModified, InvalidParameter, Unauthorized, Forbidden, NotFound, Conflict, Unsupported, Unavailable
    )
}  # fmt: skip


class ConnectionFailed(SampanError):
    """The daemon could not be reached, or has gone in mid-call."""


class DeadlineExceeded(SampanError, TimeoutError):
    """The call took longer than its `timeout` allows."""


class CommandFailed(SampanError):
    """A command ended with another code than 0.

    Attributes:
        exit_code: 128 and the signal's number for one that a signal ended.
        stdout, stderr: what it had written.
    """

    def __init__(self, command: str, exit_code: int, stdout: bytes, stderr: bytes) -> None:
        last = stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        super().__init__(f"{command} ended with exit code {exit_code}" + (f": {last}" if last else ""))
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr


def from_status(status: int, message: str) -> SampanError:
    """The error that an answer of this status means."""
    return _BY_STATUS.get(status, SampanError)(message)
