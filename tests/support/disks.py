"""Small disks of a file system of one's own: a sparse file behind a loop device (mount(8), -o loop)."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sampan.linux import quota

_MAKERS = {
    "ext4": ("mkfs.ext4", "e2fsprogs", ("-q",)),
    "xfs": ("mkfs.xfs", "xfsprogs", ("-q", "-K")),
    "btrfs": ("mkfs.btrfs", "btrfs-progs", ("-q", "-K")),
}
_PAGE = Path(__file__).parents[2] / "docs" / "storage.md"


@contextlib.contextmanager
def disk(
    kind: str, place: Path, mebibytes: int = 320, options: str = "", features: Sequence[str] = ()
) -> Iterator[Path]:
    """A mounted disk in a directory; it is gone afterwards. What is missing is skipped by name.

    Args:
        kind: ext4, xfs or btrfs.
        place: an existing directory for the file and the mount point.
        mebibytes: the size; XFS wants 300.
        options: more options of mount(8).
        features: more words for who makes the file system.
    """
    maker, package, arguments = _MAKERS[kind]
    if shutil.which(maker) is None:
        pytest.skip(f"needs the program {maker} (Debian: {package})")
    load_modules("loop", kind)
    image, point = place / f"{kind}.image", place / kind
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(mebibytes << 20)
    _run(maker, *arguments, *features, str(image))
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
    """A file system with project quotas, as the page of storage has people make it.

    Skips where the kernel has none on it.
    """
    features, options = quotas_of_the_page(kind)
    with disk(kind, place, options=options, features=features) as point:
        if quota.obstacle(point):
            pytest.skip(f"this kernel has no project quotas on {kind}")
        yield point


def quotas_of_the_page(kind: str) -> tuple[list[str], str]:
    """What the page says to the maker of a file system, and the options that it is mounted with."""
    (line,) = re.findall(rf"^ +mkfs\.{kind} (.*)$", _PAGE.read_text(), re.MULTILINE)
    making, mounting = (shlex.split(part) for part in line.split(" && "))
    assert making[-1] == "/dev/sdb" and (mounting[0], *mounting[-2:]) == (
        "mount", "/dev/sdb", "/var/lib/sampan"
    )  # fmt: skip
    assert mounting[1] == "-o" and len(mounting) == 5
    return making[:-1], mounting[2]


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
