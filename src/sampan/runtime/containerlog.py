"""Which writer a container's log gets."""

from __future__ import annotations

from sampan.runtime.jsonlog import JsonLog
from sampan.runtime.locallog import LocalLog
from sampan.runtime.logfile import LogFile
from sampan.runtime.protocol import LogSpec


def open_log(spec: LogSpec) -> LogFile:
    """Open the log for writing, in the format that it is to have.

    Raises:
        OSError: its file cannot be made.
    """
    return LocalLog(spec) if spec.format == "local" else JsonLog(spec)
