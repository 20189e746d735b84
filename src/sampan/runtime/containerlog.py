"""Which writer a container's log gets."""

from __future__ import annotations

from sampan.runtime.asidelog import AsideLog
from sampan.runtime.jsonlog import JsonLog
from sampan.runtime.locallog import LocalLog
from sampan.runtime.logfile import LogFile
from sampan.runtime.protocol import LogSpec


def open_log(spec: LogSpec) -> LogFile | AsideLog:
    """Open the log for writing, in the format and the way that it is to have.

    Raises:
        OSError: its file cannot be made, or no process to write it.
    """
    log = LocalLog(spec) if spec.format == "local" else JsonLog(spec)
    return AsideLog(log, spec.buffer_bytes) if spec.buffer_bytes else log
