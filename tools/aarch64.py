"""Runs the engine on an emulated AArch64 machine: a Debian for arm64 with its own kernel.

    tools/aarch64.py [COMMAND …]      # tests/machines/aarch64.sh by default

The root file system is made by debootstrap once and kept in the tests' cache: packages are unpacked and
none is configured, since nothing of the other architecture runs here. Needs root, debootstrap, kmod,
qemu-system-arm and the checkout's own environment; five to ten minutes. See tools/machine.py for the rest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import machine

PACKAGES = "python3,python3-minimal,busybox-static,linux-image-arm64,iproute2,nftables,procps,kmod"
LIBRARIES = ("h11", "isal", "zstandard")  # those of pyproject.toml that running needs
PYTHON = machine.ROOT / ".venv/bin/python"
SUITE = "bookworm"


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        [str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise machine.NoMachine(f"{command[0]}: {(done.stderr or done.stdout)[-500:]}")


def root() -> Path:
    """The root file system, made when it is not there.

    Raises:
        machine.NoMachine: a tool is missing, or the packages cannot be fetched.
    """
    place = machine.cache() / "aarch64"
    if place.exists():
        return place
    for program in ("debootstrap", "depmod", "dpkg-deb"):
        if shutil.which(program) is None:
            raise machine.NoMachine(f"needs the program {program}")
    print("aarch64: making a root file system (once)", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=machine.cache()) as scratch:
        made = Path(scratch, "root")
        _run(
            "debootstrap",
            "--arch=arm64",
            "--foreign",
            "--variant=minbase",
            f"--include={PACKAGES}",
            SUITE,
            made,
        )
        archives = made / "var/cache/apt/archives"
        for archive in sorted(archives.glob("*.deb")):
            _run("dpkg-deb", "-x", archive, made)
        shutil.rmtree(archives)
        (release,) = os.listdir(made / "lib/modules")
        _run("depmod", "-b", made, release)
        _libraries(made, Path(scratch, "wheels"))
        made.rename(place)
    return place


def _libraries(made: Path, wheels: Path) -> None:
    platforms = ["--platform", "manylinux2014_aarch64", "--platform", "manylinux_2_17_aarch64"]
    only = ["--python-version", "3.11", "--only-binary", ":all:", "--no-deps", "--dest"]
    _run(PYTHON, "-m", "pip", "download", "-q", *platforms, *only, wheels, *LIBRARIES)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(made / "usr/lib/python3/dist-packages")


def main() -> int:
    """The command line above; its exit status is the command's."""
    command = sys.argv[1:] or ["sh", "tests/machines/aarch64.sh"]
    try:
        place = root()
        (release,) = os.listdir(place / "lib/modules")
        booted = machine.Kernel(place, release, "aarch64")
        done = machine.run(command, booted=booted, root=place, echo=True, timeout_s=1800)
    except machine.NoMachine as error:
        print(f"aarch64: {error}", file=sys.stderr)
        return 125
    print(f"aarch64: {done.seconds:.0f} s", file=sys.stderr)
    return 125 if done.status is None else done.status


if __name__ == "__main__":
    sys.exit(main())
