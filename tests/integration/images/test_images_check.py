"""`system check` finds what was broken by hand, heals what can be healed, and leaves alone what is in use."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.database import Database
from sampan.errors import SampanError
from sampan.images import BrokenContent, Commit, Finding, ImageService
from sampan.oci.digest import sha256
from sampan.oci.image import ImageConfig
from sampan.storage import Driver, open_driver
from support.layers import entry, layer, tree

pytestmark = pytest.mark.root
BASE = layer(
    entry("etc", "dir"),
    entry("etc/a", data=b"a" * 5000),
    entry("bin", "dir"),
    entry("bin/sh", data=b"#!", mode=0o755),
)


class Store:
    """A store to break things in."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root = root
        self.driver: Driver = open_driver(kind, root)
        self.database = Database(root / "db")
        self.images = ImageService(root, self.driver, self.database)
        self.base = self.images.import_(io.BytesIO(BASE), "base:1")
        self.users: dict[str, list[tuple[str, bool]]] = {}
        self.containers: set[str] = set()

    def check(self, repair: bool = False) -> list[Finding]:
        found: list[Finding] = []
        users = lambda image_id: self.users.get(image_id, [])  # noqa: E731
        self.images.check(users, self.containers, repair, found.append)
        return found

    def container(self, name: str, image_id: str, running: bool = False) -> None:
        self.driver.create_container(name, self.images.resolve(image_id).top_layer)
        self.containers.add(name)
        self.users.setdefault(image_id, []).append((name, running))

    def commit(self) -> str:
        """A second layer, written by ourselves."""
        self.container("maker", self.base)
        root = Path(self.driver.mount("maker"))
        (root / "etc/b").write_text("b" * 3000)
        (root / "etc/a").unlink()
        with self.driver.snapshot("maker") as snapshot:
            made = self.images.commit(snapshot, self.base, Commit(ImageConfig(cmd=["sh"])))
        self.driver.unmount("maker")
        self.driver.remove_container("maker")
        self.containers.clear()
        self.users.clear()
        return made

    def blob(self, digest: str) -> Path:
        return self.root / "content/blobs/sha256" / digest[7:]

    def layer(self, image_id: str) -> Path:
        top = self.images.resolve(image_id).top_layer
        assert top is not None
        return self.root / self.driver.name / "layers" / top[7:]

    def files(self, image_id: str) -> dict[str, tuple[object, ...]]:
        top = self.images.resolve(image_id).top_layer
        assert top is not None
        seen = tree(Path(self.driver.mount_layers_ro(top)))
        self.driver.unmount_layers_ro(top)
        return seen


@pytest.fixture(params=["overlay2", "vfs"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path, request.param)
    yield made
    for name in made.containers:
        made.driver.remove_container(name)
    made.database.close()


def healed(store: Store) -> None:
    assert store.check() == []


def test_a_whole_store_has_nothing_to_tell(store: Store) -> None:
    store.commit()
    assert store.check() == []
    assert store.check(repair=True) == []


@pytest.mark.parametrize("how", ["flip", "truncate", "remove"])
def test_a_bad_layer_blob_takes_the_image_along(store: Store, how: str) -> None:
    blob = store.blob(sha256(BASE))
    if how == "flip":
        with blob.open("r+b") as file:
            file.seek(700)
            file.write(b"\xff")
    elif how == "truncate":
        os.truncate(blob, 100)
    else:
        blob.unlink()
    (found,) = store.check()
    assert (found.kind, found.subject, found.repaired) == ("image", "base:1", False)
    assert sha256(BASE) in found.problem
    assert store.images.resolve("base:1").id == store.base
    (mended,) = store.check(repair=True)
    assert mended.repaired
    assert "load or pull it again" in mended.action
    assert store.images.list() == []
    healed(store)


def test_an_image_in_use_is_left_alone(store: Store) -> None:
    store.container("c1", store.base)
    store.blob(sha256(BASE)).unlink()
    for repair in (False, True):
        (found,) = store.check(repair)
        assert not found.repaired
        assert "container c1 uses it" in found.action
    assert store.images.resolve("base:1").id == store.base
    assert store.driver.used_layers()


def test_our_own_blob_is_made_again_from_its_layer(store: Store) -> None:
    made = store.commit()
    digest = store.images.resolve(made).diff_ids[-1]
    before = store.blob(digest).read_bytes()
    with store.blob(digest).open("r+b") as file:
        file.write(b"broken")
    (found,) = store.check()
    assert (found.kind, found.action) == ("blob", "it can be made again from its layer")
    (mended,) = store.check(repair=True)
    assert mended.repaired
    assert store.blob(digest).read_bytes() == before
    healed(store)


@pytest.mark.parametrize("how", ["gone", "record", "files", "link"])
def test_a_broken_layer_is_unpacked_again(store: Store, how: str) -> None:
    made = store.commit()
    before = {image: store.files(image) for image in (store.base, made)}
    place = store.layer(store.base)
    if how == "gone":
        shutil.rmtree(place)
    elif how == "record":
        (place / "layer.json").write_text("{]")
    elif how == "files":
        shutil.rmtree(place / ("diff" if store.driver.name == "overlay2" else "root"))
    elif store.driver.name == "overlay2":
        for link in (store.root / "overlay2/l").iterdir():
            if place.name in os.readlink(link):
                link.unlink()
    else:
        return
    found = store.check()
    assert {one.kind for one in found} == {"layer"}
    assert not any(one.repaired for one in found)
    mended = store.check(repair=True)
    assert all(one.repaired for one in mended)
    assert mended[0].action == "unpacked again"
    healed(store)
    assert {image: store.files(image) for image in (store.base, made)} == before


def test_a_layer_under_a_running_container_is_left_alone(store: Store) -> None:
    store.container("c1", store.base, running=True)
    (store.layer(store.base) / "layer.json").unlink()
    (found,) = store.check(repair=True)
    assert (found.kind, found.repaired) == ("layer", False)
    assert "running container c1 uses it" in found.action
    store.users[store.base] = [("c1", False)]
    (mended,) = store.check(repair=True)
    assert mended.repaired
    healed(store)


def test_neither_blob_nor_layer(store: Store) -> None:
    shutil.rmtree(store.layer(store.base))
    store.blob(sha256(BASE)).unlink()
    assert [one.kind for one in store.check()] == ["image"]
    store.check(repair=True)
    assert store.images.list() == []
    healed(store)


@pytest.mark.parametrize("which", ["config", "manifest"])
def test_a_lost_document_is_told_by_whoever_needs_it(store: Store, which: str) -> None:
    image = store.images.resolve("base:1")
    store.blob(image.id if which == "config" else image.manifest_digest).write_text("{}")
    fresh = ImageService(store.root, store.driver, store.database)  # nothing remembered
    with pytest.raises(BrokenContent, match="sampan system check"):
        fresh.save(["base:1"], io.BytesIO())
    if which == "config":
        with pytest.raises(BrokenContent, match="sampan system check"):
            fresh.resolve("base:1")
        assert fresh.list() == []
    (found,) = store.check()
    assert found.kind == "image"
    assert which in found.problem
    assert store.check(repair=True)[0].repaired
    healed(store)


def test_what_nobody_needs(store: Store) -> None:
    stray = b"stray"
    store.blob(sha256(stray)).write_bytes(stray)
    (store.blob(sha256(stray)).parent / "note.txt").write_text("by hand")
    home = store.root / store.driver.name
    (home / "stage/left").mkdir()
    (home / "layers" / ("e" * 64)).mkdir()
    (home / "containers/nobody").mkdir()
    old = store.root / "content/ingest/old"
    old.write_text("x")
    os.utime(old, (1, 1))
    (store.root / "content/ingest/new").write_text("a transfer that goes on")
    store.driver.apply_layer("sha256:" + "f" * 64, None, io.BytesIO(layer(entry("x"))))
    found = store.check()
    assert sorted(one.kind for one in found) == ["blob", "layer", *["leftover"] * 5]
    assert old.exists()
    mended = store.check(repair=True)
    assert len(mended) == len(found)
    assert all(one.repaired for one in mended)
    assert os.listdir(store.root / "content/ingest") == ["new"]
    assert os.listdir(home / "trash") == []
    healed(store)
    assert store.images.resolve("base:1").id == store.base


def test_what_is_being_made_is_nobodys_leftover(store: Store) -> None:
    store.container("c1", store.base)
    with store.driver.snapshot("c1"), store.images._records.content.writer() as writer:
        writer.write(b"x")
        assert store.check(repair=True) == []
        assert writer.path.exists()


def test_a_container_that_lost_its_files(store: Store) -> None:
    store.container("c1", store.base)
    store.containers.add("c2")
    shutil.rmtree(store.root / store.driver.name / "containers/c1")
    found = store.check(repair=True)
    assert [(one.kind, one.subject, one.repaired) for one in found] == [
        ("container", "c1", False),
        ("container", "c2", False),
    ]
    store.containers.clear()


def test_a_bad_plain_blob_is_never_unpacked(store: Store) -> None:
    """At start too: a layer that is to come out of a blob that was spoiled stays away, image and all."""
    store.driver.forget_layer("sha256:" + sha256(BASE)[7:])
    data = bytearray(BASE)
    data[data.index(b"aaaa")] = ord("z")
    store.blob(sha256(BASE)).write_bytes(data)
    fresh = ImageService(store.root, store.driver, store.database)
    assert fresh.list() == []
    assert store.driver.layers() == set()


def test_an_archive_keeps_its_bytes(store: Store) -> None:
    """What is made again from a layer only fits while archives are written just so: never change this."""
    made = store.commit()
    out = io.BytesIO()
    top = store.images.resolve(made).top_layer
    assert top is not None
    store.driver.write_layer(top, out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        names = archive.getnames()
    assert sorted(names) == ["etc", "etc/.wh.a", "etc/b"]
    assert sha256(out.getvalue()) == store.images.resolve(made).diff_ids[-1]


def test_errors_are_ours(store: Store) -> None:
    store.blob(sha256(BASE)).unlink()
    with pytest.raises(SampanError, match="system check"):
        store.images.save(["base:1"], io.BytesIO())
