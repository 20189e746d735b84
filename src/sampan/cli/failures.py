"""What can end a command early: each class knows how it is shown and which exit code it means.

CommandError            `sampan: text`, exit 1 (or the given code)
├── UsageError          wrong flags or arguments: text, usage line and a hint
├── ApiError            the daemon answered with an error: `Error response from daemon: text`
├── ConnectionFailed    no daemon, or no right to speak to it
└── Exit                end with this code and say nothing
"""

from __future__ import annotations

import sys


def program() -> str:
    """What we are called: `docker`, where that is the name of the command that was run, else `sampan`."""
    return "docker" if sys.argv[0].rpartition("/")[2] == "docker" else "sampan"


class CommandError(Exception):
    """A failure to show. `code` is the exit code of the process."""

    code = 1

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class UsageError(CommandError):
    """Wrong flags or arguments; `message` is complete, with usage line and hint where there are any."""


class ApiError(CommandError):
    """An answer of status 400 or above; `detail` is the daemon's own text."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"Error response from daemon: {detail}")
        self.status = status
        self.detail = detail


class ConnectionFailed(CommandError):
    """The daemon could not be reached."""


class Exit(CommandError):
    """End with `code`, silently."""

    def __init__(self, code: int) -> None:
        super().__init__("", code)
