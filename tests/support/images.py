"""The root file systems that tests run: a busybox made here, the Debians of tools/roots.py."""

from __future__ import annotations

import functools
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from support.api import Api

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import roots
from machine import NoMachine

RELEASES = roots.RELEASES

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


def debian_tar() -> Path:
    """The smallest Debian, of the machine's own release."""
    return _or_skip(roots.small)


def machine_tar(release: str) -> Path:
    """A Debian that can be booted, of a certain release; users can have daemons in the newest."""
    return _or_skip(lambda: roots.bootable(release))


def _or_skip(made: Callable[[], Path]) -> Path:
    try:
        return made()
    except NoMachine as lack:
        pytest.skip(str(lack))


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
