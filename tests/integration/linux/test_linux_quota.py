"""Project quotas, on disks of their own. Kernels without quota formats skip; Debian's own has them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.linux import quota
from support.disks import disk
from support.machine import eventually

pytestmark = pytest.mark.root
MIB = 1 << 20


@pytest.fixture(params=["ext4", "xfs"], scope="module")
def limited(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with disk(request.param, tmp_path_factory.mktemp("quota"), options="prjquota") as point:
        if quota.obstacle(point):  # XFS that was built without quotas takes the option in silence
            pytest.skip(f"this kernel has no project quotas on {request.param}")
        yield point


def test_quota_bounds_a_tree(limited: Path) -> None:
    first, second = limited / "first", limited / "second"
    first.mkdir()
    second.mkdir()
    project = quota.limit([first, second], 2 * MIB)
    (first / "below").mkdir()
    (first / "below/a").write_bytes(bytes(MIB))
    bounded = ("setpriv", "--bounding-set=-sys_resource")  # who has that capability is not bounded on ext4
    command = (*bounded, "dd", "if=/dev/zero", f"of={second}/b", "bs=128k", "count=20")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert "quota exceeded" in done.stderr or "No space left" in done.stderr
    usage = quota.usage(limited, project)
    assert usage.limit_bytes == 2 * MIB
    assert MIB < usage.used_bytes <= 2 * MIB
    assert usage.files == 5
    os.rename(first / "below/a", second / "a")  # one project: no EXDEV
    assert quota.project_of(first) == quota.project_of(first / "below") == project
    assert os.statvfs(first).f_blocks * os.statvfs(first).f_frsize == 2 * MIB
    (limited / "outside").write_bytes(bytes(4 * MIB))
    shutil.rmtree(first)
    shutil.rmtree(second)
    quota.release(limited, project)
    eventually(lambda: quota.usage(limited, project) == quota.Usage(0, 0, 0), what="nothing is counted")


def test_quota_projects_are_apart(limited: Path) -> None:
    projects = set()
    for number in range(3):
        place = limited / f"p{number}"
        place.mkdir()
        projects.add(quota.limit([place], MIB))
        if number == 0:
            assert "project" in quota.obstacle(place)
    assert len(projects) == 3
    assert quota.obstacle(limited) == ""
    assert quota.project_of(limited) == 0


def test_quota_that_is_not_there_is_told(tmp_path: Path) -> None:
    with disk("btrfs", tmp_path, 128) as point:
        assert "prjquota" in quota.obstacle(point)
        (point / "x").mkdir()
        assert quota.project_of(point / "x") == 0
    assert "prjquota" in quota.obstacle("/dev/shm")
    assert quota.project_of("/proc") == 0
