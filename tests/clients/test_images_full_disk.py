"""A disk that is full in the middle of load, import, commit: a clear error, nothing left, all space back."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator

import pytest

from support.engine import Daemon
from support.images import import_busybox
from support.machine import eventually

DISK = 300 << 20
BIG = 170 << 20


@pytest.fixture(scope="module")
def own(make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """A daemon whose data root is a file system of 300 MB."""
    daemon = make_daemon()
    daemon.data_root.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", daemon.data_root], check=True)
    daemon.start()
    import_busybox(daemon.api)
    yield daemon
    daemon.end()
    subprocess.run(["umount", daemon.data_root], check=True)


def free(own: Daemon) -> int:
    space = os.statvfs(own.data_root)
    return space.f_bavail * space.f_frsize


def pieces(size: int) -> Iterator[bytes]:
    """A tar of one file of noise, as a stream."""
    head = tarfile.TarInfo("noise")
    head.size = size
    yield head.tobuf()
    noise = os.urandom(1 << 20)
    for _ in range(size >> 20):
        yield noise
    yield bytes(1024)


def nothing_left(own: Daemon, before: int) -> None:
    for place in ("content/ingest", "overlay2/stage"):
        assert os.listdir(own.data_root / place) == []
    eventually(lambda: free(own) > before - (1 << 20), what="the space is free again")
    assert own.sampan("system", "check").out.endswith("nothing is wrong\n")
    assert own.docker("run", "--rm", "busybox", "echo", "alive").out == "alive\n"


def ids(own: Daemon) -> set[str]:
    return {one["Id"] for one in own.api.get("/images/json?all=1")}


def test_import(own: Daemon) -> None:
    before, images = free(own), ids(own)
    answer = own.api("POST", "/images/create?fromSrc=-&repo=big", pieces(BIG))
    assert b"no space" in answer.body.lower(), answer.body
    assert ids(own) == images
    nothing_left(own, before)


def archive(size: int) -> Iterator[bytes]:
    """A docker archive with one layer of noise."""
    layer = b"".join(pieces(size))
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["big:1"], "Layers": ["l.tar"]}]).encode()
    for name, data in (("c.json", config), ("manifest.json", manifest), ("l.tar", layer)):
        head = tarfile.TarInfo(name)
        head.size = len(data)
        yield head.tobuf()
        for start in range(0, len(data), 1 << 20):
            yield data[start : start + (1 << 20)]
        yield bytes(-len(data) % 512)
    yield bytes(1024)


@pytest.mark.parametrize("size", [BIG, BIG + (100 << 20)])
def test_load(own: Daemon, size: int) -> None:
    """In the layer (the archive fits, what it unfolds to does not), and in the archive itself."""
    before, images = free(own), ids(own)
    answer = own.api("POST", "/images/load", archive(size))
    assert b"no space" in answer.body.lower(), answer.body
    assert ids(own) == images
    nothing_left(own, before)


def test_commit(own: Daemon) -> None:
    script = "dd if=/dev/urandom of=/noise bs=1M count=110"
    own.docker("run", "--name", "writer", "busybox", "sh", "-c", script)
    before, images = free(own), ids(own)
    refused = own.docker("commit", "writer", "big", code=1)
    assert "no space" in refused.err.lower()
    assert ids(own) == images
    nothing_left(own, before)
    own.docker("rm", "writer")
    eventually(lambda: free(own) > before + (100 << 20), what="the container's space is free again")


def test_the_end_of_a_container_on_a_full_disk(own: Daemon) -> None:
    """Nobody waits for ever, and the exit code is kept for when there is room again."""
    own.docker(
        "run", "-d", "--name", "filler", "busybox", "sh", "-c", "cat /dev/zero > /zeros; exit 7", timeout=120
    )
    assert own.docker("wait", "filler").out == "7\n"
    assert own.docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "filler").out == "exited 7\n"
    own.docker("rm", "filler")
    assert own.docker("run", "--rm", "busybox", "echo", "alive").out == "alive\n"


def test_no_byte_is_left(own: Daemon) -> None:
    """Even a tag needs a few bytes; it is refused in words, and works again once there are some."""
    before = free(own)
    filler = own.data_root / "filler"
    with filler.open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            pass
    said = []
    for number in range(3000):
        answer = own.api("POST", f"/images/busybox/tag?repo=many&tag={number}")
        if answer.status != 201:
            said.append(answer)
            break
    assert said, "the database never grew"
    assert said[0].status == 500
    assert "full" in said[0].message or "no space" in said[0].message.lower()
    assert own.api("GET", "/images/json").status == 200
    filler.unlink()
    assert own.api("POST", "/images/busybox/tag?repo=again&tag=1").status == 201
    assert own.sampan("system", "check").out.endswith("nothing is wrong\n")
    own.restart()
    assert own.api("GET", "/images/again:1/json").status == 200
    for one in own.api.get("/images/json"):
        for tag in one["RepoTags"]:
            if not tag.startswith("busybox"):
                own.api("DELETE", f"/images/{tag}")
    assert free(own) > before - (8 << 20)
