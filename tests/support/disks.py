"""Small disks of a file system of one's own: a sparse file behind a loop device (mount(8), -o loop)."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.linux import quota

_MAKERS = {
    "ext4": ("mkfs.ext4", "e2fsprogs", ("-q", "-O", "quota,project", "-E", "quotatype=prjquota,nodiscard")),
    "xfs": ("mkfs.xfs", "xfsprogs", ("-q", "-K")),
    "btrfs": ("mkfs.btrfs", "btrfs-progs", ("-q", "-K")),
}


@contextlib.contextmanager
def disk(kind: str, place: Path, mebibytes: int = 320, options: str = "") -> Iterator[Path]:
    """A mounted disk in a directory; it is gone afterwards. What is missing is skipped by name.

    Args:
        kind: ext4 (made for project quotas), xfs or btrfs.
        place: an existing directory for the file and the mount point.
        mebibytes: the size; XFS wants 300.
        options: more options of mount(8).
    """
    maker, package, arguments = _MAKERS[kind]
    if shutil.which(maker) is None:
        pytest.skip(f"needs the program {maker} (Debian: {package})")
    load_modules("loop", kind)
    image, point = place / f"{kind}.image", place / kind
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(mebibytes << 20)
    _run(maker, *arguments, str(image))
    mounted = _try(
        "mount", "-t", kind, "-o", ",".join(filter(None, ("loop", options))), str(image), str(point)
    )
    if mounted:
        image.unlink()
        pytest.skip(f"this kernel does not mount {kind} with {options or 'no options'}: {mounted}")
    try:
        yield point
    finally:
        _run("umount", "--lazy", "--recursive", str(point))
        image.unlink()


@contextlib.contextmanager
def limited_disk(kind: str, place: Path) -> Iterator[Path]:
    """A file system with project quotas; skips where the kernel has none on it."""
    with disk(kind, place, options="prjquota") as point:
        if quota.obstacle(point):
            pytest.skip(f"this kernel has no project quotas on {kind}")
        yield point


def fill(place: Path) -> str:
    """Write 8 MiB as a container would, without CAP_SYS_RESOURCE; what dd(1) says."""
    bounded = ("setpriv", "--bounding-set=-sys_resource")
    command = (*bounded, "dd", "if=/dev/zero", f"of={place}/big", "bs=256k", "count=32", "conv=fsync")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.stderr


def load_modules(*names: str) -> None:
    """For a kernel that has them apart; whether that worked is seen from what needs them."""
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            loader = Path("/proc/sys/kernel/modprobe").read_text().strip()
            subprocess.run([loader, name], stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _try(*command: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[0]


def _run(*command: str) -> None:
    problem = _try(*command)
    assert not problem, f"{command[0]}: {problem}"
