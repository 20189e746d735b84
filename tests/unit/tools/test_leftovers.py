"""What a killed run of the tests has left is swept away; what lives, or is mounted, is not."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[3] / "tools" / "leftovers.py"


@pytest.fixture
def leftovers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("leftovers", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dead() -> int:
    """The pid of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_directories_of_the_dead_go(leftovers: ModuleType, tmp_path: Path) -> None:
    gone, here = dead(), os.getpid()
    for name in (f"spt-{gone}-x", f"sampan-test-{gone}-y", f"sampan-test-docker-{gone}"):
        (tmp_path / name / "deep").mkdir(parents=True)
    kept = {f"spt-{here}-x", f"sampan-test-{here}-y", "spt-abcdefgh", "sampan-test", f"other-{gone}"}
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / f"spt-{gone}-link").symlink_to(tmp_path / f"spt-{here}-x")
    removed = leftovers.sweep(tmp_path, tmp_path / "no-cgroups")
    assert len(removed) == 3
    assert {entry.name for entry in tmp_path.iterdir()} == kept | {f"spt-{gone}-link"}


@pytest.mark.root
def test_cgroups_of_the_dead_go_with_what_lives_in_them(leftovers: ModuleType, tmp_path: Path) -> None:
    base = Path("/sys/fs/cgroup")
    tree = base / "freezer" if (base / "freezer").is_dir() else base
    gone = dead()
    stale, living = tree / f"sampan-test-{gone}", tree / f"sampan-test-{os.getpid()}-own"
    (stale / "below").mkdir(parents=True)
    living.mkdir()
    with subprocess.Popen(["sleep", "1000"]) as process:
        (stale / "below" / "cgroup.procs").write_text(str(process.pid))
        assert str(stale) in leftovers.sweep(tmp_path, base)
        assert process.wait(20) == -9
    assert not stale.exists()
    assert living.is_dir()
    living.rmdir()
