"""Errors as a line for a person."""

from __future__ import annotations

import errno

from sampan.errors import SampanError


def describe(error: BaseException) -> str:
    """One line for a person."""
    if isinstance(error, SampanError):
        return error.message
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            place = f" (writing {error.filename})" if error.filename else ""
            return f"no space left on the device{place}: free some, `sampan system prune` may help"
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return "too many open files: raise the daemon's limit (LimitNOFILE in its unit, ulimit -n)"
        if error.errno is not None:
            place = f"{error.filename}: " if error.filename else ""
            return f"{place}{error.strerror}"
    line = (str(error) or type(error).__name__).splitlines()[0]
    return f"internal error: {line}"
