"""Who descends from a process, seen and killed in real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.linux.family import family, kill_family

# One child, one grandchild, an orphan that has stayed in the session, and one that has left it.
SCRIPT = """
sleep 60 &
sh -c 'sleep 61 & wait' &
(sleep 62 &)
(setsid sh -c 'echo $$; exec sleep 63' &)
while :; do sleep 1; done
"""


def names(pids: set[int]) -> list[str]:
    found = []
    for pid in pids:
        try:
            found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip())
        except OSError:
            continue
    return sorted(name for name in found if name.startswith("sleep 6"))


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        ["sh", "-c", SCRIPT], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        gone = int(process.stdout.readline())
        yield process
        kill_family(process.pid)
        process.kill()
        os.kill(gone, signal.SIGKILL)


def test_descendants_and_its_session(leader: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 20
    while names(family(leader.pid)) != ["sleep 60", "sleep 61", "sleep 62"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert names(family(leader.pid)) == ["sleep 60", "sleep 61", "sleep 62"]
    assert leader.pid not in family(leader.pid)


def test_they_are_killed_and_it_is_not(leader: subprocess.Popen[str]) -> None:
    kill_family(leader.pid)
    deadline = time.monotonic() + 20  # a signal was sent to each: they die by and by
    while names(family(leader.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert names(family(leader.pid)) == []
    assert leader.poll() is None


def test_one_that_leads_no_session_has_its_descendants_alone() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 & echo up; wait"], stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "up\n"
        with subprocess.Popen(["sleep", "61"]) as other:
            assert other.pid not in family(one.pid)
            kill_family(one.pid)
            assert other.poll() is None
            other.kill()
        assert one.wait(20) == 0
