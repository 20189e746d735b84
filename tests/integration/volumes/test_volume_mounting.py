"""Volumes whose files lie elsewhere, when the data root is reached through a link: /var/lib/x -> /srv/x."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sampan.database import Database
from sampan.errors import Conflict
from sampan.storage import open_driver
from sampan.volumes import VolumeService

pytestmark = pytest.mark.root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to("disk")
    return tmp_path / "root"


def test_files_elsewhere_outlive_their_volume_behind_a_link(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    options = {"type": "none", "o": "bind", "device": str(elsewhere)}
    volumes = VolumeService(root / "volumes", Database(tmp_path / "db"))
    volumes.create("far", options=options)
    assert (volumes.hold("far", "c1") / "precious").exists()
    volumes = VolumeService(root / "volumes", Database(tmp_path / "db"))  # after a crash
    with pytest.raises(Conflict, match="active mounts"):
        volumes.remove("far")
    volumes.adopt({})
    assert not os.path.ismount(root / "volumes/far/_data")
    volumes.hold("far", "c2")
    volumes.let_go("c2")
    assert not os.path.ismount(root / "volumes/far/_data")
    volumes.remove("far")
    volumes.purge_trash()
    assert (elsewhere / "precious").exists()


def test_files_elsewhere_outlive_a_first_copy_that_fails(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "rootfs/data").mkdir(parents=True)
    options = {"type": "none", "o": "bind", "device": str(tmp_path / "elsewhere")}
    volumes = VolumeService(root / "volumes", Database(tmp_path / "db"))
    volumes.create("far", options=options)
    target = volumes.hold("far", "c1")

    def fail(*_: object) -> None:
        (target / "precious").touch()  # by another machine
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sampan.volumes.service.copy_tree", fail)
    with pytest.raises(OSError):
        volumes.populate("far", str(tmp_path / "rootfs"), "/data")
    volumes.let_go("c1")
    assert (tmp_path / "elsewhere/precious").exists()


def test_a_container_is_known_to_be_mounted_behind_a_link(root: Path) -> None:
    driver = open_driver("overlay2", root)
    driver.create_container("c1", None)
    merged = driver.mount("c1")
    driver = open_driver("overlay2", root)  # after a crash
    assert driver.mounted() == {"c1"}
    driver.mount("c1")
    driver.unmount("c1")
    driver.unmount("c1")
    assert not os.path.ismount(merged)
