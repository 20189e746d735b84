"""Debian's root file systems for the tests, as tars in a cache: made once, from where apt fetches.

Stdlib only; run by the system's Python, as root.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from machine import NoMachine, cache

# The releases that Sampan's packages are for, and what a root has to have before they come.
RELEASES = ("bookworm", "trixie")
INSTALLED = ("bash-completion", "kmod", "man-db", "python3", "systemd-sysv")
# For daemons without root.
FOR_USERS = ("dbus", "dbus-user-session", "libpam-systemd", "slirp4netns", "uidmap")
SMALL = ("attr", "libcap2-bin")
# What no test reads, and each would unpack.
UNREAD = ("/usr/share/doc/*", "/usr/share/locale/*")


def suite() -> str:
    """The Debian suite to bootstrap: the machine's own where that is Debian."""
    facts = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    own = facts.get("VERSION_CODENAME", "").strip('"')
    return own if facts.get("ID", "").strip('"') == "debian" and own else "bookworm"


def small() -> Path:
    """The smallest Debian, of the machine's own release, as people make it: by debootstrap.

    Raises:
        NoMachine: there is no debootstrap.
        subprocess.CalledProcessError: it failed.
    """
    return _kept(f"debian-{suite()}.tar", "debootstrap", lambda part: _debootstrap(suite(), SMALL, part))


def bootable(release: str) -> Path:
    """A Debian that can be booted, of a certain release; users can have daemons in the newest.

    Made by mmdebstrap, which takes less than half the time.

    Raises:
        NoMachine: there is no mmdebstrap.
        subprocess.CalledProcessError: it failed.
    """
    packages = (*INSTALLED, *FOR_USERS) if release == RELEASES[-1] else INSTALLED
    command = [
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}"),
        '--aptopt=DPkg::Options "--force-unsafe-io"',
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in UNREAD),
        '--customize-hook=rm "$1"/etc/*/*.d/99mmdebstrap',  # these options are not the root's own
        release,
    ]
    return _kept(f"bootable-{release}.tar", "mmdebstrap", lambda part: _run([*command, str(part)]))


def _kept(name: str, program: str, make: Callable[[Path], None]) -> Path:
    kept = cache() / name
    if kept.exists():
        return kept
    if shutil.which(program) is None:
        raise NoMachine(f"needs the program {program} (Debian: {program})")
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            part = kept.with_name(f"part-{name}")  # its end tells programs what is to be written
            make(part)
            part.rename(kept)
    return kept


def _debootstrap(release: str, packages: tuple[str, ...], part: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache()) as scratch:
        root = Path(scratch, "root")
        _run(["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", release, str(root)])
        shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
        shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
        pack = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", str(root), "-cf"]
        _run([*pack, str(part), "."])


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode != 0:
        print(done.stdout[-4000:].decode(errors="replace"), flush=True)
        done.check_returncode()
