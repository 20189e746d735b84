"""A container that plants symbolic links reaches no file of the host's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sampan.database import Database
from sampan.network import write_hostname, write_hosts, write_resolv_conf
from sampan.volumes import VolumeService


@pytest.mark.parametrize("name", ["hosts", "hostname", "resolv.conf"])
def test_a_link_in_place_of_a_name_file_is_replaced(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "shadow"
    victim.write_text("secret")
    os.chmod(victim, 0o600)
    file = tmp_path / name
    file.symlink_to(victim)
    if name == "hosts":
        write_hosts(file, hostname="web")
    elif name == "hostname":
        write_hostname(file, "web")
    else:
        write_resolv_conf(file)
    assert victim.read_text() == "secret" and stat.S_IMODE(victim.stat().st_mode) == 0o600
    assert stat.S_ISREG(file.lstat().st_mode)


@pytest.mark.root
@pytest.mark.parametrize("link", ["/etc", "../../../../../../../etc", "/proc/self/root/etc"])
def test_filling_a_volume_does_not_leave_the_root(tmp_path: Path, link: str) -> None:
    rootfs = tmp_path / "rootfs"
    (rootfs / "etc").mkdir(parents=True)
    (rootfs / "etc" / "mine").write_text("image's")
    (rootfs / "data").symlink_to(link)
    volumes = VolumeService(tmp_path / "volumes", Database(tmp_path / "db"))
    volume, _ = volumes.create("data")
    volumes.populate("data", str(rootfs), "/data")
    assert {entry.name for entry in volume.mountpoint.iterdir()} <= {"mine"}


@pytest.mark.root
def test_a_link_inside_the_source_is_copied_as_a_link(tmp_path: Path) -> None:
    rootfs = tmp_path / "rootfs"
    (rootfs / "data").mkdir(parents=True)
    (rootfs / "data" / "shadow").symlink_to("/etc/shadow")
    (rootfs / "data" / "etc").symlink_to("/etc")
    volumes = VolumeService(tmp_path / "volumes", Database(tmp_path / "db"))
    volume, _ = volumes.create("data")
    assert volumes.populate("data", str(rootfs), "/data")
    assert os.readlink(volume.mountpoint / "shadow") == "/etc/shadow"
    assert os.readlink(volume.mountpoint / "etc") == "/etc"
