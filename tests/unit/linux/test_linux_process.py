"""Processes that were noted down by pid and start."""

from __future__ import annotations

import signal
import subprocess

from sampan.linux.process import kill_noted, start_time_ticks


def test_only_the_process_that_was_noted_is_killed() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        ticks = start_time_ticks(process.pid)
        assert ticks is not None
        kill_noted(process.pid, ticks + 1)  # another one had this pid before
        assert process.poll() is None
        kill_noted(process.pid, ticks)
        assert process.wait() == -signal.SIGKILL
    kill_noted(process.pid, ticks)  # is gone
