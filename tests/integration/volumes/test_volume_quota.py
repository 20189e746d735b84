"""`volume create -o size=…`, on disks of their own. Kernels without quota formats skip; Debian's has them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.database import Database
from sampan.errors import InvalidParameter
from sampan.linux import quota
from sampan.volumes import VolumeService
from support.disks import fill, limited_disk
from support.machine import eventually

pytestmark = pytest.mark.root
MIB = 1 << 20


@pytest.fixture(params=["ext4", "xfs"], scope="module")
def limited(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with limited_disk(request.param, tmp_path_factory.mktemp("volumes")) as point:
        yield point


def test_quota_of_a_volume(limited: Path, tmp_path: Path) -> None:
    volumes = VolumeService(limited / "volumes", Database(tmp_path / "db"))
    place = volumes.create("small", options={"size": "2m"})[0].mountpoint
    other = volumes.create("other", options={"size": "16m"})[0].mountpoint
    said = fill(place)
    assert "quota exceeded" in said or "No space left" in said
    assert (place / "big").stat().st_size <= 2 * MIB
    assert fill(other).endswith("s\n") and (other / "big").stat().st_size == 8 * MIB
    shown = os.statvfs(place)
    assert shown.f_blocks * shown.f_frsize == 2 * MIB  # what df says in the container
    project = quota.project_of(place)
    assert project not in (0, quota.project_of(other))
    volumes.remove("small")
    volumes.purge_trash()
    eventually(lambda: quota.usage(limited, project) == quota.Usage(0, 0, 0), what="nothing is counted")
    unlimited = volumes.create("small")[0].mountpoint
    assert quota.project_of(unlimited) == 0
    fill(unlimited)
    assert (unlimited / "big").stat().st_size == 8 * MIB


def test_quota_of_another_stays_when_a_tree_that_was_put_into_its_project_goes(
    limited: Path, tmp_path: Path
) -> None:
    volumes = VolumeService(limited / "attacked", Database(tmp_path / "db"))
    hostile = volumes.create("hostile", options={"size": "2m"})[0].mountpoint
    victim = volumes.create("victim", options={"size": "4m"})[0].mountpoint
    own, other = quota.project_of(hostile), quota.project_of(victim)
    subprocess.run(["chattr", "-p", str(other), hostile], check=True, stdin=subprocess.DEVNULL)
    assert quota.project_of(hostile) == other
    volumes.remove("hostile")
    volumes.purge_trash()
    assert quota.usage(limited, other).limit_bytes == 4 * MIB
    assert quota.usage(limited, own).limit_bytes == 0


def test_quota_where_there_is_none(tmp_path: Path) -> None:
    if not quota.obstacle(tmp_path):
        pytest.skip("the tests' own disk has project quotas")
    volumes = VolumeService(tmp_path / "volumes", Database(tmp_path / "db"))
    with pytest.raises(InvalidParameter) as refused:
        volumes.create("small", options={"size": "2m"})
    assert refused.value.message.startswith(
        "create small: quota size requested but no quota support: its file system "
    )
    assert list((tmp_path / "volumes").iterdir()) == []
