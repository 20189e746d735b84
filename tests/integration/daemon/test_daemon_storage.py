"""Each storage driver under a daemon, with the docker client: what a container writes, what is told of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import needs
from support.disks import disk, load_modules
from support.engine import Daemon
from support.machine import eventually, mounts

pytestmark = pytest.mark.daemon
load_modules("fuse")
MIB = 1 << 20
STATUS = {"fuse-overlayfs": [], "btrfs": [["Btrfs", ""]], "vfs": []}


@pytest.fixture(
    scope="module",
    params=[pytest.param("fuse-overlayfs", marks=needs.program("fuse-overlayfs")), "btrfs", "vfs"],
)
def stored(
    request: pytest.FixtureRequest,
    make_daemon: Callable[..., Daemon],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Daemon]:
    """A daemon with this driver; the usual one is under every other test."""
    made = make_daemon("--storage-driver", request.param)
    if request.param == "btrfs":
        with disk("btrfs", tmp_path_factory.mktemp("disk"), options="nobarrier") as point:
            made.data_root = point / "data"
            made.arguments[1] = str(made.data_root)
            yield from _lives(made)
    else:
        yield from _lives(made)


def _lives(made: Daemon) -> Iterator[Daemon]:
    made.start()
    yield made
    made.end()
    home = made.data_root / made.flags[1]
    assert os.listdir(home / "containers") == os.listdir(home / "trash") == os.listdir(home / "stage") == []


def driver_of(daemon: Daemon) -> str:
    return daemon.flags[1]


def test_a_containers_life(stored: Daemon) -> None:
    docker, image = stored.docker, stored.busybox
    info = stored.api.get("/info")
    assert info["Driver"] == driver_of(stored)
    assert info["DriverStatus"] == STATUS[driver_of(stored)]
    made = (
        "mkdir /a; echo hello >/a/f; ln /a/f /a/g; rm /etc/passwd; mkfifo /a/p; chown 5:6 /a; chmod 1770 /a"
    )
    docker("run", "--name", "life", image, "sh", "-c", made)
    assert docker("diff", "life").out.splitlines() == [
        *("A /a", "A /a/f", "A /a/g", "A /a/p", "C /etc", "D /etc/passwd"),
    ]
    docker("commit", "life", "committed")
    seen = docker(
        "run", "--rm", "committed", "sh", "-c", "cat /a/g; stat -c %a,%u,%g /a; stat -c %a,%h /a/f; ls /etc"
    ).out
    assert seen.splitlines()[:3] == ["hello", "1770,5,6", "644,2"]
    assert "passwd" not in seen
    docker("cp", "life:/a/f", str(stored.base / "copied"))
    assert (stored.base / "copied").read_text() == "hello\n"
    docker("rm", "life")
    docker("rmi", "committed")


def test_sizes_are_right(stored: Daemon) -> None:
    docker, image = stored.docker, stored.busybox
    docker("run", "--name", "sized", image, "sh", "-c", "head -c 3145728 /dev/zero >/big; ln /big /same")
    (shown,) = [one for one in stored.api.get("/containers/json?all=1&size=1") if "/sized" in one["Names"]]
    assert shown["SizeRw"] == 3 * MIB
    usage = stored.api.get("/system/df")
    (container,) = [one for one in usage["Containers"] if "/sized" in one["Names"]]
    assert container["SizeRw"] == 3 * MIB
    (whole,) = [one for one in usage["Images"] if f"{image}:latest" in (one["RepoTags"] or [])]
    assert container["SizeRootFs"] == 3 * MIB + whole["Size"]
    assert usage["LayersSize"] == sum(one["Size"] - max(one["SharedSize"], 0) for one in usage["Images"])
    docker("rm", "sized")


def test_a_killed_daemon_finds_them_again(stored: Daemon) -> None:
    docker, image = stored.docker, stored.busybox
    docker("run", "-d", "--name", "survivor", image, "sleep", "600")
    docker("exec", "survivor", "sh", "-c", "echo before >/mine")
    stored.kill9()
    stored.start()
    assert stored.api.get("/info")["Driver"] == driver_of(stored)
    assert docker("exec", "survivor", "sh", "-c", "echo after >>/mine; cat /mine").out == "before\nafter\n"
    docker("restart", "-t", "0", "survivor")
    assert docker("exec", "survivor", "cat", "/mine").out == "before\nafter\n"
    docker("rm", "-f", "survivor")
    place = stored.data_root / driver_of(stored) / "containers"
    eventually(lambda: mounts(str(place)) == [] and os.listdir(place) == [])
    eventually(lambda: servers(place) == [])


def servers(place: Path) -> list[str]:
    """The programs that serve mounts below a directory."""
    listed = subprocess.run(
        ["pgrep", "-f", f"fuse-overlayfs .*{place}"], capture_output=True, text=True, check=False
    )
    return listed.stdout.split()


def test_a_limit_on_a_containers_files(stored: Daemon) -> None:
    docker, image = stored.docker, stored.busybox
    size = stored.api.get(f"/images/{image}/json")["Size"]
    fill = ("dd", "if=/dev/zero", "of=/big", "bs=64k", "count=128", "conv=fsync")
    limited = docker("run", "--rm", "--storage-opt", f"size={size + 2 * MIB}", image, *fill, code=None)
    if driver_of(stored) == "btrfs":
        assert "quota exceeded" in limited.err
        assert limited.code == 1
    else:
        assert "--storage-opt size" in limited.err
        assert driver_of(stored) in limited.err
        assert limited.code == 125
        assert not stored.api.containers()
    wrong = docker("create", "--storage-opt", "colour=red", image, code=None)
    assert "unknown option colour" in wrong.err


def test_many_files_are_removed_after_the_answer(stored: Daemon) -> None:
    docker, image = stored.docker, stored.busybox
    many = "mkdir /m; cd /m; i=0; while [ $i -lt 500 ]; do : >$i; i=$((i+1)); done"
    docker("run", "--name", "many", image, "sh", "-c", many)
    docker("rm", "many")
    home = stored.data_root / driver_of(stored)
    eventually(lambda: os.listdir(home / "containers") == os.listdir(home / "trash") == [])


def test_the_data_root_keeps_its_driver(make_daemon: Callable[..., Daemon]) -> None:
    made = make_daemon("--storage-driver", "vfs").start()
    made.docker("run", "--name", "old", made.busybox, "touch", "/mine")
    assert made.stop() == 0
    made.arguments = made.arguments[: -len(made.flags) - 2] + made.arguments[-2:]
    made.start()
    assert made.api.get("/info")["Driver"] == "vfs"
    assert "A /mine" in made.docker("diff", "old").out
    assert made.stop() == 0
    made.arguments += ["--storage-driver", "overlay2", "--storage-opt", "size=1g"]
    made.spawn()
    assert made.process is not None
    assert made.process.wait(30) != 0
    made.process = None
    assert "overlay2 has no option 'size'" in made.log_text()
    made.arguments = made.arguments[:-2]
    made.start()  # in words: what was made with vfs is to be seen, and has no files here
    assert made.docker("run", "--rm", made.busybox, "echo", "image").out == "image\n"
    lost = made.docker("start", "old", code=None)
    assert "has no file system in overlay2: it was made with another --storage-driver" in lost.err
    (shown,) = [one for one in made.api.get("/system/df")["Containers"] if "/old" in one["Names"]]
    assert shown.get("SizeRw", 0) == 0
    assert made.docker("inspect", "-f", "{{.Driver}} {{.GraphDriver.Data}}", "old").out == "vfs map[]\n"
    made.docker("rm", "old")
    made.end()
