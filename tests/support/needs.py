"""Reasons to skip, spoken by name: a program, a kernel feature, a right."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"


def program(name: str, package: str | None = None) -> pytest.MarkDecorator:
    """Skip where a program is not installed."""
    return pytest.mark.skipif(
        shutil.which(name) is None, reason=f"needs the program {name} (Debian: {package or name})"
    )


def controller(name: str) -> pytest.MarkDecorator:
    """Skip where the kernel offers no such cgroup controller (cgroups(7))."""
    return pytest.mark.skipif(name not in controllers(), reason=f"needs the cgroup controller {name}")


def controllers() -> set[str]:
    """The cgroup controllers of this machine, of either version."""
    try:
        lines = Path("/proc/cgroups").read_text().splitlines()[1:]
        found = {line.split()[0] for line in lines if line.split()[3] == "1"}
        return found | set(Path("/sys/fs/cgroup/cgroup.controllers").read_text().split())
    except FileNotFoundError:
        return found


def capability(number: int, name: str) -> pytest.MarkDecorator:
    """Skip where even root lacks a capability (capabilities(7))."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd")
    )
    has = bool(int(line.split()[1], 16) >> number & 1)
    return pytest.mark.skipif(not has, reason=f"needs {name}, which this machine does not give")
