"""Where each storage driver is tested."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import needs
from support.disks import disk, load_modules

load_modules("fuse")


@pytest.fixture(scope="session")
def btrfs_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One disk for all tests with btrfs."""
    with disk("btrfs", tmp_path_factory.mktemp("btrfs"), options="nobarrier") as point:
        yield point


@pytest.fixture(
    params=[
        "overlay2",
        pytest.param("fuse-overlayfs", marks=needs.program("fuse-overlayfs")),
        "btrfs",
        "vfs",
    ]
)
def driver_name(request: pytest.FixtureRequest) -> str:
    """Each storage driver in turn."""
    name: str = request.param
    return name


@pytest.fixture
def root(driver_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A data root that this driver can work in."""
    if driver_name != "btrfs":
        return tmp_path
    place: Path = request.getfixturevalue("btrfs_disk") / tmp_path.name
    place.mkdir()
    return place
