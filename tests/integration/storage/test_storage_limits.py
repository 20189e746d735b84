"""`--storage-opt size=`: what each driver can do about it, and what it says where it cannot.

Kernels without quota formats skip a part; Debian's own, which tests/machines boots, has them.
"""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import InvalidParameter
from sampan.linux import quota
from sampan.storage import Driver, open_driver
from support import needs
from support.disks import fill, limited_disk
from support.layers import entry, layer
from support.machine import eventually

pytestmark = pytest.mark.root
MIB = 1 << 20
IMAGE = f"sha256:{1:064x}"


@pytest.fixture(params=["ext4", "xfs"], scope="module")
def limited(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with limited_disk(request.param, tmp_path_factory.mktemp("limits")) as point:
        yield point


def container(driver: Driver, size_bytes: int, image_bytes: int = MIB) -> Path:
    driver.apply_layer(IMAGE, None, io.BytesIO(layer(entry("image", data=bytes(image_bytes)))))
    driver.create_container("c1", IMAGE, size_bytes)
    return Path(driver.mount("c1"))


def clear(driver: Driver) -> None:
    driver.remove_container("c1")
    driver.remove_layer(IMAGE)
    driver.purge_trash()


@pytest.mark.parametrize("name", ["overlay2", "vfs"])
def test_storage_size_by_project_quota(limited: Path, name: str) -> None:
    driver = open_driver(name, limited)
    root = container(driver, 4 * MIB)
    place = limited / name / "containers/c1" / driver.files  # type: ignore[attr-defined]
    project = quota.project_of(place)
    try:
        assert "quota exceeded" in (said := fill(root)) or "No space left" in said
        written = 4 * MIB if name == "overlay2" else 3 * MIB
        assert written - MIB < (root / "big").stat().st_size <= written
        (root / "big").unlink()
        (root / "image").unlink()
        assert project
        assert quota.usage(limited, project).limit_bytes == 4 * MIB
        driver.unmount("c1")
        driver.mount("c1")
        assert "No space left" in (said := fill(root)) or "quota exceeded" in said
        driver.create_container("c2", IMAGE)
        assert fill(Path(driver.mount("c2"))).splitlines()[-1].startswith("8388608 bytes")
    finally:
        driver.remove_container("c2")
        clear(driver)
    eventually(lambda: quota.usage(limited, project) == quota.Usage(0, 0, 0), what="the project is free")


def test_storage_size_on_btrfs(btrfs_disk: Path) -> None:
    driver = open_driver("btrfs", btrfs_disk / "limits")
    root = container(driver, 4 * MIB)
    try:
        assert "quota exceeded" in fill(root)
        assert (root / "big").stat().st_size < 4 * MIB
        with pytest.raises(InvalidParameter, match="the image alone is larger"):
            driver.create_container("c2", IMAGE, MIB // 2)
        assert "stale" not in groups(btrfs_disk)
    finally:
        clear(driver)
    assert driver.stray(set()) == []
    os.sync()

    def no_group_is_left() -> bool:
        driver.purge_trash()
        return "stale" not in groups(btrfs_disk)

    eventually(no_group_is_left, timeout=60)  # once a cleaner of the kernel's has been there


def groups(point: Path) -> str:
    command = ["btrfs", "qgroup", "show", "--sync", str(point)]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    "name", ["overlay2", "vfs", pytest.param("fuse-overlayfs", marks=needs.program("fuse-overlayfs"))]
)
def test_storage_size_is_refused_where_nothing_can_limit_it(btrfs_disk: Path, name: str) -> None:
    driver = open_driver(name, btrfs_disk / "refused")
    with pytest.raises(InvalidParameter, match=f"--storage-opt size: {name} cannot limit"):
        driver.create_container("c1", None, MIB)
    assert driver.stray(set()) == []
    driver.purge_trash()
