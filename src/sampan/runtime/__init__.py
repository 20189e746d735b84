"""OCI bundle in, process out.

The names below are the package's public face. They are imported when first used: the launcher, which has to
stay small, imports the modules that it needs one by one and never asyncio.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.runtime.cleanup import remove_run
    from sampan.runtime.client import Beginning, Launcher, Process, adopt
    from sampan.runtime.errors import LaunchError
    from sampan.runtime.protocol import (
        PROGRAM_FD,
        REPORT_FD,
        Attachment,
        ExecRequest,
        ExitRecord,
        LaunchRequest,
        LogPlace,
        LogSpec,
    )
    from sampan.runtime.steps_program import sealed_steps_program

__all__ = [
    "PROGRAM_FD",
    "REPORT_FD",
    "Attachment",
    "Beginning",
    "ExecRequest",
    "ExitRecord",
    "LaunchError",
    "LaunchRequest",
    "Launcher",
    "LogPlace",
    "LogSpec",
    "Process",
    "adopt",
    "remove_run",
    "sealed_steps_program",
]

_HOMES = {
    "Beginning": "client",
    "Launcher": "client",
    "Process": "client",
    "adopt": "client",
    "LaunchError": "errors",
    "Attachment": "protocol",
    "ExecRequest": "protocol",
    "ExitRecord": "protocol",
    "LaunchRequest": "protocol",
    "LogPlace": "protocol",
    "LogSpec": "protocol",
    "PROGRAM_FD": "protocol",
    "REPORT_FD": "protocol",
    "remove_run": "cleanup",
    "sealed_steps_program": "steps_program",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
