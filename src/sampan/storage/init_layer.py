"""The few files and directories that are mounted over in every container: an image need not have them."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
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
    """Put what is missing into `root`, an empty directory or a copy of an image; links are not followed.

    What is made has the time 0, and directories that were there keep theirs: nothing here tells of a change.
    """
    times = {}
    for path in (root, root / "dev", root / "etc"):
        if not path.is_symlink() and path.is_dir():
            info = path.stat()
            times[path] = (info.st_atime_ns, info.st_mtime_ns)
    for name in (*DIRECTORIES, *FILES, *LINKS):
        path = root / name
        if not _plain_parents(root, path) or os.path.lexists(path):
            continue
        times[path] = (0, 0)
        if name in LINKS:
            path.symlink_to(LINKS[name])
        elif name in FILES:
            path.touch()
            path.chmod(0o700 if name == ".dockerenv" else 0o755)
        else:
            path.mkdir()
            path.chmod(0o755)
    for path, moments in times.items():
        os.utime(path, ns=moments, follow_symlinks=False)


def is_untouched(name: str, info: os.stat_result) -> bool:
    """Whether a file with this path is still what `fill` makes."""
    if name in DIRECTORIES:
        return stat.S_ISDIR(info.st_mode)
    if name in FILES:
        return stat.S_ISREG(info.st_mode) and info.st_size == 0
    return name in LINKS and stat.S_ISLNK(info.st_mode)


def clear(root: Path, image: Path | None) -> None:
    """Undo `fill` in a copy of a container: take away what is untouched and not the image's own.

    Args:
        image: the root of the image; None for an empty one.
    """
    for name in (*FILES, *LINKS, *sorted(DIRECTORIES, reverse=True)):
        path = root / name
        if not _plain_parents(root, path) or not os.path.lexists(path):
            continue
        if (image is not None and os.path.lexists(image / name)) or not is_untouched(name, path.lstat()):
            continue
        above = path.parent.stat()
        if name in DIRECTORIES:
            with contextlib.suppress(OSError):  # something lies in it
                path.rmdir()
        else:
            path.unlink()
        os.utime(path.parent, ns=(above.st_atime_ns, above.st_mtime_ns))


def _plain_parents(root: Path, path: Path) -> bool:
    """Whether every directory between the two is a real one."""
    return all(
        parent.is_dir() and not parent.is_symlink() for parent in path.parents if parent.is_relative_to(root)
    )
