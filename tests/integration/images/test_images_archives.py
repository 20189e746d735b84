"""Load, save and import held against the tools that others use: skopeo, umoci, and the real engine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sampan.database import Database
from sampan.images import Image, ImageService, NoSuchImage
from sampan.storage import Driver, open_driver
from support.images import busybox_tar, debian_tar
from support.layers import entry, layer, tree

pytestmark = pytest.mark.root
LOWER = layer(
    entry("bin", "dir"), entry("bin/su", data=b"#!su", mode=0o4755),
    entry("etc/conf", data=b"old", uid=7, gid=8), entry("etc/gone"),
    entry("opt/a/b"), entry("tmp", "dir", mode=0o1777),
    entry("h1", data=b"hard", pax_headers={"mtime": "1500000000.123456789"}),
    entry("h2", "link", linkname="h1"),
    entry("s", "symlink", linkname="bin/su", uid=3),
    entry("cap", data=b"c", pax_headers={"SCHILY.xattr.user.k": "v"}),
    entry("null", "char", devmajor=1, devminor=3),
)  # fmt: skip
UPPER = layer(
    entry("etc", "dir"), entry("etc/.wh.gone"), entry("etc/conf", data=b"new"), entry("opt", "dir"),
    entry("opt/a", "dir"), entry("opt/a/.wh..wh..opq"), entry("opt/a/c", data=b"c"),
    entry("n" * 150, data=b"long"),
)  # fmt: skip


def needs(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs the program {program} (Debian: {program})")
    return found


def run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Store:
    """An image service with its parts at hand."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.root = root
        self.events: list[tuple[str, str, str]] = []
        self.driver: Driver = open_driver("overlay2", root)
        self.database = Database(root / "db")
        self.images = self.open()

    def open(self) -> ImageService:
        return ImageService(
            self.root,
            self.driver,
            self.database,
            lambda action, actor, more: self.events.append((action, actor, more["name"])),
        )

    def load(self, data: bytes | Path) -> list[str]:
        """The messages of `load`."""
        said: list[str] = []

        def progress(message: dict[str, Any]) -> None:
            if "stream" in message:
                said.append(message["stream"].rstrip("\n"))

        if isinstance(data, Path):
            with data.open("rb") as file:
                self.images.load(file, progress)
        else:
            self.images.load(io.BytesIO(data), progress)
        return said

    def save(self, *names: str) -> bytes:
        out = io.BytesIO()
        self.images.save(list(names), out)
        return out.getvalue()

    def files(self, image: Image) -> dict[str, tuple[object, ...]]:
        assert image.top_layer is not None
        path = self.driver.mount_layers_ro(image.top_layer)
        try:
            return tree(Path(path))
        finally:
            self.driver.unmount_layers_ro(image.top_layer)

    def blobs(self) -> set[str]:
        return set(os.listdir(self.root / "content/blobs/sha256"))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], Store]]:
    stores: list[Store] = []

    def store(name: str) -> Store:
        stores.append(Store(tmp_path / name))
        return stores[-1]

    yield store
    for one in stores:
        one.database.close()


@pytest.fixture
def store(make: Callable[[str], Store]) -> Store:
    return make("store")


def layout(
    tmp_path: Path,
    layers: list[tuple[bytes, str]],
    name: str | None = None,
    architectures: tuple[str, ...] = (),
    nested: bool = False,
) -> Path:
    """An OCI layout's tar; `layers` are uncompressed bytes with the compression to give them."""
    directory = tmp_path / "layout"
    shutil.rmtree(directory, ignore_errors=True)
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more}

    kind = "application/vnd.oci.image"
    compress = {"": bytes, "gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}
    stored = [
        put(compress[how](data), f"{kind}.layer.v1.tar" + (f"+{how}" if how else "")) for data, how in layers
    ]
    manifests = []
    for architecture in architectures or ("amd64",):
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["sh"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest() for data, _ in layers],
            },
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": put(json.dumps(config).encode(), f"{kind}.config.v1+json"),
            "layers": stored,
        }
        platform = {"platform": {"os": "linux", "architecture": architecture}} if architectures else {}
        manifests.append(put(json.dumps(manifest, indent=1).encode(), f"{kind}.manifest.v1+json", **platform))
    if nested:
        index = {"schemaVersion": 2, "manifests": manifests}
        manifests = [put(json.dumps(index).encode(), f"{kind}.index.v1+json")]
    if name:
        manifests[0]["annotations"] = {"org.opencontainers.image.ref.name": name}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    target = tmp_path / "layout.tar"
    run("tar", "-C", directory, "-cf", target, ".")
    return target


def test_import_save_load_gives_the_same_image(make: Callable[[str], Store]) -> None:
    first, second = make("first"), make("second")
    image_id = first.images.import_(
        io.BytesIO(gzip.compress(busybox_tar())), "busybox", ['CMD ["sh"]', "ENV A=b"], "from a test"
    )
    image = first.images.resolve("busybox")
    assert (image.id, image.config.cmd, image.config.env) == (image_id, ["sh"], ["A=b"])
    assert image.diff_ids == ["sha256:" + hashlib.sha256(busybox_tar()).hexdigest()]
    assert image.top_layer == image.diff_ids[0]
    assert first.images.history("busybox")[0].comment == "from a test"
    first.images.tag("busybox", "me/box:2")
    saved = first.save("busybox:latest", "me/box:2")
    assert saved == first.save("busybox:latest", "me/box:2")
    for compressed in (saved, gzip.compress(saved, 1), zstandard.ZstdCompressor().compress(saved)):
        assert second.load(compressed) == ["Loaded image: busybox:latest", "Loaded image: me/box:2"]
    again = second.images.resolve("me/box:2")
    assert again.id == image_id
    assert second.files(again) == first.files(image)
    assert second.save("busybox", "me/box") == saved
    assert second.load(second.save(image_id)) == [f"Loaded image ID: {image_id}"]
    assert [event[0] for event in first.events] == ["import", "tag", "save", "save"]


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_layouts_come_and_go_byte_for_byte(store: Store, tmp_path: Path, compression: str) -> None:
    path = layout(tmp_path, [(LOWER, compression), (UPPER, compression)], "quay.io/a/b:1")
    assert store.load(path) == ["Loaded image: quay.io/a/b:1"]
    sent = set(os.listdir(tmp_path / "layout/blobs/sha256"))
    assert store.blobs() == sent
    (tmp_path / "saved.tar").write_bytes(store.save("quay.io/a/b:1"))
    (tmp_path / "out").mkdir()
    run("tar", "-C", tmp_path / "out", "-xf", tmp_path / "saved.tar")
    for name in sent:
        assert (tmp_path / "out/blobs/sha256" / name).read_bytes() == (
            tmp_path / "layout/blobs/sha256" / name
        ).read_bytes()


def test_nested_indexes_choose_this_machine(store: Store, tmp_path: Path) -> None:
    path = layout(tmp_path, [(LOWER, "")], "x/y:1", ("s390x", "amd64", "arm64"), nested=True)
    store.load(path)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    assert store.images.resolve("x/y:1").architecture == machine
    assert len(store.images.list()) == 1


def test_debian_is_what_tar_unpacks(store: Store, tmp_path: Path) -> None:
    with debian_tar().open("rb") as file:
        store.images.import_(file, "debian")
    (tmp_path / "theirs").mkdir()
    options = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", tmp_path / "theirs"]
    run("tar", *options, "-xpf", debian_tar())
    top = store.images.resolve("debian").top_layer
    assert top is not None
    ours = tree(store.root / "overlay2/layers" / top[7:] / "diff")
    theirs = tree(tmp_path / "theirs")
    assert len(ours) > 5000
    assert {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)} == set()


def test_umoci_unpacks_the_same_tree(store: Store, tmp_path: Path) -> None:
    umoci = needs("umoci")
    store.load(layout(tmp_path, [(LOWER, "gzip"), (UPPER, "gzip")], "x:1"))
    run(umoci, "unpack", "--image", f"{tmp_path}/layout:x:1", tmp_path / "bundle")
    theirs = tree(tmp_path / "bundle/rootfs")
    ours = store.files(store.images.resolve("x:1"))
    # umoci gives implied directories and the parents of whiteouts other times than the layers'.
    assert {
        name: facts for name, facts in ours.items() if name in theirs and name not in ("opt", "opt/a", "etc")
    } == {name: facts for name, facts in theirs.items() if name not in ("opt", "opt/a", "etc")}
    assert {name[:4] for name in set(ours) - set(theirs)} <= {"dev", "dev/", "proc", "sys", "etc/", ".doc"}


def test_skopeo_reads_what_is_saved(store: Store, tmp_path: Path) -> None:
    skopeo = needs("skopeo")
    store.load(layout(tmp_path, [(LOWER, "gzip"), (UPPER, "")], "docker.io/me/app:1"))
    image = store.images.resolve("me/app:1")
    saved = tmp_path / "saved.tar"
    saved.write_bytes(store.save("me/app:1"))
    for number, source in enumerate((f"docker-archive:{saved}:me/app:1", f"oci-archive:{saved}:1")):
        run(skopeo, "copy", "--quiet", source, f"dir:{tmp_path}/d{number}")
        manifest = json.loads((tmp_path / f"d{number}/manifest.json").read_text())
        assert manifest["config"]["digest"] == image.id
    assert manifest == json.loads(
        (store.root / "content/blobs/sha256" / image.manifest_digest[7:]).read_text()
    )
    for kind in ("docker-archive", "oci-archive"):
        theirs = tmp_path / f"{kind}.tar"
        run(skopeo, "copy", "--quiet", f"oci-archive:{saved}:1", f"{kind}:{theirs}:again/{kind}:2")
        assert store.load(theirs) == [f"Loaded image: again/{kind}:2"]
        assert store.images.resolve(f"again/{kind}:2").id == image.id


@pytest.fixture
def docker() -> Iterator[Callable[..., str]]:
    """The real engine in namespaces of its own."""
    needs("dockerd")
    client = needs("docker")
    # Its containerd listens below here, and a socket's path may have 107 bytes only.
    with tempfile.TemporaryDirectory(prefix="dk-", dir="/tmp", ignore_cleanup_errors=True) as name:
        base = Path(name)
        socket, log = base / "docker.sock", base / "dockerd.log"
        command = [
            "unshare", "-nm", "dockerd", "-H", f"unix://{socket}", "--data-root", base / "dr",
            "--exec-root", base / "de", "--pidfile", base / "pid", "--bridge=none", "--iptables=false",
        ]  # fmt: skip
        with log.open("wb") as out:
            process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=out)
        deadline = time.monotonic() + 60
        try:
            while (
                not socket.exists()
                or subprocess.run([client, "-H", f"unix://{socket}", "info"], capture_output=True).returncode
            ):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"dockerd does not start here: {log.read_text()[-1000:]}", pytrace=False)
                time.sleep(0.2)
            yield lambda *words: run(client, "-H", f"unix://{socket}", *words)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_ids_are_those_of_the_real_engine(store: Store, tmp_path: Path, docker: Callable[..., str]) -> None:
    store.load(layout(tmp_path, [(LOWER, "gzip"), (UPPER, "")], "docker.io/me/app:1"))
    ours = store.images.resolve("me/app:1")
    saved = tmp_path / "saved.tar"
    saved.write_bytes(store.save("me/app:1"))
    assert docker("load", "-i", str(saved)) == "Loaded image: me/app:1\n"
    theirs = json.loads(docker("image", "inspect", "me/app:1"))[0]
    assert (theirs["Id"], theirs["RootFS"]["Layers"]) == (ours.id, ours.diff_ids)
    back = tmp_path / "back.tar"
    docker("save", "-o", str(back), "me/app:1")
    assert store.load(back) == ["Loaded image: me/app:1"]
    assert store.images.resolve("me/app:1").id == ours.id
    (tmp_path / "rootfs.tar").write_bytes(LOWER)
    docker("import", str(tmp_path / "rootfs.tar"), "imported")
    store.images.import_(io.BytesIO(LOWER), "imported")
    theirs = json.loads(docker("image", "inspect", "imported"))[0]
    assert theirs["RootFS"]["Layers"] == store.images.resolve("imported").diff_ids
    docker("save", "-o", str(back), "imported")
    store.load(back)
    assert store.images.resolve("imported").id == theirs["Id"]


def test_load_takes_a_name_from_the_image_that_had_it(store: Store) -> None:
    first = store.images.import_(io.BytesIO(LOWER), "a")
    saved = store.save("a")
    second = store.images.import_(io.BytesIO(UPPER), "a")
    assert first != second
    assert store.load(saved) == [
        f"The image a:latest already exists, renaming the old one with ID {second} to empty string",
        "Loaded image: a:latest",
    ]
    assert store.images.resolve(second).repo_tags == []


def test_records_without_content_are_dropped_at_start(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.images.import_(io.BytesIO(LOWER), "a")
    store.images.import_(io.BytesIO(UPPER), "b")
    blob = hashlib.sha256(LOWER).hexdigest()
    (store.root / "content/blobs/sha256" / blob).unlink()
    (store.root / "content/ingest/half").write_bytes(b"x")
    again = store.open()
    assert [image.repo_tags for image in again.list()] == [["b:latest"]]
    assert "image a:latest is dropped" in caplog.text
    with pytest.raises(NoSuchImage, match="No such image: a:latest"):
        again.resolve("a")
    assert len(store.driver.layers()) == 1
    assert len(store.blobs()) == 3
    assert os.listdir(store.root / "content/ingest") == []


def test_another_driver_unpacks_the_layers_again(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.load(store_archive := _archive_of(store))
    store.driver = open_driver("vfs", store.root)
    again = store.open()
    assert "a:latest: its layers were unpacked again for vfs" in caplog.text
    top = again.resolve("a").top_layer
    assert top is not None
    assert store.driver.has_layer(top)
    assert store_archive == store.save("a")


def _archive_of(store: Store) -> bytes:
    store.images.import_(io.BytesIO(LOWER), "a")
    return store.save("a")


def test_the_built_in_image_comes_once(make: Callable[[str], Store]) -> None:
    store, other = make("one"), make("two")
    store.images.import_(io.BytesIO(LOWER), "hello")
    archive = store.save("hello")
    assert other.images.add_builtin(archive)
    other.images.remove("hello", False, False, lambda _image: [])
    assert not other.images.add_builtin(archive)
    assert other.images.list() == []
    assert not store.images.add_builtin(archive)
