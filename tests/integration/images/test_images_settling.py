"""Images that had not reached the disk when the machine went down."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.database import Database
from sampan.images import ImageService, NoSuchImage
from sampan.images import settling as module
from sampan.images.settling import Settling
from sampan.storage import Driver, open_driver
from support.layers import entry, layer, tree

pytestmark = pytest.mark.root


class Machine:
    """A data root that a daemon opens, leaves, and opens again."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root, self.kind = root, kind
        self.open()

    def open(self) -> None:
        self.driver: Driver = open_driver(self.kind, self.root)
        self.database = Database(self.root / "db")
        self.images = ImageService(self.root, self.driver, self.database)

    def add(self, name: str) -> str:
        data = layer(entry("etc", "dir"), entry("etc/name", data=name.encode()))
        return self.images.import_(io.BytesIO(data), name)

    def marks(self) -> list[tuple[str, str]]:
        return [(row[0], row[1]) for row in self.database.execute("SELECT image, boot FROM image_unsettled")]

    def power_cut(self) -> None:
        """The next daemon finds another boot id than the marks have."""
        self.database.execute("UPDATE image_unsettled SET boot = 'another'")
        self.database.close()

    def layer_path(self, name: str) -> Path:
        top = self.images.resolve(name).top_layer
        assert top is not None
        return self.root / self.kind / "layers" / top[7:] / ("diff" if self.kind == "overlay2" else "root")


@pytest.fixture(params=["overlay2", "vfs"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path, request.param)
    yield made
    made.database.close()


@pytest.fixture
def never_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settling, "begin", lambda _self: None)


def test_the_mark_goes_once_the_disk_has_it(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY_S", 0.2)
    flushed = []
    sync = machine.driver.sync
    monkeypatch.setattr(machine.driver, "sync", lambda: (flushed.append(len(machine.marks())), sync()))
    machine.add("one")
    machine.add("two")
    assert len(machine.marks()) == 2
    limit = time.monotonic() + 30
    while machine.marks() and time.monotonic() < limit:
        time.sleep(0.05)
    assert machine.marks() == []
    assert flushed[0] == 2  # the marks were there until the flush was done


def test_a_flush_that_fails_keeps_the_mark(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(machine.driver, "sync", broken)
    monkeypatch.setattr(module, "DELAY_S", 0)
    image = machine.add("one")
    time.sleep(0.3)
    assert [marked for marked, _ in machine.marks()] == [image]


@pytest.mark.usefixtures("never_settled")
def test_torn_layers_are_unpacked_again(machine: Machine) -> None:
    image = machine.add("one")
    (machine.layer_path("one") / "etc/name").write_bytes(b"")  # what ext4 leaves of a file it never wrote out
    machine.driver.create_container("c", machine.images.resolve("one").top_layer)
    machine.power_cut()
    machine.open()
    assert machine.images.resolve("one").id == image
    assert (machine.layer_path("one") / "etc/name").read_bytes() == b"one"
    assert [marked for marked, _ in machine.marks()] == [image]  # on its way to the disk once more
    assert "etc/name" in tree(Path(machine.driver.mount("c")))
    machine.driver.unmount("c")
    machine.driver.remove_container("c")


@pytest.mark.usefixtures("never_settled")
def test_a_torn_blob_costs_its_image_and_no_other(machine: Machine) -> None:
    machine.add("one")
    machine.add("two")
    blob = machine.images.resolve("one").diff_ids[0]  # the archive was not compressed
    path = machine.root / "content/blobs/sha256" / blob[7:]
    path.write_bytes(bytes(path.stat().st_size))
    machine.power_cut()
    machine.open()
    with pytest.raises(NoSuchImage):
        machine.images.resolve("one")
    assert (machine.layer_path("two") / "etc/name").read_bytes() == b"two"
    assert not path.exists()
    assert machine.driver.layers() == {machine.images.resolve("two").top_layer}


@pytest.mark.usefixtures("never_settled")
def test_a_crash_of_the_daemon_alone_costs_nothing(machine: Machine) -> None:
    machine.add("one")
    (machine.layer_path("one") / "etc/name").write_bytes(b"as it is")
    machine.database.close()
    machine.open()
    assert (machine.layer_path("one") / "etc/name").read_bytes() == b"as it is"  # not unpacked again
    assert len(machine.marks()) == 1


def test_layers_of_images_that_are_on_disk_are_left_alone(machine: Machine) -> None:
    machine.add("one")
    machine.images._records.settling.settle()
    machine.images._records.settling.mark(machine.images.import_(io.BytesIO(layer(entry("x"))), "two"))
    before = machine.layer_path("one").stat().st_ino
    machine.power_cut()
    machine.open()
    assert machine.layer_path("one").stat().st_ino == before
