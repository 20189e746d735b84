"""The few files and directories that are mounted over in every container: an image need not have them."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

DIRECTORIES = ("dev", "dev/pts", "dev/shm", "proc", "sys", "etc")
FILES = (".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf")
LINKS = {"etc/mtab": "/proc/mounts"}


def make_init_layer(home: Path) -> None:
    """Make `home/diff` with these files, unless it is there; whole or not at all."""
    if (home / "diff").exists():
        return
    home.mkdir(exist_ok=True)
    stage = Path(tempfile.mkdtemp(dir=home))
    fill(stage)
    stage.chmod(0o755)
    try:
        stage.rename(home / "diff")
    except OSError:
        shutil.rmtree(stage)
        if not (home / "diff").exists():
            raise


def fill(root: Path) -> None:
    """Put what is missing into `root`, an empty directory or a copy of an image; links are not followed."""
    for name in DIRECTORIES:
        path = root / name
        if _plain_parents(root, path) and not os.path.lexists(path):
            path.mkdir()
            path.chmod(0o755)
    for name in FILES:
        path = root / name
        if _plain_parents(root, path) and not os.path.lexists(path):
            path.touch()
            path.chmod(0o700 if name == ".dockerenv" else 0o755)
    for name, target in LINKS.items():
        path = root / name
        if _plain_parents(root, path) and not os.path.lexists(path):
            path.symlink_to(target)


def _plain_parents(root: Path, path: Path) -> bool:
    """Whether every directory between the two is a real one."""
    return all(
        parent.is_dir() and not parent.is_symlink() for parent in path.parents if parent.is_relative_to(root)
    )
