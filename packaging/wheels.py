#!/usr/bin/env python3
"""The Python packages that the .deb carries: pinned by hash, fetched by pip, unpacked for each Python.

`wheels.lock` is a requirements file in pip's hash-checking mode: what it does not name gets into no .deb.
`packaging/wheels.py --lock` writes it anew from what pyproject.toml asks for.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "packaging/wheels.lock"
PYTHONS = ("3.11", "3.12", "3.13")  # Debian 12, Ubuntu 24.04, Debian 13
PROCESSORS = {"amd64": "x86_64", "arm64": "aarch64"}
GLIBC = ("manylinux2014", "manylinux_2_28")  # Debian 12 has 2.36
# cffi's half of zstandard is for PyPy; CPython never loads its 12 MB.
LEFT_OUT = re.compile(r"zstandard/(_cffi\..*\.so|backend_cffi\.py)")


class PackagingError(Exception):
    """Why there is no package, in one line."""


def fetched(cache: Path, architecture: str, python: str, offline: bool = False) -> list[Path]:
    """The wheels for one Python, from the cache or the package index.

    Args:
        cache: a directory; what an older lock asked for stays there beside it.
        architecture: Debian's name of it.
        python: as in `PYTHONS`.
        offline: fail instead of asking the index.

    Raises:
        PackagingError: they cannot be had, or one is not what the lock names.
    """
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    place = cache / digest / f"{architecture}-{python}"
    if not place.is_dir():
        if offline:
            raise PackagingError(
                f"the wheels for Python {python} are not in {cache}: run packaging/wheels.py"
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
            _download(Path(scratch, "got"), architecture, python, "--require-hashes", "-r", str(LOCK))
            if not place.exists():
                Path(scratch, "got").rename(place)
    wheels = sorted(place.glob("*.whl"))
    known = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", LOCK.read_text()))
    for wheel in wheels:
        if hashlib.sha256(wheel.read_bytes()).hexdigest() not in known:
            raise PackagingError(f"{wheel} is not what {LOCK.name} names: remove it")
    return wheels


def _download(target: Path, architecture: str, python: str, *what: str) -> None:
    platforms = [f"--platform={glibc}_{PROCESSORS[architecture]}" for glibc in GLIBC]
    command = [_with_pip(), "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "-q"]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *platforms]
    done = subprocess.run([*command, "-d", str(target), *what], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no output"]
        raise PackagingError(f"pip download for Python {python}: {lines[-1]}")


def _with_pip() -> str:
    """This Python, or the checkout's environment: Debian's own has no pip until it is asked for."""
    for python in (sys.executable, str(ROOT / ".venv/bin/python")):
        try:
            subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    raise PackagingError("needs pip: apt-get install python3-pip, or run ./sampan once, which makes .venv")


def unpack(wheel: Path, target: Path) -> None:
    """Unpack one wheel (the binary distribution format's specification) below a site-packages.

    Raises:
        PackagingError: it has files that belong elsewhere, scripts for example.
    """
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            path = PurePosixPath(info.filename)
            if path.is_absolute() or ".." in path.parts or path.parts[0].endswith(".data"):
                raise PackagingError(f"{wheel.name} has {info.filename}, which has no place in the package")
            if info.is_dir() or LEFT_OUT.fullmatch(info.filename):
                continue
            file = target / path
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, file.open("xb") as copy:
                shutil.copyfileobj(source, copy)
            file.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)


def requirements() -> list[str]:
    """What pyproject.toml asks for, with what is optional there: nobody can add to a package later."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["ui"]]


def lock() -> str:
    """What the requirements come to today, for every Python and processor."""
    wanted = requirements()
    found: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for architecture in PROCESSORS:
            for python in PYTHONS:
                place = Path(scratch, f"{architecture}-{python}")
                _download(place, architecture, python, *wanted)
                for wheel in place.iterdir():
                    name, version = wheel.name.split("-")[:2]
                    pin = f"{name.replace('_', '-')}=={version}"
                    found.setdefault(pin, set()).add(hashlib.sha256(wheel.read_bytes()).hexdigest())
    names = [pin.split("==")[0] for pin in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise PackagingError(f"not the same version for every Python: {', '.join(sorted(twice))}")
    lines = ["# Written by packaging/wheels.py --lock: what the .deb carries."]
    for pin in sorted(found):
        lines.append(" \\\n    ".join([pin, *(f"--hash=sha256:{digest}" for digest in sorted(found[pin]))]))
    return "\n".join(lines) + "\n"


def main() -> int:
    """Fetch the wheels, or renew the lock."""
    parser = argparse.ArgumentParser(description="The Python packages that the .deb carries.")
    parser.add_argument("--lock", action="store_true", help="write wheels.lock anew")
    parser.add_argument("--architecture", choices=PROCESSORS, default="amd64")
    parser.add_argument("--cache", type=Path, default=ROOT / "dist/wheels", metavar="DIRECTORY")
    given = parser.parse_args()
    try:
        if given.lock:
            LOCK.write_text(lock())
            return 0
        for python in PYTHONS:
            for wheel in fetched(given.cache, given.architecture, python):
                print(wheel)
    except PackagingError as error:
        print(f"wheels: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
