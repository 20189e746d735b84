"""What a killed run of the tests has left behind: directories in /tmp, cgroups, and what lives in these.

Their names tell whose they were: `spt-PID-…`, `sampan-test-PID-…` and the cgroup `sampan-test-PID`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_OWNED = re.compile(r"(?:spt|sampan-test)-(?:[a-z]+-)?(?P<pid>\d+)(?:-|$)")
_PATIENCE_S = 5.0


def sweep(temporary: Path = Path("/tmp"), cgroups: Path = Path("/sys/fs/cgroup")) -> list[str]:
    """Remove what belongs to processes that are dead; what was removed."""
    trees = [cgroups, *_directories(cgroups)]  # the unified hierarchy's root, or one of each controller
    places = [place for tree in trees for place in (tree, tree / "sampan-test")]
    found = [path for place in places for path in _orphaned(place)]
    removed = [str(path) for path in found if _remove_cgroup(path)]
    mounted = _mount_points()
    for path in _orphaned(temporary):
        if not any(point == str(path) or point.startswith(f"{path}/") for point in mounted):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(str(path))
    return removed


def _directories(path: Path) -> list[Path]:
    entries = path.iterdir() if path.is_dir() else ()
    return [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]


def _orphaned(path: Path) -> Iterator[Path]:
    for entry in _directories(path):
        owner = _OWNED.match(entry.name)
        if owner is not None and not Path(f"/proc/{owner['pid']}").exists():
            yield entry


def _mount_points() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def _remove_cgroup(path: Path) -> bool:
    """Kill all in a cgroup and below, and remove it."""
    deadline = time.monotonic() + _PATIENCE_S
    while path.is_dir() and time.monotonic() < deadline:
        for directory, _, _ in os.walk(path, topdown=False):
            try:
                for pid in Path(directory, "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
                os.rmdir(directory)
            except OSError:
                continue  # somebody is still ending in there
        time.sleep(0.01)
    return not path.is_dir()


if __name__ == "__main__":
    print(*sweep(), sep="\n")
    sys.exit(0)
