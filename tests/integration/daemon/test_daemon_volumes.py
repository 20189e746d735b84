"""Volumes across a daemon's sudden end: what is mounted stays while it is used, nothing is left or lost."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from support.engine import Daemon
from support.machine import eventually

TMPFS = ("-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m")


def mounted(place: Path) -> int:
    """How many mounts are at or below a directory."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sum(point == str(place) or point.startswith(f"{place}/") for point in points)


def test_mounts_survive_as_long_as_their_users(own: Daemon) -> None:
    own.docker("volume", "create", *TMPFS, "memory")
    own.docker("volume", "create", *TMPFS, "unused")
    own.docker("run", "--rm", "-v", "memory:/v", own.busybox, "true")
    lives = ["-v", "memory:/v", "--mount", f"type=image,src={own.busybox},dst=/image"]
    own.docker("run", "-d", "--name", "lives", *lives, own.busybox, "sleep", "100")
    own.docker("exec", "lives", "sh", "-c", "echo kept >/v/file")
    own.docker("run", "-d", "--name", "ends", "-v", "unused:/u", own.busybox, "sleep", "1.5")
    own.kill9()
    time.sleep(2)  # the other one ends while nobody is there
    volumes = own.data_root / "volumes"
    assert mounted(volumes) == 2
    own.start()
    eventually(lambda: mounted(volumes) == 1)
    assert own.docker("exec", "lives", "cat", "/v/file").out == "kept\n"
    own.docker("exec", "lives", "test", "-x", "/image/bin/busybox")
    assert own.docker("run", "--rm", "-v", "memory:/v", own.busybox, "cat", "/v/file").out == "kept\n"
    assert "volume is in use" in own.docker("volume", "rm", "memory", code=1).err
    assert "is using its referenced image" in own.docker("rmi", own.busybox, code=1).err
    own.docker("kill", "lives")
    eventually(lambda: mounted(volumes) == 0)
    own.docker("rm", "lives", "ends")
    own.docker("volume", "rm", "memory", "unused")
    eventually(lambda: list(volumes.iterdir()) == [])


def test_killed_at_any_moment_of_a_start(own: Daemon) -> None:
    """Places of parts, mounted volumes and views of images are gone after the next start, the data is not."""
    own.docker("volume", "create", *TMPFS, "memory")
    own.docker("run", "--rm", "-v", "plain:/v", own.busybox, "sh", "-c", "mkdir /v/sub; echo x >/v/sub/file")
    mounts = [
        *("-v", "memory:/m", "--mount", "type=volume,src=plain,dst=/part,volume-subpath=sub"),
        *("--mount", f"type=image,src={own.busybox},dst=/image,image-subpath=etc", "-v", "/nameless"),
    ]
    for turn in range(4):
        own.docker("create", "--name", f"c{turn}", *mounts, own.busybox, "cat", "/part/file")
        with own.docker.start("start", "-a", f"c{turn}") as client:
            time.sleep(0.02 + 0.04 * turn)
            own.kill9()
            client.kill()
        own.start()
        eventually(lambda turn=turn: not own.api.inspect(f"c{turn}")["State"]["Running"])  # type: ignore[misc]
        eventually(lambda: mounted(own.data_root) == 0, what="mounts below the data root")
        assert mounted(own.exec_root) == 0
        assert not list((own.exec_root / "mounts").glob("*")) if (own.exec_root / "mounts").exists() else True
        assert own.docker("start", "-a", f"c{turn}").out == "x\n"
        own.docker("rm", "-v", f"c{turn}")
    left = {volume["Name"] for volume in own.api.get("/volumes")["Volumes"]}
    assert left == {"memory", "plain"}


def test_killed_in_the_middle_of_the_first_copy(own: Daemon) -> None:
    """The next start begins the copy anew: no container ever sees a half of it."""
    own.docker("run", "--name", "made", own.busybox, "sh", "-c", FILES)
    own.docker("commit", "made", "many:files")
    for turn in range(2):
        with own.docker.start("run", "--rm", "-v", f"data{turn}:/many", "many:files", "true") as client:
            place = own.data_root / "volumes" / f"data{turn}" / "_data"
            with contextlib.suppress(AssertionError):
                eventually(lambda place=place: any(place.glob("*/*")), timeout=5)  # type: ignore[misc]
            own.kill9()
            client.kill()
        own.start()
        command = "ls /many/* | grep -c file"
        done = own.docker("run", "--rm", "-v", f"data{turn}:/many", "many:files", "sh", "-c", command)
        assert done.out == "1200\n"


FILES = """
mkdir -p /many/a /many/b /many/c
for d in a b c; do for i in $(seq 400); do echo $i >/many/$d/file$i; done; done
"""
