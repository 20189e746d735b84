#!/usr/bin/env python3
"""Puts packages into a repository for apt, and signs it: static files for any web server, or for `file:`.

    packaging/build_repository.py [--key KEY] DIRECTORY [sampan_….deb …]

Packages that are in DIRECTORY/pool already stay, so that older versions can be had (`apt-get install
sampan=VERSION`). The format is that of Debian's own archive (sources.list(5), apt-secure(8)): one suite
`stable`, one component `main`. What clients look at first is written last, and old indexes stay by their
hash, so that a client never meets a half-made state. `sampan.asc` is the public key, `sampan.sources` a
model of what goes to /etc/apt/sources.list.d.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

from wheels import PackagingError

SUITE, COMPONENT = "stable", "main"
ARCHITECTURES = ("amd64", "arm64")
SOURCES = """Types: deb
URIs: URL
Suites: {suite}
Components: {component}
Signed-By: /etc/apt/keyrings/sampan.asc
"""


def publish(directory: Path, packages: list[Path], key: str = "") -> None:
    """Add packages to the repository and sign its new state.

    Args:
        directory: the repository, made if missing.
        packages: .deb files.
        key: which of gpg's secret keys signs; "" is its own choice.

    Raises:
        PackagingError: gpg or dpkg-deb says no, or another file of that name and version is there.
    """
    pool = directory / "pool"
    pool.mkdir(parents=True, exist_ok=True)
    for package in packages:
        _add(pool, package)
    entries = {package: _entry(directory, package) for package in sorted(pool.glob("*.deb"))}
    suite = directory / "dists" / SUITE
    indexes: dict[str, bytes] = {}
    for architecture in ARCHITECTURES:
        wanted = [
            text for path, text in entries.items() if path.stem.rpartition("_")[2] in (architecture, "all")
        ]
        content = "\n".join(wanted).encode()
        place = f"{COMPONENT}/binary-{architecture}"
        indexes[f"{place}/Packages"] = content
        indexes[f"{place}/Packages.gz"] = gzip.compress(content, mtime=0)
    for name, content in indexes.items():
        path = suite / name
        _put(path.parent / "by-hash/SHA256" / hashlib.sha256(content).hexdigest(), content)
        _put(path, content)
    release = _release(indexes).encode()
    signed = {
        "Release": release,
        "Release.gpg": _gpg(key, release, "--armor", "--detach-sign"),
        "InRelease": _gpg(key, release, "--clear-sign"),
    }
    _put(directory / "sampan.asc", _gpg(key, b"", "--armor", "--export", *([key] if key else [])))
    _put(directory / "sampan.sources", SOURCES.format(suite=SUITE, component=COMPONENT).encode())
    for name, content in signed.items():
        _put(suite / name, content)


def _add(pool: Path, package: Path) -> None:
    there = pool / package.name
    if not there.exists():
        part = there.with_name(f".{there.name}")
        shutil.copyfile(package, part)
        part.replace(there)
    elif there.read_bytes() != package.read_bytes():
        raise PackagingError(f"{there} is there with other content: give the new one another version")


def _entry(directory: Path, package: Path) -> str:
    """One paragraph of Packages: the package's own fields, and where its file is."""
    done = subprocess.run(["dpkg-deb", "-f", str(package)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PackagingError(f"{package}: {done.stderr.strip()}")
    content = package.read_bytes()
    where = f"Filename: {package.relative_to(directory)}\nSize: {len(content)}\n"
    return f"{done.stdout.rstrip()}\n{where}SHA256: {hashlib.sha256(content).hexdigest()}\n"


def _release(indexes: dict[str, bytes]) -> str:
    moment = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    lines = [
        "Origin: Sampan",
        "Label: Sampan",
        f"Suite: {SUITE}",
        f"Codename: {SUITE}",
        f"Date: {formatdate(moment, usegmt=True).replace('GMT', 'UTC')}",
        f"Architectures: {' '.join(ARCHITECTURES)}",
        f"Components: {COMPONENT}",
        "Acquire-By-Hash: yes",
        "SHA256:",
    ]
    for name, content in sorted(indexes.items()):
        lines.append(f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}")
    return "\n".join(lines) + "\n"


def _gpg(key: str, content: bytes, *verb: str) -> bytes:
    chosen = ["--local-user", key] if key else []
    command = ["gpg", "--batch", "--digest-algo", "SHA512", *chosen, *verb]
    try:
        done = subprocess.run(command, input=content, capture_output=True, check=False)
    except FileNotFoundError:
        raise PackagingError("needs the program gpg (Debian: gpg)") from None
    if done.returncode != 0 or not done.stdout:
        raise PackagingError(f"gpg: {done.stderr.decode(errors='replace').strip() or 'has no such key'}")
    return done.stdout


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def main() -> int:
    """The command line above."""
    parser = argparse.ArgumentParser(description="Put packages into a signed repository for apt.")
    parser.add_argument("--key", default="", help="which of gpg's keys signs")
    parser.add_argument("directory", type=Path)
    parser.add_argument("packages", type=Path, nargs="*", metavar="PACKAGE")
    given = parser.parse_args()
    try:
        publish(given.directory, given.packages, given.key)
    except (PackagingError, OSError) as error:
        print(f"build_repository: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
