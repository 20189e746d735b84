"""Gives the tests a network and a table of mounts of their own: network_namespaces(7), mount_namespaces(7).

Bridges, firewall tables and forwarding switches of the tests then never meet the machine's, and two test runs
may go on side by side. Only the network is closed off so; what has to be fetched is fetched before.

As a program it runs another in such namespaces: `isolation.py PROGRAM ARGUMENT…`.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000


def isolate() -> None:
    """Move this process, and what it starts, into new namespaces, with loopback and its /sys alone.

    Raises:
        OSError, subprocess.CalledProcessError: this cannot be done here.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")
    _run("mount", "--make-rprivate", "/")
    _run("ip", "link", "set", "lo", "up")
    # A sysfs shows the network namespace of whoever mounted it. What is mounted below /sys moves along.
    below = _mounts_below_sys()
    with tempfile.TemporaryDirectory() as fresh:
        _run("mount", "-t", "sysfs", "sysfs", fresh)
        for point in below:
            _run("mount", "--rbind", point, fresh + point.removeprefix("/sys"))
        _run("mount", "--move", fresh, "/sys")
    _run("mount", "--make-rshared", "/")  # as a distribution has it; in a peer group of our own


def _mounts_below_sys() -> list[str]:
    points = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    inside = sorted(point for point in points if point.startswith("/sys/"))
    return [one for one in inside if not any(one.startswith(f"{other}/") for other in inside)]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    isolate()
    os.execvp(sys.argv[1], sys.argv[1:])
