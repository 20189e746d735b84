"""Layers and archives that try to reach the host, or to stay when they are refused."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.database import Database
from sampan.errors import InvalidParameter
from sampan.images import ImageService
from sampan.oci.digest import sha256
from sampan.storage import Driver, InvalidLayer, Limits, export_tar, open_driver
from support.layers import entry, layer, tree

pytestmark = pytest.mark.root
LAYER = "sha256:" + "1" * 64
SECRET = b"of the host"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host's that no layer may reach."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret").write_bytes(SECRET)
    return place


@pytest.fixture(params=["overlay2", "vfs"])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    yield open_driver(request.param, tmp_path / "data")


def apply(driver: Driver, *entries: tuple[tarfile.TarInfo, bytes], limits: Limits | None = None) -> None:
    driver.apply_layer(LAYER, None, io.BytesIO(layer(*entries)), limits=limits)


def nothing_left(driver: Driver, tmp_path: Path) -> None:
    assert not driver.has_layer(LAYER)
    assert os.listdir(tmp_path / "data" / driver.name / "stage") == []


@pytest.mark.parametrize(
    "entries",
    [
        [entry("../escaped")],
        [entry("a/../../escaped")],
        [entry("/../escaped")],
        [entry("..")],
        [entry("d", "dir"), entry("d/../../escaped", "dir")],
        [entry("hard", "link", linkname="../outside/secret")],
        [entry("hard", "link", linkname="/etc/hostname")],
        [entry("l", "symlink", linkname="/etc"), entry("hard", "link", linkname="l/hostname")],
        [entry("l", "symlink", linkname="../../../../../etc"), entry("hard", "link", linkname="l/hostname")],
        [entry("self", "link", linkname="self")],
        [entry("hard", "link", linkname="")],
        [entry("d", "dir"), entry("hard", "link", linkname="d")],
        [entry("a", "symlink", linkname="b"), entry("b", "symlink", linkname="a"), entry("a/x")],
        [entry("dangling", "symlink", linkname="nowhere"), entry("dangling/x")],
        [entry("f"), entry("f/x")],
        [entry("../.wh.escaped")],
        [entry(".wh...")],
        [entry(".wh..")],
        [entry("d/.wh.")],
        [entry("x" * 300)],
        [entry("p/" * 2100 + "x")],
        [entry("n\0ul", pax_headers={"path": "a\0b"})],
        [entry("dev", "char", devmajor=1 << 20, devminor=1)],
    ],
)
def test_refuses_what_leads_outside(
    driver: Driver, tmp_path: Path, outside: Path, entries: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    before = tree(outside)
    with pytest.raises(InvalidLayer):
        apply(driver, entry("good", data=b"1"), *entries)
    nothing_left(driver, tmp_path)
    assert tree(outside) == before
    assert not list(tmp_path.rglob("escaped*"))


@pytest.mark.parametrize(
    "target", ["/", "/outside", "../" * 30, "{outside}", "../../../../../../../../{outside}"]
)
def test_links_lead_nowhere_but_inside(driver: Driver, tmp_path: Path, outside: Path, target: str) -> None:
    target = target.format(outside=outside)
    data = layer(
        entry(str(outside).strip("/"), "dir"),
        entry("link", "symlink", linkname=target),
        entry("link/secret", data=b"overwritten"),
        entry("link/planted", data=b"x"),
        entry("link/.wh.secret"),
        entry("link/.wh..wh..opq"),
        entry("link/sub/.wh..wh..opq"),
        entry("link/dev", "char", devmajor=1, devminor=3, mode=0o666),
        entry("link", "dir", mode=0o777, uid=1234),
        entry("link/again", data=b"x"),
    )
    before = (tree(outside), os.stat(outside), os.stat("/"))
    try:
        driver.apply_layer(LAYER, None, io.BytesIO(data))
    except InvalidLayer:
        nothing_left(driver, tmp_path)
    after = (tree(outside), os.stat(outside), os.stat("/"))
    assert after[0] == before[0]
    assert [(info.st_mode, info.st_uid) for info in after[1:]] == [
        (info.st_mode, info.st_uid) for info in before[1:]
    ]
    assert not os.path.exists("/planted")
    assert not os.path.exists("/again")


def test_a_parent_swapped_for_a_link_half_way(driver: Driver, outside: Path) -> None:
    apply(
        driver,
        entry("d", "dir"),
        entry("d/one"),
        entry("d", "symlink", linkname=str(outside)),  # the descriptor of the first d is open somewhere
        entry("d", "dir"),
        entry("d/two"),
        entry("e", "dir", mode=0o700, uid=99),
        entry("e", "symlink", linkname=str(outside)),  # e's times and mode are still to be set
    )
    assert os.listdir(outside) == ["secret"]
    assert os.stat(outside).st_uid == 0


def test_attributes_cannot_steer_the_overlay(tmp_path: Path, outside: Path) -> None:
    driver = open_driver("overlay2", tmp_path / "data")
    records = {
        "SCHILY.xattr.trusted.overlay.redirect": "/../../../../outside",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.metacopy": "",
        "SCHILY.xattr.user.fine": "1",
    }
    apply(driver, entry("d", "dir", pax_headers=records), entry("f", pax_headers=records))
    for name in ("d", "f"):
        assert os.listxattr(tmp_path / "data/overlay2/layers" / LAYER[7:] / "diff" / name) == ["user.fine"]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(max_bytes=10_000), "unfolds to more than 10000 bytes"),
        (Limits(max_members=3), "more than 3 files"),
        (Limits(min_free_bytes=1 << 60), "no space"),
    ],
)
def test_limits(driver: Driver, tmp_path: Path, limits: Limits, message: str) -> None:
    with pytest.raises(InvalidLayer, match=message):
        apply(driver, *(entry(f"f{number}", data=b"x" * 6000) for number in range(5)), limits=limits)
    nothing_left(driver, tmp_path)


def test_lying_sizes(driver: Driver, tmp_path: Path) -> None:
    for name, text in (("size", "9" * 18), ("GNU.sparse.map", "0,99999"), ("size", "x")):
        info, data = entry("f", data=b"x" * 600)
        info.pax_headers = {name: text, "GNU.sparse.size": "10"} if "map" in name else {name: text}
        with pytest.raises((InvalidLayer, OSError)):
            apply(driver, (info, data))
        nothing_left(driver, tmp_path)


def test_export_does_not_follow_links(tmp_path: Path, outside: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "dir").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    out = io.BytesIO()
    export_tar(str(root), out)
    assert SECRET not in out.getvalue()


# --- archives of images ---


@pytest.fixture
def images(tmp_path: Path) -> ImageService:
    root = tmp_path / "data"
    root.mkdir()
    return ImageService(root, open_driver("overlay2", root), Database(root / "db"))


def archive(files: dict[str, bytes]) -> bytes:
    return layer(*(entry(name, data=data) for name, data in files.items()))


def docker_archive(data: bytes, **changed: object) -> dict[str, bytes]:
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [sha256(data)]}}
    ).encode()
    item = {"Config": "c.json", "RepoTags": ["evil:latest"], "Layers": ["l.tar"], **changed}
    return {"c.json": config, "l.tar": data, "manifest.json": json.dumps([item]).encode()}


def test_archives_that_are_refused_leave_nothing(images: ImageService, tmp_path: Path) -> None:
    data = layer(entry("f", data=b"1"))
    good = docker_archive(data)
    wrong = "blobs/sha256/" + "0" * 64
    index = {"schemaVersion": 2, "manifests": [{"mediaType": "x", "size": 1, "digest": "sha256:" + "0" * 64}]}
    layout = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    config_of_two = good["c.json"].replace(b'"diff_ids": [', b'"diff_ids": ["sha256:%s", ' % (b"2" * 64))
    cases: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "empty"),
        "noise": (os.urandom(4096), "not a tar archive"),
        "half a gzip": (gzip.compress(archive(good))[:-30], "damaged|ends"),
        "no image": (archive({"x": b""}), "neither manifest.json nor index.json"),
        "before 1.10": (archive({"repositories": b"{}"}), "Docker before 1.10"),
        "outside": (archive({"../x": b"", **good}), "outside of the root"),
        "wrong diff id": (archive({**good, "l.tar": layer(entry("g"))}), "unpacks to"),
        "missing layer": (archive({key: good[key] for key in ("c.json", "manifest.json")}), "lacks the file"),
        "layer outside": (archive(docker_archive(data, Layers=["../../../../etc/passwd"])), "lacks the file"),
        "config outside": (archive(docker_archive(data, Config="/etc/passwd")), "lacks the file"),
        "wrong name": (
            archive({**docker_archive(data, Layers=[wrong]), wrong: data}),
            "not the one in its name",
        ),
        "layer count": (
            archive({**good, "c.json": config_of_two}),
            "layers length mismatch: expected 2, got 1",
        ),
        "bad tag": (archive(docker_archive(data, RepoTags=["UP"])), "must be lowercase"),
        "no json": (archive({**good, "manifest.json": b"["}), "not valid JSON"),
        "windows": (archive({**good, "c.json": good["c.json"].replace(b"linux", b"windows")}), "cannot load"),
        "missing blob": (archive(layout), "lacks the file"),
        "wrong blob": (archive({**layout, "blobs/sha256/" + "0" * 64: b"{}"}), "has the digest"),
    }
    for name, (stream, message) in cases.items():
        with pytest.raises(InvalidParameter, match=message):
            images.load(io.BytesIO(stream))
            pytest.fail(name)
        assert images.list() == [], name
        assert os.listdir(tmp_path / "data/content/blobs/sha256") == [], name
        assert os.listdir(tmp_path / "data/content/ingest") == [], name
        assert os.listdir(tmp_path / "data/overlay2/layers") == [], name


def test_links_in_an_archive_stay_in_it(images: ImageService) -> None:
    data = layer(entry("f", data=b"1"))
    files = docker_archive(data)
    stream = layer(
        entry("c.json", data=files["c.json"]),
        entry("real.tar", data=data),
        entry("l.tar", "symlink", linkname="real.tar"),
        entry("manifest.json", data=files["manifest.json"]),
    )
    assert images.load(io.BytesIO(stream))[0].references == ["evil:latest"]
    for target in ("/etc/passwd", "../../etc/passwd", "l.tar"):
        evil = layer(
            entry("c.json", data=files["c.json"]),
            entry("l.tar", "symlink", linkname=target),
            entry("manifest.json", data=files["manifest.json"]),
        )
        with pytest.raises(InvalidParameter, match="lacks the file"):
            images.load(io.BytesIO(evil))


def test_import_of_a_hostile_archive_leaves_nothing(images: ImageService, tmp_path: Path) -> None:
    for data in (
        layer(entry("a"), entry("../b")),
        layer(entry("a", data=b"x" * 9999))[:5000],
        b"no tar" * 200,
    ):
        with pytest.raises(InvalidParameter):
            images.import_(io.BytesIO(gzip.compress(data)), "x")
    assert images.list() == []
    for place in ("content/blobs/sha256", "content/ingest", "overlay2/layers", "overlay2/stage"):
        assert os.listdir(tmp_path / "data" / place) == []
