"""Volumes whose content is the attacker's: no part of one leads out of it, nor does giving or deleting it.

The attacker is root in a container that has the whole volume, and swaps what others mount, own or delete.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.database import Database
from sampan.volumes import VolumeService, give
from support.engine import Daemon
from support.machine import eventually

pytestmark = [pytest.mark.root, pytest.mark.daemon]

Names = Callable[[], str]
STARTS = 12
SECONDS = 2.0

# Each turn makes `part` another thing: a directory, links out by several ways, a link to a link, a file.
SWAP = """
cd /v; mkdir -p real deep/er; echo inside >real/file; ln -sfn / rootlink
while :; do
  for target in / /etc ../../../../../.. .. rootlink/etc /proc/1/root /proc/self/cwd deep/../..; do
    ln -sfn "$target" new; mv -T new part 2>/dev/null || { rm -rf part; mv -T new part; }
    rm part; mkdir part; echo inside >part/file; rm -rf part
    mkdir part; mv part deep/er/part; mv deep/er/part part; rm -rf part
  done
done
"""


@pytest.fixture
def secret(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a file in the machine's /, which nothing in a container may ever show."""
    name = f"secret-of-{os.getpid()}"
    Path("/", name).write_text("the host's")
    yield name
    Path("/", name).unlink()


def test_a_part_that_is_swapped_meanwhile(daemon: Daemon, volume: str, name: Names, secret: str) -> None:
    attacker = name()
    run = ("run", "-d", "--name", attacker, "-v", f"{volume}:/v", daemon.busybox)
    daemon.docker(*run, "sh", "-c", SWAP)
    mount = f"type=volume,src={volume},dst=/m,volume-subpath=part"
    script = f"ls -a /m 2>/dev/null; test ! -e /m/{secret} -a ! -e /m/etc/shadow || echo OUT"
    # All that is there is what the volume has, whatever the attacker made of it at that moment.
    allowed = {".", "..", "file", "real", "deep", "er", "part", "new", "rootlink"}
    for _ in range(STARTS):
        done = daemon.docker("run", "--rm", "--mount", mount, daemon.busybox, "sh", "-c", script, code=None)
        if done.code:  # there was nothing at that moment, or it was removed before it was mounted
            assert "no such file or directory" in done.err.lower(), done.err
            continue
        assert set(done.lines) <= allowed, done.out
    daemon.api.remove(attacker)
    eventually(lambda: not list((daemon.exec_root / "mounts").iterdir()), what="no place of a part is left")


@pytest.mark.parametrize("target", ["/", "/etc", "../../../../..", "inner/../../..", "/proc/self/root"])
def test_a_part_that_is_a_link(daemon: Daemon, volume: str, name: Names, secret: str, target: str) -> None:
    """Of a volume and of an image: links are taken inside."""
    make = f"mkdir -p /v/inner; ln -s {target} /v/part"
    daemon.docker("run", "--rm", "-v", f"{volume}:/v", daemon.busybox, "sh", "-c", make)
    one, image = name(), f"{name()}:evil"
    daemon.docker("run", "--name", one, daemon.busybox, "sh", "-c", f"mkdir /inner; ln -s {target} /part")
    daemon.docker("commit", one, image)
    try:
        for mount in (
            f"type=volume,src={volume},dst=/m,volume-subpath=part",
            f"type=image,src={image},dst=/m,image-subpath=part",
        ):
            script = f"test ! -e /m/{secret} -a ! -e /m/shadow -a ! -e /m/etc/shadow || echo OUT"
            done = daemon.docker(
                "run", "--rm", "--mount", mount, daemon.busybox, "sh", "-c", script, code=None
            )
            assert done.out == "" and (done.code == 0 or "cannot access path part" in done.err), done.err
    finally:
        daemon.docker("rmi", image)


def test_the_place_of_a_part_is_out_of_reach(daemon: Daemon, volume: str, name: Names) -> None:
    """Neither the exec-root nor what is mounted there can be walked by others than root."""
    daemon.docker("run", "--rm", "-v", f"{volume}:/v", daemon.busybox, "mkdir", "/v/part")
    mount = f"type=volume,src={volume},dst=/m,volume-subpath=part"
    daemon.docker("run", "--rm", "--mount", mount, daemon.busybox, "true")
    assert (daemon.exec_root / "mounts").stat().st_mode & 0o077 == 0


def swapping(top: Path, host: Path, until: threading.Event) -> None:
    """Replace directories and files of a tree by links to the machine's, again and again."""
    for turn in range(10**9):
        if until.is_set():
            return
        place = top / f"d{turn % 3}"
        with contextlib.suppress(OSError):
            if place.is_symlink():
                place.unlink()
                (place / "x").mkdir(parents=True)
                (place / "x" / "file").write_text("")
            else:
                place.rename(top / "aside")
                place.symlink_to(host)
                shutil.rmtree(top / "aside")
        with contextlib.suppress(OSError):
            (top / "f").unlink(missing_ok=True)
            (top / "f").symlink_to(host / "secret")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    (tmp_path / "host" / "inner").mkdir(parents=True)
    for one in ("secret", "inner/secret"):
        (tmp_path / "host" / one).write_text("the host's")
    return tmp_path / "host"


def test_giving_what_is_swapped_meanwhile(tmp_path: Path, host: Path) -> None:
    """The option U: nothing outside the tree changes its owner."""
    top = tmp_path / "tree"
    for number in range(3):
        (top / f"d{number}" / "x").mkdir(parents=True)
    until = threading.Event()
    attacker = threading.Thread(target=swapping, args=(top, host, until))
    attacker.start()
    try:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            give(str(top), 4321, 4321)
            give(str(top), 4322, 4322)
    finally:
        until.set()
        attacker.join()
    for one in (host, host / "secret", host / "inner", host / "inner/secret"):
        assert one.stat().st_uid == 0, one


def test_what_is_mounted_in_a_volume_is_not_deleted_with_it(tmp_path: Path, host: Path) -> None:
    """Somebody has mounted the machine's files in a volume: it is not removed, and its trash not emptied."""
    volumes = VolumeService(tmp_path / "volumes", Database(tmp_path / "db"))
    place = volumes.create("data")[0].mountpoint
    subprocess.run(["mount", "--bind", host, place], check=True)
    try:
        with pytest.raises(Exception, match="volume has active mounts"):
            volumes.remove("data")
        trash = tmp_path / "volumes" / ".trash-x-y"
        place.parent.rename(trash)
        volumes.purge_trash()
        assert (host / "inner/secret").read_text() == "the host's"
    finally:
        subprocess.run(["umount", tmp_path / "volumes" / ".trash-x-y" / "_data"], check=True)
    volumes.purge_trash()
    assert not trash.exists() and (host / "secret").exists()


def nest(top: Path, levels: int) -> None:
    """Directories in directories, as a container makes them by mkdirat(2)."""
    fd = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d" * 50, dir_fd=fd)
        inner = os.open("d" * 50, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def test_nesting_deep_keeps_no_disk(daemon: Daemon, name: Names) -> None:
    """What is nested deeper than Python recurses is given, counted and deleted as everything else."""
    one = name()
    mount = {"Type": "volume", "Target": "/data", "Chown": True}
    body = {"Image": daemon.busybox, "Cmd": ["true"], "User": "1234", "HostConfig": {"Mounts": [mount]}}
    assert daemon.api("POST", f"/containers/create?name={one}", body).status == 201
    shown = daemon.api.inspect(one)
    upper, data = Path(shown["GraphDriver"]["Data"]["UpperDir"]), Path(shown["Mounts"][0]["Source"])
    nest(upper, 1500)
    nest(data, 1500)
    assert daemon.docker("start", "-a", one).code == 0
    assert (data / ("d" * 50)).stat().st_uid == 1234
    for target in ("/system/df", "/containers/json?all=1&size=1"):
        answer = daemon.api("GET", target)
        assert answer.status == 200, answer.body
    assert daemon.api("DELETE", f"/containers/{one}?v=1").status == 204
    trash = daemon.data_root / "volumes"
    eventually(lambda: not data.exists() and not list(trash.glob(".trash-*")), 30)
    theirs = upper.parents[2] / "trash"
    assert theirs.is_dir()
    eventually(lambda: not upper.exists() and not list(theirs.iterdir()), 30)
