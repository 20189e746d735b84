"""Images that come through the API and mean harm: archives, and containers that are committed or exported."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.engine import Engine
from support.images import busybox_tar, import_tar
from support.layers import entry

pytestmark = [pytest.mark.root, pytest.mark.daemon]
Names = Callable[[], str]
SECRET = "of the host alone"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host's with a secret in it."""
    (tmp_path / "secret").write_text(SECRET)
    return tmp_path


@pytest.fixture
def image(engine: Engine, name: Names) -> Iterator[str]:
    """A name for an image, removed at the end."""
    given = f"evil-{name()}"
    yield given
    engine.api("DELETE", f"/images/{given}?force=1")


def with_busybox(*more: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO(busybox_tar())
    with tarfile.open(fileobj=out, mode="a") as archive:
        for info, data in more:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_a_link_in_an_image_is_not_a_way_out(engine: Engine, image: str, outside: Path) -> None:
    climbing = entry("up", "symlink", linkname="../../../../../../../..")
    data = with_busybox(climbing, entry(f"up{outside}/written", data=b"by the image"))
    import_tar(engine.api, image, data)
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    shown = engine.docker("run", "--rm", image, "sh", "-c", f"cat {outside}/written; ls {outside}")
    assert shown.out == "by the imagewritten\n"
    data = with_busybox(entry("out", "symlink", linkname=str(outside)), entry("out/written"))
    assert "leads nowhere" in refused(engine, "/images/create?fromSrc=-&repo=never", data)
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]


def test_a_device_in_an_image_opens_nothing(engine: Engine, image: str) -> None:
    disk = entry("disk", "char", devmajor=1, devminor=1, mode=0o666)  # the machine's memory
    import_tar(engine.api, image, with_busybox(disk))
    tried = engine.docker("run", "--rm", image, "dd", "if=/disk", "of=/dev/null", "bs=1", "count=1", code=1)
    assert "Operation not permitted" in tried.err


def test_setuid_and_odd_owners_are_taken_as_they_are_and_stay_inside(engine: Engine, image: str) -> None:
    import_tar(engine.api, image, with_busybox(entry("su", data=b"x", mode=0o6755, uid=2**31 - 2, gid=5)))
    done = engine.docker("run", "--rm", image, "stat", "-c", "%a %u %g", "/su")
    assert done.out == "6755 2147483646 5\n"


def refused(engine: Engine, target: str, body: bytes) -> str:
    before = {one["Id"] for one in engine.api.get("/images/json?all=1")}
    answer = engine.api("POST", target, body)
    assert answer.status == 400 or b'"errorDetail"' in answer.body, answer.body[:300]
    assert {one["Id"] for one in engine.api.get("/images/json?all=1")} == before
    return answer.body.decode()


def archive(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        ("../../../../etc/passwd", []),
        ("/etc/passwd", []),
        ("c.json", ["/etc/shadow"]),
        ("c.json", ["../../db"]),
        ("c.json", ["c.json"]),
        ("c.json", ["missing"]),
        ("missing", []),
    ],
)
def test_names_in_a_manifest_stay_in_the_archive(engine: Engine, config: str, layers: list[str]) -> None:
    manifest = json.dumps([{"Config": config, "RepoTags": ["x:1"], "Layers": layers}]).encode()
    document = (
        b'{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}'
        % (b"0" * 64)
    )
    body = archive(**{"manifest.json": manifest, "c.json": document})
    assert "root:" not in refused(engine, "/images/load", body)


@pytest.mark.parametrize(
    "document",
    [
        b"[" * 100_000,
        b"{}" * 10,
        b'{"rootfs": 5}',
        b"null",
        b'{"os": "windows", "rootfs": {"diff_ids": []}}',
        b"\xff" * 10,
    ],
    ids=["deep", "two", "number", "null", "windows", "noise"],
)
def test_documents_that_are_none(engine: Engine, document: bytes) -> None:
    manifest = json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": []}]).encode()
    refused(engine, "/images/load", archive(**{"manifest.json": manifest, "c.json": document}))
    refused(engine, "/images/load", archive(**{"manifest.json": document}))
    refused(
        engine,
        "/images/load",
        archive(**{"index.json": document, "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}),
    )


def test_a_small_archive_that_unfolds_to_a_huge_document(engine: Engine) -> None:
    bomb = gzip.compress(archive(**{"manifest.json": b"[" + b" " * (64 << 20) + b"]"}))
    assert len(bomb) < 1 << 20
    assert "more than the limit" in refused(engine, "/images/load", bomb)


def test_torn_archives(engine: Engine) -> None:
    whole = gzip.compress(busybox_tar())
    for body in (whole[: len(whole) // 2], busybox_tar()[:100_000], whole[:30], b"\0" * 100):
        refused(engine, "/images/create?fromSrc=-&repo=torn", body)
        refused(engine, "/images/load", body)
    refused(engine, "/images/load", b"")  # an import of nothing is an empty image, as Docker has it


def test_a_commit_follows_no_link(
    engine: Engine, busybox: str, image: str, outside: Path, name: Names
) -> None:
    container = name()
    script = f"rm -r /home /var; ln -s {outside} /home; ln -s /proc/1/root /var; ln -s / /all"
    engine.docker("run", "--name", container, busybox, "sh", "-c", script)
    engine.docker("commit", container, image)
    saved = engine.docker("save", image).raw
    assert SECRET.encode() not in saved
    exported = engine.docker("export", container).raw
    assert SECRET.encode() not in exported
    assert engine.docker("run", "--rm", image, "readlink", "/home").out == f"{outside}\n"


def test_links_swapped_in_during_a_commit(
    engine: Engine, busybox: str, image: str, outside: Path, name: Names
) -> None:
    """A directory becomes a link to the host's and back, all the time, and files become pipes and devices."""
    container = name()
    script = (
        f"mkdir /d /hide; echo own > /d/secret; ln -s {outside} /l; mkfifo /p; mknod /n c 1 5; echo f > /f\n"
        "while :; do mv /d /hide/d; mv /l /d; mv /d /l; mv /hide/d /d; mv /f /g; mv /p /f; mv /f /p;"
        " mv /n /f; mv /f /n; mv /g /f; done"
    )
    engine.docker("run", "-d", "--name", container, busybox, "sh", "-c", script)
    for pause in ("true", "false"):
        for _ in range(6):
            engine.docker("commit", f"--pause={pause}", container, image)
            assert SECRET.encode() not in engine.docker("save", image).raw
            assert SECRET.encode() not in engine.docker("export", container).raw


def test_names_that_mean_something_in_a_layer(engine: Engine, busybox: str, image: str, name: Names) -> None:
    """A container cannot make its image hide files elsewhere, or differ from its own archive."""
    container = name()
    script = "touch /etc/.wh.passwd /home/.wh..wh..opq; mkdir /.wh.dir; touch /.wh.dir/x /normal"
    engine.docker("run", "--name", container, busybox, "sh", "-c", script)
    engine.docker("commit", container, image)
    look = (
        "run",
        "--rm",
        image,
        "sh",
        "-c",
        "ls -d /etc/passwd /home/alice /normal; find / -xdev -name '.wh.*'",
    )
    before = engine.docker(*look).out
    assert before == "/etc/passwd\n/home/alice\n/normal\n"
    saved = engine.docker("save", image).raw
    engine.docker("rm", container)
    engine.docker("rmi", image)
    engine.docker("load", stdin=saved)
    assert engine.docker(*look).out == before


def test_an_image_that_is_removed_while_it_is_saved(engine: Engine, busybox: str, image: str) -> None:
    engine.docker("tag", busybox, image)
    failures: list[str] = []

    def save() -> None:
        for _ in range(10):
            done = engine.docker("save", image, code=None)
            if done.code == 0 and len(done.raw) < 1_000_000:
                failures.append("a torn archive, and no error")

    threads = [threading.Thread(target=save) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        engine.docker("rmi", image, code=None)
        engine.docker("tag", busybox, image, code=None)
    for thread in threads:
        thread.join()
    assert failures == []
