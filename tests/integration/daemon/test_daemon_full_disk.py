"""A data root that is full: a plain error, nothing half-made, and all goes on once there is room again."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.engine import Daemon
from support.machine import eventually, mounts


@pytest.fixture
def small(make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """A daemon whose data root holds 160 MB."""
    daemon = make_daemon()
    daemon.data_root.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "small", str(daemon.data_root)], check=True)
    daemon.start()
    assert daemon.busybox
    yield daemon
    (daemon.data_root / "filler").unlink(missing_ok=True)
    daemon.end()
    subprocess.run(["umount", str(daemon.data_root)], check=True)


def fill(daemon: Daemon) -> Path:
    """Leave no byte; called again, take what has become free."""
    filler = daemon.data_root / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass
    return filler


def one_line(said: str) -> str:
    first, _, rest = said.partition("\n")
    hints = ("", "\nRun 'docker run --help' for more information\n", "See 'docker run --help'.\n")
    assert rest in hints, said
    return first


def directories(daemon: Daemon) -> list[str]:
    return [
        path.name for kind in ("overlay2", "vfs") for path in daemon.data_root.glob(f"{kind}/containers/*")
    ]


def test_create(small: Daemon) -> None:
    filler = fill(small)
    done = small.docker("create", "--name", "none", small.busybox, "true", code=1)
    assert "no space" in one_line(done.err).lower()
    assert small.api.containers() == []
    filler.unlink()
    assert small.docker("run", "--name", "none", small.busybox, "echo", "ahoy").out == "ahoy\n"
    small.docker("rm", "none")
    eventually(lambda: directories(small) == [], what="no directory of a container is left")


def test_start_and_run(small: Daemon) -> None:
    small.docker("create", "--name", "waits", small.busybox, "echo", "ahoy")
    before = mounts(str(small.base))
    filler = fill(small)
    done = small.docker("start", "-a", "waits", code=None)
    if done.code:  # a start that needs no block may well succeed
        assert "no space" in done.err.lower()
        assert small.api.inspect("waits")["State"]["Status"] == "created"
    eventually(lambda: mounts(str(small.base)) == before, what="the mounts of that start are gone")
    fill(small)
    refused = small.docker("run", "--rm", small.busybox, "true", code=125)
    assert "no space" in one_line(refused.err).lower()
    eventually(lambda: mounts(str(small.base)) == before, what="no mount is left")
    filler.unlink()
    assert small.docker("start", "-a", "waits").out == "ahoy\n"
    small.docker("rm", "waits")


def test_load(small: Daemon, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    small.docker("save", "-o", str(archive), small.busybox)
    small.docker("rmi", small.busybox)
    known = sorted(small.data_root.rglob("*"))
    filler = fill(small)
    done = small.docker("load", "-i", str(archive), code=1)
    assert "no space" in one_line(done.err).lower()
    filler.unlink()
    eventually(lambda: len([p for p in small.data_root.rglob("*") if p.is_file()]) <= len(known))
    assert "busybox" not in small.docker("images").out
    small.docker("load", "-i", str(archive))
    assert small.docker("run", "--rm", small.busybox, "echo", "ahoy").out == "ahoy\n"


def test_what_a_container_writes_is_its_own_trouble(small: Daemon) -> None:
    done = small.docker(
        "run",
        "--name",
        "greedy",
        small.busybox,
        "sh",
        "-c",
        "cat /dev/zero >/x; echo $?; rm /x; echo on",
        code=None,
    )
    assert done.out == "1\non\n"
    assert small.answers()
    small.docker("rm", "greedy")
