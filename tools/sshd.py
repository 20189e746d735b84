"""Debian's sshd for the tests: unpacked into a cache, never installed, so that no machine begins to listen.

Stdlib only; run by the system's Python.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from machine import NoMachine, _said, cache

PACKAGES = ("openssh-server", "libwrap0")


def program(download: bool = True) -> tuple[Path, dict[str, str]]:
    """The program and what its environment needs, from the cache, or fetched.

    Args:
        download: fetch it when it is not there; False where there is no network.

    Raises:
        NoMachine: it cannot be had.
    """
    place = cache() / "sshd"
    if not place.exists():
        if not download:
            raise NoMachine("Debian's sshd (openssh-server) has not been fetched")
        _unpack(place)
    libraries = [str(path) for path in (*place.glob("lib/*-linux-gnu"), *place.glob("usr/lib/*-linux-gnu"))]
    return place / "usr/sbin/sshd", {"LD_LIBRARY_PATH": os.pathsep.join(libraries)}


def _unpack(place: Path) -> None:
    for name in ("apt-get", "dpkg-deb"):
        if shutil.which(name) is None:
            raise NoMachine(f"needs the program {name}")
    with tempfile.TemporaryDirectory(dir=cache()) as scratch:
        _said("apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *PACKAGES, cwd=Path(scratch))
        unpacked = Path(scratch, "sshd")
        for archive in Path(scratch).glob("*.deb"):
            _said("dpkg-deb", "-x", str(archive), str(unpacked))
        unpacked.rename(place)
