"""Layers of an archive are unpacked while it arrives; whatever it turns out to be, nothing else stays."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sampan.database import Database
from sampan.errors import SampanError
from sampan.images import ImageService
from sampan.storage import InvalidLayer, open_driver
from sampan.storage.unpack_process import UnpackProcess
from support.layers import entry, layer, tree

pytestmark = pytest.mark.root
NOISE = random.Random(1).randbytes(100_000)  # enough for a layer to be unpacked ahead
LOWER = layer(
    entry("etc", "dir", mode=0o2751, uid=5, gid=6), entry("etc/conf", data=b"old"),
    entry("home", "dir"), entry("home/gone"), entry("noise", data=NOISE),
)  # fmt: skip
UPPER = layer(entry("usr", "dir"), entry("usr/lib", data=NOISE), entry(".wh.noise"))
IMPLYING = layer(entry("etc/conf", data=b"new"), entry("noise", data=NOISE[::-1]))
OPAQUE = layer(entry(".wh..wh..opq"), entry("only", data=NOISE))


class Store:
    """An image service that tells which layers were unpacked ahead."""

    def __init__(self, root: Path, driver: str = "overlay2") -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self.driver = open_driver(driver, root)
        self.database = Database(root / "db")
        self.images = ImageService(root, self.driver, self.database)
        self.ahead: list[str] = []
        prepare = self.driver.prepare_ahead

        def prepare_ahead(stream: Any) -> Any:
            try:
                prepared = prepare(stream)
            except Exception as error:
                self.ahead.append(type(error).__name__)
                raise
            self.ahead.append("unpacked")
            return prepared

        self.driver.prepare_ahead = prepare_ahead  # type: ignore[method-assign]

    def load(self, data: bytes) -> str:
        """The id of the archive's only image."""
        return self.images.load(io.BytesIO(data))[0].image_id

    def staged(self) -> list[Path]:
        return [path for path in (self.root / self.driver.name / "stage").rglob("*") if path.is_file()]

    def is_clean(self) -> bool:
        """Whether there is nothing that a finished load, or a refused one, must not leave."""
        return not (
            list((self.root / self.driver.name / "stage").iterdir())
            or list((self.root / "content/ingest").iterdir())
            or [thread for thread in threading.enumerate() if thread.name in ("unpack", "read-ahead")]
        )

    def is_empty(self) -> bool:
        return self.is_clean() and not self.driver.layers() and not list(self.blobs())

    def blobs(self) -> set[str]:
        return set(os.listdir(self.root / "content/blobs/sha256"))

    def files(self, image_id: str) -> dict[str, tuple[object, ...]]:
        top = self.images.resolve(image_id).top_layer
        assert top is not None
        try:
            return tree(Path(self.driver.mount_layers_ro(top)))
        finally:
            self.driver.unmount_layers_ro(top)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    stores: list[Store] = []

    def store(name: str = "store", driver: str = "overlay2") -> Store:
        stores.append(Store(tmp_path / name, driver))
        return stores[-1]

    yield store
    for one in stores:
        one.database.close()


def archive(
    *layers: bytes,
    more: tuple[bytes, ...] = (),
    diff_ids: list[str] | None = None,
    compress: Callable[[bytes], bytes] = bytes,
) -> bytes:
    """A docker-archive with its manifest last; `more` look like layers, and nothing names them."""
    ids = diff_ids or ["sha256:" + hashlib.sha256(data).hexdigest() for data in layers]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}}
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": ["test:1"], "Layers": names}]
    return layer(
        *(entry(f"more{number}.tar", data=data) for number, data in enumerate(more)),
        *(entry(name, data=compress(data)) for name, data in zip(names, layers, strict=True)),
        entry("config.json", data=json.dumps(config).encode()),
        entry("manifest.json", data=json.dumps(manifest).encode()),
    )


class Halting:
    """A stream that waits at `at` until it may go on, or breaks off there."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = io.BytesIO(data[:at])
        self._rest: bytes | None = data[at:]
        self.go_on = threading.Event()
        self.error: Exception | None = None

    def read(self, size: int = -1, /) -> bytes:
        data = self._data.read(size)
        if data or self._rest is None:
            return data
        assert self.go_on.wait(30)
        if self.error is not None:
            raise self.error
        self._data, self._rest = io.BytesIO(self._rest), None
        return self._data.read(size)


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_layers_files_are_there_before_the_archive_is(make: Callable[..., Store]) -> None:
    store = make()
    data = archive(LOWER, UPPER)
    stream = Halting(data, data.index(b"usr/lib"))
    loads = threading.Thread(target=lambda: store.images.load(stream))
    loads.start()
    until(lambda: {"noise", "conf"} <= {path.name for path in store.staged()})
    assert not store.driver.layers() and not store.blobs()
    stream.go_on.set()
    loads.join(30)
    assert store.ahead == ["unpacked", "unpacked"] and store.is_clean()
    assert "noise" not in store.files("test:1")


def test_a_client_that_leaves_in_the_middle_leaves_nothing(make: Callable[..., Store]) -> None:
    store = make()
    data = archive(LOWER, UPPER)
    stream = Halting(data, data.index(b"usr/lib"))
    stream.error = ConnectionResetError("the client went away in the middle of its request")
    failed: list[Exception] = []

    def work() -> None:
        try:
            store.images.load(stream)
        except OSError as error:
            failed.append(error)

    loads = threading.Thread(target=work)
    loads.start()
    until(store.staged)
    stream.go_on.set()
    loads.join(30)
    assert "went away" in str(failed[0])
    assert store.is_empty()


@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
@pytest.mark.parametrize("upper", [UPPER, IMPLYING, OPAQUE], ids=["plain", "implying", "opaque"])
@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, zstandard.ZstdCompressor().compress], ids=["", "gzip", "zstd"]
)
def test_the_files_are_those_of_layers_unpacked_one_after_the_other(
    make: Callable[..., Store],
    driver: str,
    upper: bytes,
    compress: Callable[[bytes], bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = archive(LOWER, upper, compress=compress)
    store = make(driver=driver)
    files = store.files(store.load(data))
    assert store.is_clean()
    expected = ["unpacked", "unpacked" if upper is UPPER else "ParentNeeded"]
    if compress not in (bytes, gzip.compress):
        expected = []
    elif driver == "vfs":
        expected = ["ParentNeeded"] * 2
    assert sorted(store.ahead, reverse=True) == expected
    monkeypatch.setattr("sampan.images.ahead.MIN_BYTES", 1 << 40)
    later = make("later", driver)
    again = later.files(later.load(data))
    if driver == "vfs":  # where an implied directory has the time at which it was made
        files, again = ({name: (*of[:4], *of[5:]) for name, of in one.items()} for one in (files, again))
    assert again == files
    assert later.ahead == []
    if upper is IMPLYING:
        assert files["etc"][:3] == ("0o42751", 5, 6)
    if upper is OPAQUE:
        assert "only" in files and not {"noise", "etc/conf", "home"} & set(files)


def test_what_the_manifest_does_not_name_is_dropped(make: Callable[..., Store]) -> None:
    store = make()
    store.load(archive(UPPER, more=(LOWER, IMPLYING)))
    assert store.ahead
    assert len(store.driver.layers()) == 1
    assert store.is_clean()


def test_a_layer_that_is_there_is_not_unpacked_again(make: Callable[..., Store]) -> None:
    store = make()
    first = store.load(archive(LOWER, UPPER))
    blobs = {hashlib.sha256(data).hexdigest(): data for data in (LOWER, UPPER)}
    config = json.loads((store.root / "content/blobs/sha256" / first[7:]).read_bytes())
    text = json.dumps(config).encode()
    blobs[hashlib.sha256(text).hexdigest()] = text
    entries = [entry(f"blobs/sha256/{name}", data=data) for name, data in blobs.items()]
    names = [f"blobs/sha256/{name}" for name in blobs]
    manifest = [{"Config": names[2], "RepoTags": ["again:1"], "Layers": names[:2]}]
    again = layer(*entries, entry("manifest.json", data=json.dumps(manifest).encode()))
    store.ahead.clear()
    assert store.load(again) == first
    assert store.ahead == []  # the names tell the digests
    store.load(archive(LOWER, UPPER))
    assert store.is_clean()
    assert len(store.driver.layers()) == 2


def test_one_layer_twice_and_in_two_images(make: Callable[..., Store]) -> None:
    store = make()
    files = store.files(store.load(archive(LOWER, UPPER, UPPER)))
    assert "noise" not in files and "usr/lib" in files
    assert len(store.driver.layers()) == 3
    assert store.is_clean()


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["", "gzip"])
def test_a_layer_that_is_not_the_configs_leaves_nothing(
    make: Callable[..., Store], compress: Callable[[bytes], bytes]
) -> None:
    store = make()
    good = "sha256:" + hashlib.sha256(LOWER).hexdigest()
    with pytest.raises(SampanError, match="but the image says sha256:0000"):
        store.load(archive(LOWER, UPPER, diff_ids=[good, "sha256:" + "0" * 64], compress=compress))
    assert store.is_empty()


def test_a_hostile_layer_is_refused_as_ever(make: Callable[..., Store], tmp_path: Path) -> None:
    store = make()
    (tmp_path / "victim").write_text("safe")
    bad = layer(
        entry("big", data=NOISE),
        entry("out", "symlink", linkname=str(tmp_path)),
        entry("../../victim", data=b"harm"),
    )
    with pytest.raises(InvalidLayer, match="outside of the root"):
        store.load(archive(LOWER, bad))
    assert (tmp_path / "victim").read_text() == "safe"
    assert store.is_empty()


def test_a_cut_archive_leaves_nothing(make: Callable[..., Store]) -> None:
    store = make()
    data = archive(LOWER, UPPER)
    for at in (data.index(b"usr/lib") + 50_000, len(LOWER) + 3000, len(data) - 11_000):
        with pytest.raises(SampanError):
            store.load(data[:at])
        assert store.is_empty()


def test_more_layers_than_places(make: Callable[..., Store]) -> None:
    store = make()
    layers = [layer(entry(f"file{number}", data=NOISE[number:])) for number in range(30)]
    files = store.files(store.load(archive(*layers)))
    assert {f"file{number}" for number in range(30)} <= set(files)
    assert store.is_clean()


def test_a_thousand_likely_layers_do_not_take_the_descriptors(
    make: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sampan.images.ahead.PLACES", 0)  # as if the first ones took for ever
    store = make()
    before = len(os.listdir("/proc/self/fd"))
    most = 0
    decoys = [layer(entry(f"decoy{number}", data=NOISE[:70_000])) for number in range(200)]
    data = archive(UPPER, more=tuple(decoys))

    class Watching(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal most
            most = max(most, len(os.listdir("/proc/self/fd")))
            return super().read(size)

    store.images.load(Watching(data))
    assert most < before + 150
    assert store.is_clean()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "disk"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=190m", "tmpfs", str(root)], check=True)
    yield root
    subprocess.run(["umount", str(root)], check=True)


def test_unpacking_ahead_takes_no_room_that_the_archive_needs(small_disk: Path) -> None:
    """60 MB that nobody names, a layer of 30 MB twice, and the 64 MB that stay free: 184."""
    store = Store(small_disk)
    try:
        decoy = layer(entry("decoy", data=os.urandom(60 << 20)))
        data = archive(layer(entry("file", data=os.urandom(30 << 20))), more=(decoy,))
        stream = Halting(data, data.index(b"0/layer.tar"))
        loads = threading.Thread(target=lambda: store.images.load(stream))
        loads.start()
        until(lambda: store.ahead == ["unpacked"])
        stream.go_on.set()
        loads.join(60)
        assert store.images.resolve("test:1")
        assert store.is_clean()
        with pytest.raises(SampanError, match="no space"):
            store.load(archive(layer(entry("large", data=os.urandom(90 << 20)))))
        assert store.is_clean()
        assert len(store.driver.layers()) == 1
    finally:
        store.database.close()


def test_a_whole_archive_may_be_compressed(make: Callable[..., Store]) -> None:
    store = make()
    store.load(gzip.compress(archive(LOWER, UPPER)))
    assert store.ahead == ["unpacked", "unpacked"] and store.is_clean()


def test_old_archives_with_links_to_repeated_layers(make: Callable[..., Store]) -> None:
    store = make()
    ids = ["sha256:" + hashlib.sha256(LOWER).hexdigest()] * 2
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}}
    manifest = [{"Config": "c.json", "RepoTags": ["old:1"], "Layers": ["a/layer.tar", "b/layer.tar"]}]
    store.load(
        layer(
            entry("a/layer.tar", data=LOWER),
            entry("b/layer.tar", "symlink", linkname="../a/layer.tar"),
            entry("c.json", data=json.dumps(config).encode()),
            entry("manifest.json", data=json.dumps(manifest).encode()),
        )
    )
    assert store.ahead == ["unpacked"] and store.is_clean()
    assert len(store.driver.layers()) == 2


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every layer goes to a process of its own; the pids of those that were started."""
    pids: list[int] = []

    class Noted(UnpackProcess):
        def __init__(self) -> None:
            super().__init__()
            pids.append(self._process.pid)

    monkeypatch.setattr("sampan.images.ahead.UnpackProcess", Noted)
    monkeypatch.setattr("sampan.images.ahead.APART_BYTES", 1)
    return pids


def are_gone(pids: list[int]) -> bool:
    return bool(pids) and not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("upper", [UPPER, IMPLYING, OPAQUE], ids=["plain", "implying", "opaque"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["", "gzip"])
def test_another_process_unpacks_the_same_files(
    make: Callable[..., Store],
    upper: bytes,
    compress: Callable[[bytes], bytes],
    apart: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = archive(LOWER, upper, compress=compress)
    store = make()
    files = store.files(store.load(data))
    assert are_gone(apart) and store.is_clean()
    assert len(store.ahead) == 2 and store.ahead.count("ParentNeeded") == (upper is not UPPER)
    monkeypatch.setattr("sampan.images.ahead.MIN_BYTES", 1 << 40)
    later = make("later")
    assert later.files(later.load(data)) == files


def test_one_process_takes_many_layers(make: Callable[..., Store], apart: list[int]) -> None:
    store = make()
    layers = [layer(entry(f"file{number}", data=NOISE[number:])) for number in range(9)]
    assert {f"file{number}" for number in range(9)} <= set(store.files(store.load(archive(*layers))))
    assert len(apart) <= 2 and are_gone(apart) and store.is_clean()


def test_a_process_that_is_killed_costs_no_load(make: Callable[..., Store], apart: list[int]) -> None:
    store = make()
    data = archive(LOWER, UPPER)
    stream = Halting(data, data.index(b"usr/lib"))
    loads = threading.Thread(target=lambda: store.images.load(stream))
    loads.start()
    until(lambda: apart)
    for pid in apart:
        os.kill(pid, signal.SIGKILL)
    stream.go_on.set()
    loads.join(30)
    assert "usr/lib" in store.files("test:1")
    assert "DriverError" in store.ahead
    assert are_gone(apart) and store.is_clean()


def test_what_another_process_refuses_is_refused(make: Callable[..., Store], apart: list[int]) -> None:
    store = make()
    with pytest.raises(InvalidLayer, match="outside of the root"):
        store.load(archive(LOWER, layer(entry("big", data=NOISE), entry("../../victim", data=b"harm"))))
    assert store.ahead.count("InvalidLayer") == 1
    assert are_gone(apart) and store.is_empty()


def test_a_client_that_leaves_ends_the_processes(make: Callable[..., Store], apart: list[int]) -> None:
    store = make()
    data = archive(LOWER, UPPER)
    stream = Halting(data, data.index(b"usr/lib"))
    stream.error = ConnectionResetError("the client went away in the middle of its request")

    def work() -> None:
        with contextlib.suppress(OSError):
            store.images.load(stream)

    loads = threading.Thread(target=work)
    loads.start()
    until(lambda: apart)
    stream.go_on.set()
    loads.join(30)
    assert are_gone(apart) and store.is_empty()


def test_a_daemon_that_dies_takes_its_processes_along(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "blob").write_bytes(LOWER)
    program = """if True:
        import os, sys, time
        from sampan.storage.unpack_process import UnpackProcess
        process = UnpackProcess()
        def growth():
            yield 70_000
            print(process._process.pid, flush=True)
            time.sleep(60)
        process.unpack(os.open(sys.argv[1], 0), os.open(sys.argv[2], 0), growth())
    """
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "root", tmp_path / "blob"], stdout=subprocess.PIPE
    ) as dying:
        assert dying.stdout is not None
        pid = int(dying.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        dying.kill()
    until(lambda: not Path(f"/proc/{pid}").exists() or b"Z" in Path(f"/proc/{pid}/stat").read_bytes()[:40])


def test_stages_survive_no_restart(make: Callable[..., Store], tmp_path: Path) -> None:
    """What a crash leaves of them is cleared away at the next start."""
    store = make()
    prepared = store.driver.prepare_ahead(io.BytesIO(UPPER))
    assert store.staged()
    again = Store(store.root)
    again.driver.purge_trash()
    assert again.is_clean()
    again.database.close()
    prepared.discard()


def test_a_file_that_only_looks_like_a_layer_does_no_harm(make: Callable[..., Store]) -> None:
    store = make()
    broken = bytearray(UPPER)
    broken[600:700] = b"\xff" * 100
    tampered = bytearray(LOWER)
    tampered[:100] = b"\x00" * 100
    store.load(archive(UPPER, more=(bytes(broken), bytes(tampered), tarfile.BLOCKSIZE * b"ustar")))
    assert store.is_clean()
