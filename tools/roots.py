"""Debian's root file systems for the tests, as tars in a cache: made once, from where apt fetches.

Stdlib only; run by the system's Python, as root.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path

from machine import NoMachine, cache

# The releases that Sampan's packages are for, and what a root has to have before they come.
RELEASES = ("bookworm", "trixie")
INSTALLED = ("bash-completion", "kmod", "man-db", "python3", "systemd-sysv")
# For daemons without root.
FOR_USERS = ("dbus", "dbus-user-session", "libpam-systemd", "slirp4netns", "uidmap")
SMALL = ("attr", "libcap2-bin")
# Where /bin is made a link beforehand, else a package with all of Perl does it.
TO_MERGE = ("bookworm",)
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
    """The smallest Debian, of the machine's own release.

    Raises:
        NoMachine: there is no mmdebstrap.
        subprocess.CalledProcessError: it failed.
    """
    return _kept(f"small-{suite()}.tar", suite(), SMALL)


def bootable(release: str) -> Path:
    """A Debian that can be booted, of a certain release; users can have daemons in the newest.

    Raises:
        NoMachine: there is no mmdebstrap.
        subprocess.CalledProcessError: it failed.
    """
    packages = (*INSTALLED, *FOR_USERS) if release == RELEASES[-1] else INSTALLED
    return _kept(f"bootable-{release}.tar", release, packages)


def _kept(name: str, release: str, packages: tuple[str, ...]) -> Path:
    kept = cache() / name
    if kept.exists():
        return kept
    if shutil.which("mmdebstrap") is None:
        raise NoMachine("needs the program mmdebstrap (Debian: mmdebstrap)")
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            part = kept.with_name(f"part-{name}")  # its end tells programs what is to be written
            _make(release, packages, part)
            part.rename(kept)
    return kept


def _make(release: str, packages: tuple[str, ...], part: Path) -> None:
    """By mmdebstrap, which takes half the time of debootstrap, in memory, which takes a quarter off that."""
    if release in TO_MERGE:
        packages = (*packages, "usr-is-merged")
    command = [
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}"),
        *(["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"] if release in TO_MERGE else []),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in UNREAD),
        '--customize-hook=rm "$1"/etc/*/*.d/99mmdebstrap',  # these options are not the root's own
        *(release, str(part)),
    ]
    with tempfile.TemporaryDirectory(dir=cache()) as scratch:  # the mount goes with the namespace
        within = 'mount -t tmpfs -o mode=755 none "$TMPDIR" && exec "$@"'
        _run(["unshare", "--mount", "env", f"TMPDIR={scratch}", "sh", "-c", within, "sh", *command])


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode != 0:
        print(done.stdout[-4000:].decode(errors="replace"), flush=True)
        done.check_returncode()
