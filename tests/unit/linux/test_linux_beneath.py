"""Paths beneath a root: links and `..` of every kind stay inside, missing parts are made inside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.linux import beneath


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    inside = tmp_path / "root"
    inside.mkdir()
    (tmp_path / "outside").mkdir()
    fd = os.open(inside, os.O_PATH | os.O_DIRECTORY)
    yield fd, inside
    os.close(fd)
    assert list((tmp_path / "outside").iterdir()) == []


def where(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("link", "path", "place"),
    [
        (None, "/a/b/c", "a/b/c"),
        (None, "a//./b/", "a/b"),
        (None, "/../../a", "a"),
        ("/b", "/link/c", "b/c"),
        ("../../outside", "/link/c", "outside/c"),
        ("/../outside", "/link/c", "outside/c"),
        ("x/y", "/link", "x/y"),
        ("x/y", "/link/../z", "x/z"),
    ],
)
def test_directories_are_made_inside(root: tuple[int, Path], link: str | None, path: str, place: str) -> None:
    fd, inside = root
    if link is not None:
        (inside / "link").symlink_to(link)
    assert where(beneath.make_directory(fd, path)) == str(inside / place)


def test_loops_files_in_the_way_and_refused_links(root: tuple[int, Path]) -> None:
    fd, inside = root
    (inside / "loop").symlink_to("loop")
    (inside / "file").write_text("x")
    (inside / "link").symlink_to("/there")
    with pytest.raises(OSError):
        beneath.make_directory(fd, "/loop/x")
    with pytest.raises(NotADirectoryError):
        beneath.make_directory(fd, "/file/x")
    with pytest.raises(OSError):
        beneath.make_directory(fd, "/link", follow=False)
    with pytest.raises(OSError):
        beneath.open_path(fd, "/link", follow=False)


def test_files(root: tuple[int, Path]) -> None:
    fd, inside = root
    (inside / "etc").symlink_to("/../../../../outside")
    assert where(beneath.make_file(fd, "/etc/passwd")) == str(inside / "outside/passwd")
    assert where(beneath.make_file(fd, "/etc/passwd")) == str(inside / "outside/passwd")
    with pytest.raises(IsADirectoryError):
        beneath.make_file(fd, "/a/..")
