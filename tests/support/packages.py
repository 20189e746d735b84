"""The packages under test, built from what lies in the cache, and a signed repository of them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.images import cache_directory

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGING = ROOT / "packaging"
sys.path.insert(0, str(PACKAGING))

import build_deb  # noqa: E402  (the path comes first)
import wheels  # noqa: E402

NEWER = "+test1"  # sorts after the version itself


def wheel_cache() -> Path:
    """Where wheels are kept between runs."""
    return cache_directory() / "wheels"


def build_cache() -> Path:
    """Where the wheels lie that make ours out of the source."""
    return wheel_cache() / "build"


def python_wheels() -> Path:
    """The wheels for the Python that runs us; skips without them."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    try:
        return wheels.fetched(wheel_cache(), "amd64", python, offline=True)[0].parent
    except wheels.PackagingError as error:
        pytest.skip(str(error))


def fetch() -> None:
    """Get the wheels of the packages, and what a build of our own wheel needs."""
    for python in wheels.PYTHONS:
        wheels.fetched(wheel_cache(), "amd64", python)
    if any(build_cache().glob("hatchling-*.whl")):
        return
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q"]
    subprocess.run([*command, "--only-binary=:all:", "-d", str(build_cache()), "hatchling"], check=True)


def built(output: Path, suffix: str = "") -> dict[str, Path]:
    """Build the packages, quickly rather than small; their files by name."""
    try:
        made = build_deb.build(output, wheel_cache(), "amd64", suffix, "zstd", offline=True)
    except wheels.PackagingError as error:
        pytest.skip(f"no packages: {error}")
    return {path.name.partition("_")[0]: path for path in made}


@contextmanager
def signing_key() -> Iterator[dict[str, str]]:
    """A key of gpg's for one test: the environment in which gpg has it."""
    with tempfile.TemporaryDirectory(prefix="gpg-") as home:  # an agent's socket wants a short path
        environment = {"GNUPGHOME": home, "PATH": "/usr/local/bin:/usr/bin:/bin"}
        make = ["gpg", "--batch", "--passphrase", "", "--quick-generate-key", "tests", "ed25519", "sign", "0"]
        try:
            subprocess.run(make, env=environment, check=True, capture_output=True)
            yield environment
        finally:
            subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=False)


def publish(environment: dict[str, str], directory: Path, *packages: Path) -> None:
    """Put packages into a repository."""
    command = [sys.executable, str(PACKAGING / "build_repository.py"), str(directory), *map(str, packages)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
