"""The first-use copy keeps everything that the image's directory has."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from sampan.database import Database
from sampan.volumes import VolumeService
from sampan.volumes.populate import copy_tree

pytestmark = pytest.mark.root


@pytest.fixture
def volumes(tmp_path: Path) -> VolumeService:
    return VolumeService(tmp_path / "volumes", Database(tmp_path / "db"))


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    root = tmp_path / "rootfs"
    data = root / "srv" / "data"
    (data / "sub").mkdir(parents=True)
    (data / "file").write_text("hello")
    os.link(data / "file", data / "sub" / "same")
    os.symlink("file", data / "link")
    os.mknod(data / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(data / "fifo", 0o640)
    os.chown(data / "file", 1000, 1001)
    os.chown(data / "link", 7, 8, follow_symlinks=False)
    os.chmod(data / "file", 0o4755)
    os.setxattr(data / "file", "user.colour", b"red")
    os.utime(data / "file", ns=(1_000_000_007, 2_000_000_009))
    os.chmod(data / "sub", 0o2770)
    os.chown(data, 33, 34)
    os.chmod(data, 0o1750)
    os.utime(data, ns=(3_000_000_001, 4_000_000_003))
    return root


def test_everything_comes_along(volumes: VolumeService, rootfs: Path) -> None:
    target = volumes.create("data")[0].mountpoint
    assert volumes.populate("data", str(rootfs), "/srv/data")
    file = (target / "file").stat()
    assert (target / "file").read_text() == "hello"
    assert (file.st_uid, file.st_gid, stat.S_IMODE(file.st_mode)) == (1000, 1001, 0o4755)
    assert (file.st_mtime_ns, file.st_nlink) == (2_000_000_009, 2)
    assert (target / "sub" / "same").stat().st_ino == file.st_ino
    assert os.getxattr(target / "file", "user.colour") == b"red"
    assert os.readlink(target / "link") == "file" and (target / "link").lstat().st_uid == 7
    assert (target / "null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_IMODE((target / "fifo").stat().st_mode) == 0o640
    assert stat.S_IMODE((target / "sub").stat().st_mode) == 0o2770
    top = target.stat()
    assert (top.st_uid, top.st_gid, stat.S_IMODE(top.st_mode)) == (33, 34, 0o1750)
    assert top.st_mtime_ns == 4_000_000_003


def test_a_volume_is_filled_once_and_only_when_empty(volumes: VolumeService, rootfs: Path) -> None:
    used = volumes.create("used")[0].mountpoint
    (used / "own").write_text("mine")
    assert not volumes.populate("used", str(rootfs), "/srv/data")
    assert [entry.name for entry in used.iterdir()] == ["own"]
    emptied = volumes.create("emptied")[0].mountpoint
    assert volumes.populate("emptied", str(rootfs), "/srv")
    for entry in (emptied / "data").iterdir():
        if not entry.is_dir():
            entry.unlink()
    assert not volumes.populate("emptied", str(rootfs), "/srv")


@pytest.mark.parametrize("path", ["/nowhere", "/srv/data/file", "/srv/data/link"])
def test_what_is_no_directory_fills_nothing(volumes: VolumeService, rootfs: Path, path: str) -> None:
    target = volumes.create("data")[0].mountpoint
    assert not volumes.populate("data", str(rootfs), path)
    assert list(target.iterdir()) == []


def test_populate_links_nothing_of_the_host_through_a_volume_that_is_changed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, host = tmp_path / "source", tmp_path / "target", tmp_path / "host"
    for place in (source / "one", source / "two", target, host):
        place.mkdir(parents=True)
    (source / "one/f").write_text("image")
    os.link(source / "one/f", source / "two/f")
    (host / "f").write_text("secret")
    utime = os.utime

    def swap(path: int | str, **rest: Any) -> None:
        utime(path, **rest)
        for done in (target / "one", target / "two"):
            if (done / "f").exists() and not any((target / "aside").glob("*")):
                done.rename(target / "aside")
                done.symlink_to(host)

    monkeypatch.setattr(os, "utime", swap)
    fd = os.open(source, os.O_RDONLY)
    try:
        with pytest.raises(OSError):
            copy_tree(fd, target)
    finally:
        os.close(fd)
    assert (target / "aside/f").read_text() == "image"
    assert (host / "f").stat().st_nlink == 1


def test_populate_changes_no_mode_of_the_host_through_a_volume_that_is_changed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, secret = tmp_path / "source", tmp_path / "target", tmp_path / "secret"
    source.mkdir()
    target.mkdir()
    os.mkfifo(source / "pipe")
    (source / "pipe").chmod(0o666)
    secret.touch(0o600)
    mknod = os.mknod

    def swap(name: str, *rest: int, dir_fd: int) -> None:
        mknod(name, *rest, dir_fd=dir_fd)
        os.unlink(name, dir_fd=dir_fd)
        os.symlink(secret, name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mknod", swap)
    fd = os.open(source, os.O_RDONLY)
    try:
        copy_tree(fd, target)
    finally:
        os.close(fd)
    assert (target / "pipe").is_symlink()
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
