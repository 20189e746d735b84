"""What a run leaves in its directory: `state.json` once its process is made, `exit.json` when it has ended.

Both are written to a temporary file and renamed, so that a reader sees all or nothing.
"""

from __future__ import annotations

import json
import os
from typing import Any

from sampan.runtime import wire
from sampan.runtime.protocol import ExitRecord

SOCKET_NAME = "monitor.sock"


def _write(directory: int, name: str, value: dict[str, Any]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    fd = os.open(f"{name}.tmp", flags, 0o600, dir_fd=directory)
    try:
        os.write(fd, json.dumps(value).encode())
    finally:
        os.close(fd)
    os.rename(f"{name}.tmp", name, src_dir_fd=directory, dst_dir_fd=directory)


def _read(rundir: str, name: str) -> dict[str, Any] | None:
    try:
        with open(f"{rundir}/{name}", "rb") as file:
            value: dict[str, Any] = json.loads(file.read())
            return value
    except FileNotFoundError:
        return None


def write_state(directory: int, state: dict[str, Any]) -> None:
    """Write `state.json` into the run's directory, given by descriptor."""
    _write(directory, "state.json", state)


def remove_state(directory: int) -> None:
    """Take `state.json` back: the process was refused."""
    try:
        os.unlink("state.json", dir_fd=directory)
    except FileNotFoundError:
        pass


def read_state(rundir: str) -> dict[str, Any] | None:
    """The run's `state.json`; None before its process was made."""
    return _read(rundir, "state.json")


def write_exit(directory: int, record: ExitRecord) -> None:
    """Write `exit.json` into the run's directory, given by descriptor."""
    _write(directory, "exit.json", wire.encode_exit(record))


def read_exit(rundir: str) -> ExitRecord | None:
    """The run's `exit.json`; None while it lives, or when its monitor was killed."""
    value = _read(rundir, "exit.json")
    return None if value is None else wire.decode_exit(value)
