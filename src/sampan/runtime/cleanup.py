"""Removing what a run leaves: its cgroup with whatever still lives in it, and the files in its directory."""

from __future__ import annotations

import os

from sampan.linux import cgroups

_FILES = ("monitor.sock", "state.json", "state.json.tmp", "exit.json", "exit.json.tmp", "exec.json")


def remove_run(rundir: str, cgroups_path: str | None) -> None:
    """Remove a run that has ended, or end it. May be repeated.

    Args:
        rundir: the run's directory; it is removed if nothing else is in it.
        cgroups_path: the container's cgroup, which is killed and removed; None or "" for an exec.

    Raises:
        OSError: the cgroup stays busy.
    """
    if cgroups_path:
        manager = cgroups.manager_for(cgroups_path)
        if manager.exists():
            manager.kill_all()
            manager.remove()
    for name in _FILES:
        try:
            os.unlink(f"{rundir}/{name}")
        except FileNotFoundError:
            pass
    try:
        os.rmdir(rundir)
    except OSError:
        pass  # it is gone, or holds the caller's files, whose business they are
