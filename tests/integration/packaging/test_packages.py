"""Sampan's packages in clean Debian roots without a network, which are containers of Sampan's themselves."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from sampan import __version__
from support import pages
from support.cli import Result
from support.engine import Daemon
from support.images import RELEASES, busybox_tar, import_file, machine_tar
from support.machine import eventually
from support.needs import program
from support.packages import NEWER, PACKAGING, built, publish, signing_key, wheel_cache

pytestmark = [pytest.mark.daemon, pytest.mark.timeout(300)]

APT = "apt-get -q -y -o APT::Sandbox::User=root"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two versions, signed; and beside it the same with an index that somebody has changed."""
    place = tmp_path_factory.mktemp("packages")
    first, second = built(place / "first"), built(place / "second", NEWER)
    directory = place / "repository"
    with signing_key() as environment:
        publish(environment, directory, first["sampan"], first["sampan-docker"])
        publish(environment, directory, second["sampan"])
    shutil.copytree(directory / "dists", directory / "changed/dists")
    for index in (directory / "changed/dists/stable/main/binary-amd64").rglob("*"):
        if index.is_file():
            index.write_bytes(index.read_bytes() + b"\n")
    (directory / "busybox.tar").write_bytes(busybox_tar())
    yield directory
    shutil.rmtree(place)


@dataclass
class Root:
    """A Debian that a container is, and shell scripts in it."""

    daemon: Daemon
    name: str

    def __call__(self, script: str, code: int | None = 0) -> Result:
        words = ("exec", "-e", "DEBIAN_FRONTEND=noninteractive", self.name, "bash", "-euc", script)
        return self.daemon.docker(*words, code=code, timeout=200)

    def out(self, script: str) -> str:
        """What a script prints."""
        return self(script).out.strip()


@pytest.fixture(scope="module")
def make_root(daemon: Daemon, repository: Path) -> Iterator[Callable[..., Root]]:
    images: set[str] = set()
    made: list[str] = []

    def make(release: str, *words: str, command: tuple[str, ...] = ("sleep", "infinity")) -> Root:
        image = f"machine-{release}"
        if image not in images:
            import_file(daemon.api, image, machine_tar(release))
            images.add(image)
        name = f"root-{release}-{len(made)}"
        made.append(name)
        mounts = ("-v", f"{repository}:/repository:ro", "-v", "/var/lib/sampan")
        options = ("--privileged", "--network", "none", *mounts, *words)
        daemon.docker("run", "-d", "--name", name, *options, image, *command)
        return Root(daemon, name)

    yield make
    for name in made:
        daemon.docker("rm", "-f", "-v", name)
    for image in images:
        daemon.docker("rmi", image)


@cache
def source() -> str:
    """What the page of installation has people type to add a repository, for one on a disk."""
    (block,) = (one.text for one in pages.page("installation").blocks if "sampan.sources" in one.text)
    adding = block[: block.index("apt-get update")].replace("https://HOST", "file:/repository")
    return f"""
echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/quick
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
mkdir -p /etc/apt/keyrings
curl() {{ cp "${{3#file:}}" "$2"; }}
{adding}
"""


FIND = "find / -xdev -name '*sampan*' -not -path '/repository/*' -not -path '/proc/*'"
SYSTEMD = ("--tmpfs", "/run", "--tmpfs", "/run/lock", "-e", "container=docker")
# What dpkg tells when the distribution's Python becomes another one.
NEW_PYTHON = """
rm -r /usr/lib/sampan/packages/sampan/__pycache__
dpkg-trigger --by-package=python3-minimal /usr/bin/python3
dpkg --configure --pending
test -d /usr/lib/sampan/packages/sampan/__pycache__
"""


# What the first Tab makes of "sampan ru" in a shell that has loaded nothing of ours by itself.
COMPLETED = """
. /usr/share/bash-completion/bash_completion
_completion_loader sampan || test $? = 124
COMP_WORDS=(sampan ru) COMP_CWORD=1 COMP_LINE='sampan ru' COMP_POINT=9
__sampan_complete sampan ru sampan 2>/dev/null
echo ${COMPREPLY[0]}
"""


@pytest.fixture
def booted(make_root: Callable[..., Root]) -> Root:
    """Where systemd is process 1, of the release that knows every layout of cgroups."""
    root = make_root("bookworm", *SYSTEMD, command=("/lib/systemd/systemd",))
    wait = "systemctl is-system-running --wait"  # degraded: what a container has no terminals for
    eventually(lambda: root(wait, code=None).out.strip() in ("running", "degraded"), timeout=60)
    return root


@program("gpg")
@pytest.mark.parametrize("release", RELEASES)
def test_from_a_repository_to_the_purge(
    make_root: Callable[..., Root], release: str, request: pytest.FixtureRequest
) -> None:
    """One life of an installation: a chosen version, an upgrade under a running container, the end."""
    systemd = release == "bookworm"  # elsewhere the command starts the daemon
    root = request.getfixturevalue("booted") if systemd else make_root(release)
    root(source())
    before = set(root.out(FIND).splitlines())

    root("sed -i s,/repository,/repository/changed, /etc/apt/sources.list.d/sampan.sources")
    refused = root(f"{APT} update", code=None)
    assert refused.code != 0 and "Hash Sum mismatch" in refused.err, refused.out + refused.err

    said = root(f"{source()} {APT} update && {APT} install --no-install-recommends sampan={__version__}")
    assert "W:" not in said.err and "E:" not in said.err, said.err
    versions = root.out("for name in sampan sampand sampan-runtime; do $name --version; done")
    assert versions.count(f"version {__version__}") == 3
    carried = "bcrypt, cryptography.x509, h11, isal.igzip, jinja2, jwt, textual.app, urllib3, zstandard"
    root(f"/usr/lib/sampan/bin/python3 -I -c 'import {carried}'")
    if systemd:
        assert root.out("systemctl is-enabled sampan.socket sampan.service") == "enabled\nenabled"
        assert root.out("systemctl is-active sampan.socket sampan.service") == "active\nactive"
        assert root.out("cat /proc/sys/fs/inotify/max_user_instances") == "1024"
    assert "Sampan" in root.out("sampan run --rm hello-world")
    assert root.out("stat -c '%U:%G %a' /run/sampan/sampan.sock") == "root:sampan 660"
    assert root.out("dpkg --verify sampan") == ""
    assert root.out("find /usr/lib/sampan/packages/sampan -name '*.pyc' | head -n 1")
    page = root.out("MANWIDTH=100 LC_ALL=C.UTF-8 man sampan-run")
    assert "sampan run [OPTIONS] IMAGE [COMMAND] [ARG...]" in page and "-m, --memory bytes" in page
    assert "--default-address-pool" in root.out("MANWIDTH=100 LC_ALL=C.UTF-8 man sampand")
    assert "sampan-run" in root.out("LC_ALL=C.UTF-8 man -k sampan-run"), "the index has it"
    assert root.out(COMPLETED) == "run"
    assert root.out("ls /usr/share/doc/sampan/tutorial") == "en.md\nzh.md"

    root("sampan import /repository/busybox.tar busybox")
    root("sampan run -d --name lives -p 80:80 busybox sleep 999")
    process = root.out("sampan inspect -f '{{.State.Pid}}' lives")
    daemon = root.out("cat /run/sampan/sampand.pid")
    # The other way, which asks nobody but the file.
    root(f"dpkg -i /repository/pool/sampan_{__version__}{NEWER}_amd64.deb")
    assert root.out("dpkg-query -W -f '${Version}' sampan") == __version__ + NEWER
    assert root.out("sampan exec lives echo still here") == "still here"
    assert root.out("sampan inspect -f '{{.State.Pid}}' lives") == process
    assert root.out("cat /run/sampan/sampand.pid") != daemon
    if systemd:
        root("systemctl stop sampan.service")
        assert root.out(f"cat /proc/{process}/comm") == "sleep"
        assert root.out("sampan ps --format '{{.Names}}'") == "lives", "by the socket"
        assert root.out("systemctl is-active sampan.service") == "active"
    else:
        daemon = root.out("cat /run/sampan/sampand.pid")
        root(NEW_PYTHON)
        assert "lives" in root.out("sampan ps") and root.out("cat /run/sampan/sampand.pid") != daemon
        root(f"{APT} install --no-install-recommends sampan-docker")
        assert "Sampan" in root.out("docker -H unix:///run/docker.sock run --rm hello-world")

    removed = root(f"{APT} purge sampan sampan-docker && test ! -d /proc/{process}")
    assert "are left in /var/lib/sampan" in removed.out + removed.err
    assert set(root.out(FIND).splitlines()) == before
    root("! command -v docker && test ! -L /run/docker.sock")
    assert root.out("ls /var/lib/sampan/sampan.db")
    assert root("getent group sampan", code=None).code == 2
    assert root.out("ls /sys/class/net") == "lo"
    assert root.out("cat /proc/*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c '[s]ampan/' || true") == "0"

    if systemd:
        return  # what comes last is the same everywhere
    root(f"dpkg -i /repository/pool/sampan_{__version__}_amd64.deb")
    assert "busybox" in root.out("sampan images")
    root(f"echo sampan sampan/purge-data boolean true | debconf-set-selections; {APT} purge sampan")
    assert root.out("ls -A /var/lib/sampan") == ""


def test_the_same_source_gives_the_same_packages(repository: Path, tmp_path: Path) -> None:
    words = [sys.executable, PACKAGING / "build_deb.py", "--output", tmp_path, "--wheels", wheel_cache()]
    build = shlex.join(map(str, [*words, "--offline", "--compression", "zstd"]))
    done = subprocess.run(["sh", "-c", f"umask 077; TZ=Asia/Tokyo {build}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for path in map(Path, done.stdout.split()):
        assert path.read_bytes() == (repository / "pool" / path.name).read_bytes(), path.name


@program("gpg")
def test_a_version_is_never_replaced(repository: Path, tmp_path: Path) -> None:
    name = f"sampan-docker_{__version__}_all.deb"
    (tmp_path / name).write_bytes(b"another")
    with signing_key() as environment:
        command = [sys.executable, PACKAGING / "build_repository.py", repository, tmp_path / name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("is there with other content: give the new one another version\n")
