"""Telling whoever started us that we are ready: sd_notify(3), and a descriptor."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send `state` ("READY=1", "STOPPING=1") to the service manager, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), address)
        except OSError:
            pass  # a manager that went away needs no notice


def ready(fd: int | None) -> None:
    """Say so on `fd` (a line "ready", then end of file) and to the service manager."""
    notify(f"READY=1\nMAINPID={os.getpid()}")
    if fd is not None:
        try:
            os.write(fd, b"ready\n")
        except OSError:
            pass  # who asked does not wait any more
        os.close(fd)
