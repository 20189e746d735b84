"""Trees deeper than Python recurses, paths longer than the kernel takes: walked, counted, deleted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.linux import trees
from sampan.volumes.volume import size_bytes

LEVELS = 1500
NAME = "d" * 100


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A directory in a directory in …, each with a file of three bytes."""
    top = tmp_path / "deep"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(LEVELS):
        file = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
        os.write(file, b"abc")
        os.close(file)
        os.mkdir(NAME, dir_fd=fd)
        inner = os.open(NAME, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    return top


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_walked_counted_deleted(deep: Path) -> None:
    before = descriptors()
    top = os.open(deep, os.O_RDONLY)
    levels = [level for _, _, level in trees.walk(top)]
    assert levels == list(range(LEVELS + 1))
    assert sum(1 for _ in trees.walk(top, 10)) == 11
    for _ in trees.walk(top):
        assert descriptors() < before + 20
        break
    os.close(top)
    assert size_bytes(deep) == 3 * LEVELS
    trees.remove(deep)
    assert not deep.exists()
    assert descriptors() <= before


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside" / "kept").mkdir(parents=True)
    (tmp_path / "tree" / "inner").mkdir(parents=True)
    os.symlink(tmp_path / "outside", tmp_path / "tree" / "link")
    os.symlink("../..", tmp_path / "tree" / "inner" / "up")
    top = os.open(tmp_path / "tree", os.O_RDONLY)
    assert [level for _, _, level in trees.walk(top)] == [0, 1]
    os.close(top)
    trees.remove(tmp_path / "tree")
    assert (tmp_path / "outside" / "kept").exists() and not (tmp_path / "tree").exists()
    trees.remove(tmp_path / "tree")  # gone already
