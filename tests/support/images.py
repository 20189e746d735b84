"""The root file systems that tests run: a busybox made here, a Debian made by debootstrap and kept."""

from __future__ import annotations

import fcntl
import functools
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from support.api import Api

PASSWD = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
alice:x:1000:1000:Alice:/home/alice:/bin/sh
bob:x:1001:50::/nonexistent:/bin/sh
nobody:x:65534:65534:nobody:/home:/bin/false
"""
GROUP = """root:x:0:
daemon:x:1:
audio:x:29:alice
staff:x:50:
plugdev:x:46:bob,alice
alice:x:1000:
nobody:x:65534:
"""


def _entry(name: str, mode: int, kind: bytes = tarfile.REGTYPE, uid: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.uid, info.gid, info.mtime = kind, mode, uid, uid, 1_700_000_000
    return info


@functools.cache
def busybox_tar() -> bytes:
    """A root file system around this machine's static busybox."""
    program = shutil.which("busybox")
    if program is None:
        pytest.skip("needs the program busybox (Debian: busybox-static)")
    binary = Path(program).read_bytes()
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for folder in ("bin", "dev", "etc", "home", "root", "usr", "usr/bin", "var"):
            archive.addfile(_entry(folder, 0o755, tarfile.DIRTYPE))
        archive.addfile(_entry("tmp", 0o1777, tarfile.DIRTYPE))
        archive.addfile(_entry("home/alice", 0o755, tarfile.DIRTYPE, 1000))
        for name, text in (("etc/passwd", PASSWD), ("etc/group", GROUP), ("etc/plain", "not a program\n")):
            info = _entry(name, 0o644)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
        info = _entry("bin/busybox", 0o755)
        info.size = len(binary)
        archive.addfile(info, io.BytesIO(binary))
        for applet in sorted(set(applets) - {"busybox"}):
            link = _entry(f"bin/{applet}", 0o777, tarfile.SYMTYPE)
            link.linkname = "busybox"
            archive.addfile(link)
    return out.getvalue()


def cache_directory() -> Path:
    """Where what is dear to make is kept between runs, outside the checkout."""
    home = os.environ.get("XDG_CACHE_HOME") or ("/var/cache" if os.geteuid() == 0 else "~/.cache")
    directory = Path(home).expanduser() / "sampan-test"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def suite() -> str:
    """The Debian suite to bootstrap: the machine's own where that is Debian."""
    facts = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    own = facts.get("VERSION_CODENAME", "").strip('"')
    return own if facts.get("ID", "").strip('"') == "debian" and own else "bookworm"


# The releases of Debian that Sampan's packages are for, and what a root has to have before they come.
RELEASES = ("bookworm", "trixie")
INSTALLED = ("bash-completion", "kmod", "man-db", "python3", "systemd-sysv")
# For daemons without root.
FOR_USERS = ("dbus", "dbus-user-session", "libpam-systemd", "slirp4netns", "uidmap")


def debian_tar() -> Path:
    """The smallest Debian, of the machine's own release, as people make it: by debootstrap."""
    name = f"debian-{suite()}.tar"
    return _kept(name, "debootstrap", lambda part: _debootstrap(suite(), ("attr", "libcap2-bin"), part))


def machine_tar(release: str) -> Path:
    """A Debian that can be booted, of a certain release; users can have daemons in the newest.

    Made by mmdebstrap, which takes less than half the time.
    """
    packages = (*INSTALLED, *FOR_USERS) if release == RELEASES[-1] else INSTALLED
    command = [
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}"),
        *('--aptopt=DPkg::Options "--force-unsafe-io"', release),
    ]
    name = f"{'-'.join((release, *packages))}.tar"
    return _kept(name, "mmdebstrap", lambda part: _run([*command, str(part)]))


def _kept(name: str, program: str, make: Callable[[Path], None]) -> Path:
    """A file that is made once and kept."""
    if shutil.which(program) is None:
        pytest.skip(f"needs the program {program} (Debian: {program})")
    kept = cache_directory() / name
    if kept.exists():
        return kept
    with (cache_directory() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            part = kept.with_name(f"part-{name}")  # its end tells programs what is to be written
            make(part)
            part.rename(kept)
    return kept


def _debootstrap(release: str, packages: tuple[str, ...], part: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
        root = Path(scratch, "root")
        include = f"--include={','.join(packages)}"
        _run(["debootstrap", "--variant=minbase", include, release, str(root)])
        shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
        shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
        pack = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", str(root), "-cf"]
        _run([*pack, str(part), "."])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = f"{done.stdout[-2000:]}{done.stderr[-500:]}"
        pytest.fail(f"{command[0]}: {said}", pytrace=False)


def import_tar(api: Api, repository: str, body: bytes | Iterator[bytes], *changes: str) -> None:
    """`docker import` by the API alone."""
    query = urlencode(
        [("fromSrc", "-"), ("repo", repository), ("tag", "latest")] + [("changes", c) for c in changes]
    )
    answer = api(
        "POST", f"/images/create?{query}", body, headers={"Content-Type": "application/x-tar"}, timeout=300
    )
    assert answer.status == 200, answer.body
    assert b'"errorDetail"' not in answer.body, answer.body


def import_busybox(api: Api) -> None:
    """Give an engine the busybox image."""
    import_tar(api, "busybox", busybox_tar(), 'CMD ["sh"]')


def import_debian(api: Api) -> None:
    """Give an engine the Debian image."""
    import_file(api, "debian", debian_tar(), 'CMD ["bash"]')


def import_file(api: Api, repository: str, path: Path, *changes: str) -> None:
    """Give an engine what is in a tar."""

    def pieces() -> Iterator[bytes]:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                yield piece

    import_tar(api, repository, pieces(), *changes)
