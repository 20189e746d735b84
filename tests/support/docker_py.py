"""docker-py's own tests: in the source archive of release 6.1.3, the last one that brings them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

RELEASE = "6.1.3"
SHA256 = "aa6d17830045ba5ef0168d5eaa34d37beeb113948c413affe1d5991fc11f9a20"
CACHE = Path("/var/cache/sampan-test")
ARCHIVE = CACHE / f"docker-{RELEASE}.tar.gz"


def fetch() -> None:
    """Get the archive, once; without it its tests are skipped."""
    if not ARCHIVE.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        words = [
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            ":all:",
            "-d",
            str(CACHE),
            f"docker=={RELEASE}",
        ]
        subprocess.run([sys.executable, "-m", "pip", *words], stderr=subprocess.DEVNULL, check=False)


def unpack(folder: Path) -> Path:
    """The tests, unpacked below `folder`, beside an empty stand-in for the ssh library that they import."""
    assert hashlib.sha256(ARCHIVE.read_bytes()).hexdigest() == SHA256
    with tarfile.open(ARCHIVE) as archive:
        wanted = [one for one in archive if f"docker-{RELEASE}/tests/" in one.name and not one.islnk()]
        archive.extractall(folder, wanted, filter="data")
    suite = folder / f"docker-{RELEASE}"
    (suite / "paramiko.py").write_text("class Channel: ...\n")
    return suite


def available() -> bool:
    """Whether the archive is there."""
    return os.access(ARCHIVE, os.R_OK)
