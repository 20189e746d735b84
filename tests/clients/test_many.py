"""Many clients that follow while containers start: `bench/many` in small, which checks what they saw."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support import needs
from support.engine import Daemon

BENCH = Path(__file__).parents[2] / "bench" / "many"


@needs.program("busybox", "busybox-static")
def test_every_client_sees_what_it_follows(daemon: Daemon) -> None:
    done = subprocess.run(
        [
            *(sys.executable, str(BENCH), "--engine", f"sampan={daemon.host}"),
            *("--running", "6", "--starting", "6", "--clients", "30"),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| starting 6 at the same time | " in done.stdout
    assert daemon.api.containers() == []
