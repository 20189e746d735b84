"""Pulling from a real registry (Debian's docker-registry), through a proxy where the network is to fail."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sampan.database import Database
from sampan.errors import NotFound, SampanError
from sampan.images import Cancellation, ImageService, apart
from sampan.images import pull as module
from sampan.images.errors import NoSpace, PullCancelled
from sampan.oci import media_types
from sampan.oci.digest import DigestMismatch, sha256
from sampan.oci.image import InvalidImage
from sampan.oci.platforms import from_text
from sampan.oci.reference import parse
from sampan.registry import Registries, RegistryConfig, RegistryError
from sampan.storage import Driver, InvalidLayer, open_driver
from sampan.storage.compression import sniff
from sampan.storage.unpack_process import UnpackProcess
from support import needs
from support.images import debian_tar
from support.layers import entry, layer, tree
from support.proxy import Proxy
from support.registry import Registry

pytestmark = [pytest.mark.root, needs.program("docker-registry")]
BIG = random.Random(1).randbytes(3_000_000)  # does not compress


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def proxy(registry: Registry) -> Iterator[Proxy]:
    with Proxy(registry.port) as running:
        yield running


class Store:
    """Images in a directory of their own, with what was told and what happened."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = root
        self.driver: Driver = open_driver("overlay2", root)
        self.database = Database(root / "db")
        self.registries = Registries(RegistryConfig(retry_delay_s=0.05, **settings))
        self.events: list[tuple[str, str, dict[str, str]]] = []
        self.images = ImageService(
            root, self.driver, self.database, lambda *event: self.events.append(event), self.registries
        )

    def pull(
        self, name: str, platform: str = "", cancellation: Cancellation | None = None
    ) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        wanted = from_text(platform) if platform else None
        self.images.pull(parse(name), None, wanted, told.append, cancellation)
        return told

    def blobs(self) -> set[str]:
        return {f"sha256:{path.name}" for path in (self.root / "content/blobs/sha256").iterdir()}

    def is_empty(self) -> bool:
        ingest = list((self.root / "content/ingest").iterdir())
        stage = list((self.root / "overlay2/stage").iterdir())
        return not (self.blobs() or ingest or stage or self.driver.layers() or self.images.list())

    @contextmanager
    def rootfs(self, name: str) -> Iterator[Path]:
        self.driver.create_container("looked-at", self.images.resolve(name).top_layer)
        try:
            yield Path(self.driver.mount("looked-at"))
        finally:
            self.driver.remove_container("looked-at")

    def close(self) -> None:
        self.registries.close()
        self.database.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _roots(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()


def statuses(told: list[dict[str, Any]]) -> list[str]:
    """The messages without numbers, with their ids in front."""
    return [
        f"{message['id']}: {message['status']}" if "id" in message else message["status"]
        for message in told
        if not message.get("progressDetail")
    ]


def put_image(
    registry: Registry,
    repository: str,
    tag: str,
    layers: list[tuple[str, bytes]],
    diff_ids: list[str] | None = None,
    platform: tuple[str, str] = ("linux", "amd64"),
    change: Callable[[dict[str, Any]], None] = lambda _manifest: None,
) -> str:
    """An image whose layers are given as (media type, blob); the digest of its manifest."""
    if diff_ids is None:
        diff_ids = [sha256(unpacked(blob)) for _, blob in layers]
    config = json.dumps(
        {
            "os": platform[0],
            "architecture": platform[1],
            "config": {"Labels": {"made": "here"}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    ).encode()
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": {
            "mediaType": media_types.OCI_CONFIG,
            "digest": registry.put_blob(repository, config),
            "size": len(config),
        },
        "layers": [
            {"mediaType": kind, "digest": registry.put_blob(repository, blob), "size": len(blob)}
            for kind, blob in layers
        ],
    }
    change(manifest)
    return registry.put_manifest(repository, tag, manifest)


def unpacked(blob: bytes) -> bytes:
    if blob[:2] == b"\x1f\x8b":
        return gzip.decompress(blob)
    if blob[:4] == b"\x28\xb5\x2f\xfd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(blob)
    return blob


def big(name: str, data: bytes = BIG) -> tuple[str, bytes]:
    return media_types.OCI_LAYER, layer(entry(name, data=data))


def test_what_a_pull_brings_and_tells(store: Store, registry: Registry) -> None:
    digest = registry.fill("library/one", "v1", [{"a": b"1"}, {"b": b"2"}])
    manifest, _ = registry.manifest("library/one", "v1")
    name = f"{registry.host}/library/one:v1"
    told = statuses(store.pull(name))
    first, second = (blob["digest"][7:19] for blob in manifest["layers"])
    assert told[:3] == [
        "v1: Pulling from library/one", f"{first}: Pulling fs layer", f"{second}: Pulling fs layer",
    ]  # fmt: skip
    for one in (first, second):
        steps = [text.partition(": ")[2] for text in told if text.startswith(one)]
        assert steps == ["Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"]
    assert told[-2:] == [f"Digest: {digest}", f"Status: Downloaded newer image for {name}"]
    image = store.images.resolve(name)
    assert image.id == manifest["config"]["digest"]
    assert image.repo_tags == [name]
    assert image.repo_digests == [f"{registry.host}/library/one@{digest}"]
    assert image.manifest_digest == digest
    assert store.blobs() == {digest, image.id, *(blob["digest"] for blob in manifest["layers"])}
    assert (store.root / "content/blobs/sha256" / digest[7:]).read_bytes() == registry(
        "GET", f"library/one/manifests/{digest}", headers={"Accept": media_types.OCI_MANIFEST}
    )[2]
    with store.rootfs(name) as root:
        assert [(root / name).read_bytes() for name in ("a", "b")] == [b"1", b"2"]
    assert store.events == [("pull", name, {"name": f"{registry.host}/library/one"})]
    # Once more: nothing to do. Another tag of it: news, but nothing to download.
    assert statuses(store.pull(name))[1:] == [f"Digest: {digest}", f"Status: Image is up to date for {name}"]
    registry.fill("library/one", "v2", [{"a": b"1"}, {"b": b"2"}])
    other = f"{registry.host}/library/one:v2"
    assert statuses(store.pull(other))[1:] == [
        f"Digest: {digest}", f"Status: Downloaded newer image for {other}",
    ]  # fmt: skip


def test_a_moved_tag_leaves_the_old_image_without_it(store: Store, registry: Registry) -> None:
    name = f"{registry.host}/moves:latest"
    registry.fill("moves", "latest", [{"base": b"x"}, {"a": b"1"}])
    store.pull(name)
    before = store.images.resolve(name)
    registry.fill("moves", "latest", [{"base": b"x"}, {"a": b"2"}])
    told = statuses(store.pull(name))
    assert sum("Already exists" in text for text in told) == 1
    old = store.images.resolve(before.id)
    assert old.repo_tags == []
    assert len(old.repo_digests) == 1
    assert store.images.resolve(name).id != before.id


def test_by_digest_there_is_no_tag(store: Store, registry: Registry) -> None:
    digest = registry.fill("by/digest", "x")
    told = statuses(store.pull(f"{registry.host}/by/digest@{digest}"))
    assert told[0] == f"{digest}: Pulling from by/digest"
    image = store.images.resolve(f"{registry.host}/by/digest@{digest}")
    assert (image.repo_tags, image.repo_digests) == ([], [f"{registry.host}/by/digest@{digest}"])


def test_all_tags(store: Store, registry: Registry) -> None:
    for tag in ("1", "2", "3"):
        registry.fill("many", tag, [{"tag": tag.encode()}])
    told = statuses(store.pull(f"{registry.host}/many"))
    assert sorted(text for text in told if "Pulling from" in text) == [
        f"{tag}: Pulling from many" for tag in "123"
    ]
    assert told[-1] == f"Status: Downloaded newer image for {registry.host}/many"
    assert sorted(tag for image in store.images.list() for tag in image.repo_tags) == [
        f"{registry.host}/many:{tag}" for tag in "123"
    ]


def index(registry: Registry, repository: str, tag: str, entries: list[dict[str, Any]], kind: str) -> str:
    return registry.put_manifest(
        repository, tag, {"schemaVersion": 2, "mediaType": kind, "manifests": entries}
    )


def entry_of(digest: str, platform: str, **more: Any) -> dict[str, Any]:
    system, architecture, *variant = platform.split("/")
    told = {"os": system, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
    return {"mediaType": media_types.OCI_MANIFEST, "digest": digest, "platform": told, **more}


@pytest.mark.parametrize("kind", [media_types.OCI_INDEX, media_types.DOCKER_INDEX])
def test_an_index_for_several_platforms(store: Store, registry: Registry, kind: str) -> None:
    repository = "multi" + str(len(kind))
    plain = [(media_types.OCI_LAYER, layer(entry("arch")))]
    made = {
        platform: put_image(
            registry, repository, f"t{number}", [(media_types.OCI_LAYER, layer(entry(platform)))]
        )
        for number, platform in enumerate(("linux/arm/v5", "linux/arm/v6", "linux/386", "linux/amd64"))
    }

    def size(digest: str) -> int:
        return len(
            registry("GET", f"{repository}/manifests/{digest}", headers={"Accept": media_types.OCI_MANIFEST})[
                2
            ]
        )

    entries = [entry_of(digest, platform, size=size(digest)) for platform, digest in made.items()]
    attestation = put_image(registry, repository, "att", plain)
    entries.insert(0, entry_of(attestation, "unknown/unknown", size=size(attestation)))
    marked = {"vnd.docker.reference.type": "attestation-manifest"}
    entries.insert(0, entry_of(attestation, "linux/amd64", size=size(attestation), annotations=marked))
    inner = index(registry, repository, "inner", entries, kind)
    inner_size = len(registry("GET", f"{repository}/manifests/{inner}", headers={"Accept": kind})[2])
    nested = [{"mediaType": kind, "digest": inner, "size": inner_size}]
    outer = index(registry, repository, "outer", nested, kind)
    name = f"{registry.host}/{repository}:outer"
    for platform, taken in (
        ("", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64"),
        ("linux/386", "linux/386"),
        ("linux/arm/v7", "linux/arm/v6"),
        ("linux/arm/v5", "linux/arm/v5"),
        ("linux/arm64", "linux/arm/v6"),
    ):
        told = statuses(store.pull(name, platform))
        image = store.images.resolve(name)
        assert image.manifest_digest == made[taken], platform
        assert f"Digest: {outer}" in told
        assert f"{registry.host}/{repository}@{outer}" in image.repo_digests
    store.images.collect_garbage()
    assert {outer, inner} <= store.blobs()  # as they came
    with pytest.raises(NotFound, match="no matching manifest for linux/arm/v4 in the manifest list entries"):
        store.pull(name, "linux/arm/v4")
    with pytest.raises(NotFound, match="no matching manifest for windows/amd64 in the manifest list entries"):
        store.pull(name, "windows/amd64")


def test_one_image_for_another_platform_comes_with_a_warning(store: Store, registry: Registry) -> None:
    put_image(registry, "foreign", "arm", [big("x", b"1")], platform=("linux", "arm64"))
    told = statuses(store.pull(f"{registry.host}/foreign:arm", "linux/s390x"))
    assert told[-1].startswith("WARNING: image with reference")
    assert store.images.resolve(f"{registry.host}/foreign:arm").architecture == "arm64"


@needs.program("umoci")
@needs.program("skopeo")
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_every_file_is_as_umoci_unpacks_it(
    store: Store, registry: Registry, tmp_path: Path, compression: str
) -> None:
    """A Debian and a second layer with whiteouts and everything that a file can have."""
    work, layout = tmp_path / "work", tmp_path / "layout"
    work.mkdir()
    above = layer(
        entry("etc/.wh.passwd"), entry("usr/share/doc/.wh..wh..opq"), entry("usr/share/doc/new", data=b"new"),
        entry("odd", "dir", mode=0o2750, uid=12, gid=34, pax_headers={"mtime": "1234567890.987654321"}),
        entry("odd/null", "char", devmajor=1, devminor=3, mode=0o666), entry("odd/fifo", "fifo"),
        entry("odd/hard", data=b"one", mode=0o4755),
        entry("odd/hard2", "link", linkname="odd/hard", mode=0o4755),
        entry("odd/link", "symlink", linkname="../../outside"),
        entry("odd/x", data=b"x", pax_headers={"SCHILY.xattr.user.colour": "blue", "mtime": "1.000000001"}),
    )  # fmt: skip
    (work / "above.tar").write_bytes(above)
    for command in (
        ["umoci", "init", "--layout", str(layout)],
        ["umoci", "new", "--image", f"{layout}:x"],
        ["umoci", "raw", "add-layer", "--image", f"{layout}:x", str(debian_tar())],
        ["umoci", "raw", "add-layer", "--image", f"{layout}:x", str(work / "above.tar")],
        ["umoci", "unpack", "--image", f"{layout}:x", str(work / "bundle")],
    ):
        subprocess.run(command, check=True, capture_output=True)
    if compression == "gzip":
        copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:x"]
        subprocess.run([*copy, f"docker://{registry.host}/debian/gzip:x"], check=True)
    else:
        plain = [debian_tar().read_bytes(), above]
        packed = [zstandard.compress(one, 1) if compression == "zstd" else one for one in plain]
        kind = media_types.layer_type("zstd" if compression == "zstd" else "")
        put_image(registry, f"debian/{compression}", "x", [(kind, one) for one in packed])
    name = f"{registry.host}/debian/{compression}:x"
    store.pull(name)
    manifest, _ = registry.manifest(f"debian/{compression}", "x")
    start = (store.root / "content/blobs/sha256" / manifest["layers"][0]["digest"][7:]).read_bytes()[:4]
    assert sniff(start + b"  ") == ("" if compression == "none" else compression)
    with store.rootfs(name) as root:
        ours, theirs = tree(root), tree(work / "bundle/rootfs")
    for path in (".", "dev", "etc", "proc", "sys", "run"):  # the engine's own mount points
        ours.pop(path, None), theirs.pop(path, None)
    differing = {path for path in ours | theirs if ours.get(path) != theirs.get(path)}
    made_by_engine = {
        "dev/pts",
        "dev/shm",
        "etc/hostname",
        "etc/hosts",
        "etc/mtab",
        "etc/resolv.conf",
        ".dockerenv",
    }
    made_by_engine |= {"dev/console"}
    assert differing - made_by_engine == set(), {
        path: (ours.get(path), theirs.get(path)) for path in sorted(differing - made_by_engine)[:5]
    }
    assert "etc/passwd" not in ours
    assert ours["odd/x"][4] == 1_000_000_001


# --- a network that fails ---


def test_a_broken_connection_goes_on_where_it_was(store: Store, registry: Registry, proxy: Proxy) -> None:
    put_image(registry, "cut", "x", [big("big")])
    proxy.cuts = [500_000, 900_000, 700_000]
    told = statuses(store.pull(f"{proxy.host}/cut:x"))
    assert proxy.cut == 3
    assert proxy.passed < len(BIG) * 1.2  # every byte once, and the heads
    assert any("Retrying in 1 second" in text for text in told)
    with store.rootfs(f"{proxy.host}/cut:x") as root:
        assert (root / "big").read_bytes() == BIG


def test_the_next_pull_resumes_what_a_failed_one_left(
    tmp_path: Path, registry: Registry, proxy: Proxy
) -> None:
    store = Store(tmp_path / "store", max_download_attempts=1)
    put_image(registry, "again", "x", [big("small", b"1"), big("big")])
    name = f"{proxy.host}/again:x"
    proxy.cuts = [2_000_000]
    with pytest.raises(RegistryError):
        store.pull(name)
    assert not store.images.list()
    before = proxy.passed
    told = statuses(store.pull(name))
    assert proxy.passed - before < len(BIG) - 1_500_000
    assert told[-1].startswith("Status: Downloaded newer image")
    with store.rootfs(name) as root:
        assert (root / "big").read_bytes() == BIG
    assert not list((store.root / "content/ingest").iterdir())
    store.close()


def test_what_a_failed_pull_left_goes_after_a_while(
    tmp_path: Path, registry: Registry, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEP_S", 0.5)
    store = Store(tmp_path / "store", max_download_attempts=1)
    put_image(registry, "goes", "x", [big("first", BIG[:1000]), big("big", BIG[::-1])])
    proxy.cuts = [2_000_000]
    with pytest.raises(RegistryError):
        store.pull(f"{proxy.host}/goes:x")
    assert not store.is_empty()
    limit = time.monotonic() + 10
    while not store.is_empty() and time.monotonic() < limit:
        time.sleep(0.05)
    assert store.is_empty()
    store.close()


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[Exception]]:
    problems: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, problems


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_two_pulls_at_once_download_once(store: Store, registry: Registry, proxy: Proxy) -> None:
    """The same image twice, and another image with one of its layers."""
    shared = big("shared", BIG[1:])
    put_image(registry, "twice", "x", [shared, big("own")])
    put_image(registry, "twice", "y", [big("lower", b"1"), shared])
    proxy.hold_after = 1_000_000
    proxy.hold.clear()
    first = in_thread(lambda: store.pull(f"{proxy.host}/twice:x"))
    until(lambda: proxy.passed > 1_000_000)
    others = [in_thread(lambda tag=tag: store.pull(f"{proxy.host}/twice:{tag}")) for tag in ("x", "y")]
    time.sleep(0.5)
    proxy.hold.set()
    for thread, problems in (first, *others):
        thread.join(60)
        assert problems == []
    for _, blob in (shared, big("own")):
        asked = [
            line for line in registry.requests() if line.startswith(f"GET /v2/twice/blobs/{sha256(blob)} ")
        ]
        assert asked == [f"GET /v2/twice/blobs/{sha256(blob)} 200"]
    for tag in ("x", "y"):
        with store.rootfs(f"{proxy.host}/twice:{tag}") as root:
            assert (root / "shared").read_bytes() == BIG[1:]


def test_a_download_goes_on_while_one_of_two_still_waits(
    store: Store, registry: Registry, proxy: Proxy
) -> None:
    put_image(registry, "leave", "x", [big("one", BIG[2:])])
    proxy.hold_after = 1_000_000
    proxy.hold.clear()
    leaver = Cancellation()
    first = in_thread(lambda: store.pull(f"{proxy.host}/leave:x", cancellation=leaver))
    until(lambda: proxy.passed > 1_000_000)
    second = in_thread(lambda: store.pull(f"{proxy.host}/leave:x"))
    time.sleep(0.3)
    leaver.set()
    first[0].join(20)
    assert [type(error) for error in first[1]] == [PullCancelled]
    proxy.hold.set()
    second[0].join(60)
    assert second[1] == []
    assert proxy.passed < len(BIG) * 1.2
    assert store.images.resolve(f"{proxy.host}/leave:x")


def test_the_last_to_leave_cancels(store: Store, registry: Registry, proxy: Proxy) -> None:
    put_image(registry, "cancel", "x", [big("one", BIG[3:]), big("two", BIG[4:])])
    proxy.rate = 2_000_000
    leaver = Cancellation()
    thread, problems = in_thread(lambda: store.pull(f"{proxy.host}/cancel:x", cancellation=leaver))
    until(lambda: proxy.passed > 1_000_000)
    leaver.set()
    thread.join(20)
    assert [type(error) for error in problems] == [PullCancelled]
    time.sleep(0.5)
    stopped = proxy.passed
    time.sleep(0.5)
    assert proxy.passed - stopped < 500_000  # what was on its way
    assert store.images.list() == []
    proxy.rate = 0
    store.pull(f"{proxy.host}/cancel:x")
    with store.rootfs(f"{proxy.host}/cancel:x") as root:
        assert (root / "one").read_bytes() == BIG[3:]
        assert (root / "two").read_bytes() == BIG[4:]


def test_no_more_downloads_at_a_time_than_allowed(tmp_path: Path, registry: Registry, proxy: Proxy) -> None:
    store = Store(tmp_path / "store", max_concurrent_downloads=1)
    put_image(registry, "queue", "x", [big(f"f{number}", BIG[number:100_000]) for number in range(4)])
    told = statuses(store.pull(f"{proxy.host}/queue:x"))
    assert sum(text.endswith(": Waiting") for text in told) >= 2
    verified = [text for text in told if text.endswith(("Verifying Checksum", "Download complete"))]
    assert [text.partition(": ")[2] for text in verified] == ["Verifying Checksum", "Download complete"] * 4
    store.close()


# --- registries that are wrong ---


def lie(
    repository: str, registry: Registry, store: Store, kind: type[Exception], match: str | None = None
) -> None:
    with pytest.raises(kind, match=match):
        store.pull(f"{registry.host}/{repository}:x")
    assert store.is_empty(), "something of a refused image stayed"


def test_a_wrong_diff_id(store: Store, registry: Registry) -> None:
    wrong = [big("a", b"1"), (media_types.OCI_LAYER_GZIP, gzip.compress(layer(entry("b"))))]
    put_image(registry, "lies/diff", "x", wrong, [sha256(unpacked(wrong[0][1])), sha256(b"another")])
    lie("lies/diff", registry, store, DigestMismatch, "but the image says")


def test_a_plain_layer_that_is_not_its_diff_id(store: Store, registry: Registry) -> None:
    put_image(registry, "lies/plain", "x", [big("a", b"1")], [sha256(b"another")])
    lie("lies/plain", registry, store, DigestMismatch, "but the image says")


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_wrong_size(store: Store, registry: Registry, difference: int) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["layers"][0]["size"] += difference

    repository = f"lies/size{difference + 1}"
    try:
        put_image(registry, repository, "x", [big("a", b"1")], change=change)
    except AssertionError:
        pytest.skip("this registry checks sizes itself")
    lie(repository, registry, store, SampanError)


def test_a_blob_that_the_registry_spoiled(store: Store, registry: Registry) -> None:
    _, blob = big("spoiled", BIG[5:])
    put_image(registry, "lies/blob", "x", [(media_types.OCI_LAYER, blob)])
    digest = sha256(blob)[7:]
    (path,) = registry.data.rglob(f"sha256/{digest[:2]}/{digest}/data")
    with path.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"spoiled")
    lie("lies/blob", registry, store, DigestMismatch, f"verification failed for digest {sha256(blob)}")


def test_layers_that_do_not_fit_the_config(store: Store, registry: Registry) -> None:
    put_image(registry, "lies/count", "x", [big("a", b"1")], [])
    lie("lies/count", registry, store, InvalidImage, "layers from manifest don't match image configuration")


def test_a_decompression_bomb(store: Store, registry: Registry) -> None:
    size = 3 << 30
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    info, _ = entry("zeros")
    info.size = size
    parts = [packer.compress(info.tobuf())]
    zeros = bytes(16 << 20)
    parts += [packer.compress(zeros) for _ in range(size // len(zeros))]
    blob = b"".join([*parts, packer.compress(bytes(1024)), packer.flush()])
    assert len(blob) < 2_000_000
    put_image(registry, "lies/bomb", "x", [(media_types.OCI_LAYER_ZSTD, blob)], [sha256(b"")])
    lie("lies/bomb", registry, store, InvalidLayer, "bomb")


def test_a_layer_that_is_no_archive(store: Store, registry: Registry) -> None:
    put_image(registry, "lies/garbage", "x", [(media_types.OCI_LAYER, b"garbage" * 1000)])
    lie("lies/garbage", registry, store, InvalidLayer)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("application/vnd.oci.empty.v1+json", r'Encountered remote ".*"\(unknown\) when fetching'),
        ("application/vnd.docker.plugin.v1+json", r'Encountered remote ".*"\(plugin\) when fetching'),
    ],
)
def test_what_is_no_image(store: Store, registry: Registry, kind: str, message: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["config"]["mediaType"] = kind

    put_image(registry, "lies/artifact", "x", [big("a", b"1")], change=change)
    lie("lies/artifact", registry, store, InvalidImage, message)


def test_an_image_for_another_system(store: Store, registry: Registry) -> None:
    put_image(registry, "lies/windows", "x", [big("a", b"1")], platform=("windows", "amd64"))
    lie("lies/windows", registry, store, InvalidImage, 'operating system "windows" when requesting "linux"')


def test_a_layer_of_an_unknown_kind(store: Store, registry: Registry) -> None:
    encrypted = media_types.OCI_LAYER_GZIP + "+encrypted"
    put_image(registry, "lies/encrypted", "x", [(encrypted, layer(entry("a")))])
    lie("lies/encrypted", registry, store, InvalidImage, "unsupported media type .*encrypted")


def test_a_foreign_layer_is_refused_by_name(store: Store, registry: Registry) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["layers"].append(
            {
                "mediaType": media_types.OCI_LAYER_NONDISTRIBUTABLE + "+gzip",
                "digest": sha256(b"elsewhere"),
                "size": 9,
                "urls": ["http://127.0.0.1:9/elsewhere"],
            }
        )

    diff_ids = [sha256(big("a", b"1")[1]), sha256(b"elsewhere")]
    put_image(registry, "lies/foreign", "x", [big("a", b"1")], diff_ids, change=change)
    lie("lies/foreign", registry, store, InvalidImage, "foreign layer")


def test_what_is_not_there(store: Store, registry: Registry) -> None:
    registry.fill("there", "x")
    for name in ("there:nope", f"there@{sha256(b'')}", "nowhere:latest"):
        with pytest.raises(NotFound) as caught:
            store.pull(f"{registry.host}/{name}")
        assert caught.value.message.startswith(f"manifest for {registry.host}/{name} not found: ")
        assert caught.value.status == 404
    assert store.is_empty()


def test_a_full_disk_leaves_nothing_and_gives_the_space_back(tmp_path: Path, registry: Registry) -> None:
    root = tmp_path / "small-disk"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(root)], check=True)
    try:
        store = Store(root)
        before = os.statvfs(root).f_bavail
        random_bytes = random.Random(2).randbytes(30_000_000)
        put_image(registry, "full", "x", [(media_types.OCI_LAYER, layer(entry("big", data=random_bytes)))])
        with pytest.raises(NoSpace, match="no space left on device"):
            store.pull(f"{registry.host}/full:x")
        assert store.is_empty()
        store.driver.purge_trash()
        spent = (before - os.statvfs(root).f_bavail) * os.statvfs(root).f_frsize
        assert spent < 2 << 20  # the database, and the reserve beside it
        store.close()
    finally:
        subprocess.run(["umount", str(root)], check=True)


def test_a_disk_that_fills_up_while_it_unpacks(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "small-disk"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(root)], check=True)
    try:
        store = Store(root)
        blob = gzip.compress(layer(entry("zeros", data=bytes(90_000_000))), 1)
        put_image(registry, "fills", "x", [(media_types.OCI_LAYER_GZIP, blob)])
        with pytest.raises((InvalidLayer, NoSpace, OSError), match=r"(?i)no space"):
            store.pull(f"{registry.host}/fills:x")
        assert store.is_empty()
        store.close()
    finally:
        subprocess.run(["umount", str(root)], check=True)


def test_a_slow_reader_of_messages_gets_few_of_them(store: Store, registry: Registry, proxy: Proxy) -> None:
    put_image(registry, "slow", "x", [big("one", BIG[6:])])
    proxy.rate = 3_000_000
    told = store.pull(f"{proxy.host}/slow:x")
    numbers = [message for message in told if message["status"] == "Downloading"]
    assert 3 <= len(numbers) <= 25
    assert all(message["progressDetail"]["total"] > 2_900_000 for message in numbers)
    assert [m["progressDetail"]["current"] for m in numbers] == sorted(
        m["progressDetail"]["current"] for m in numbers
    )


# --- by another process ---


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[UnpackProcess]:
    """The unpacking processes that pulls start, which they do for small layers here."""
    made: list[UnpackProcess] = []

    class Noted(UnpackProcess):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(apart, "APART_BYTES", 100_000)
    monkeypatch.setattr(apart, "UnpackProcess", Noted)
    return made


def ended(processes: list[UnpackProcess]) -> bool:
    return all(process._process.poll() is not None for process in processes)


def test_large_layers_are_unpacked_by_one_process(
    store: Store, registry: Registry, processes: list[UnpackProcess]
) -> None:
    plain = layer(
        entry("d", "dir", mode=0o711), entry("d/one", data=BIG), entry("d/l", "link", linkname="d/one")
    )
    packed = gzip.compress(layer(entry("d", "dir", mode=0o700), entry("d/.wh.l"), entry("two", data=BIG)), 1)
    layers = [
        (media_types.OCI_LAYER, plain), (media_types.OCI_LAYER_GZIP, packed), big("small", b"3"),
    ]  # fmt: skip
    put_image(registry, "apart", "x", layers)
    told = statuses(store.pull(f"{registry.host}/apart:x"))
    assert len(processes) == 1
    assert ended(processes)
    assert sum(text.endswith(": Pull complete") for text in told) == 3
    with store.rootfs(f"{registry.host}/apart:x") as root:
        assert (root / "d/one").read_bytes() == (root / "two").read_bytes() == BIG
        assert sorted(os.listdir(root / "d")) == ["one"]
        assert (root / "d").stat().st_mode & 0o777 == 0o700
        assert (root / "small").exists()


def test_a_layer_that_looks_at_those_below_is_unpacked_here(
    store: Store, registry: Registry, processes: list[UnpackProcess]
) -> None:
    below = layer(entry("d", "dir", mode=0o1777, uid=7), entry("d/x", data=BIG))
    put_image(
        registry, "needs", "x",
        [(media_types.OCI_LAYER, below), big("d/y", BIG[1:]), big("z", BIG[2:])],
    )  # fmt: skip
    store.pull(f"{registry.host}/needs:x")
    assert len(processes) == 2  # the second layer cost one
    assert ended(processes)
    with store.rootfs(f"{registry.host}/needs:x") as root:
        assert (root / "d").stat().st_mode & 0o7777 == 0o1777
        assert (root / "d").stat().st_uid == 7
        assert (root / "d/y").read_bytes() == BIG[1:]


def test_a_process_that_is_killed_costs_only_time(
    store: Store, registry: Registry, proxy: Proxy, processes: list[UnpackProcess]
) -> None:
    put_image(registry, "killed", "x", [big("one", BIG[5:])])
    proxy.hold_after = 1_000_000
    proxy.hold.clear()
    thread, problems = in_thread(lambda: store.pull(f"{proxy.host}/killed:x"))
    until(lambda: proxy.passed > 1_000_000 and len(processes) == 1)
    processes[0].kill()
    proxy.hold.set()
    thread.join(60)
    assert problems == []
    with store.rootfs(f"{proxy.host}/killed:x") as root:
        assert (root / "one").read_bytes() == BIG[5:]


def test_what_is_wrong_and_what_is_cancelled_leaves_no_process(
    store: Store, registry: Registry, proxy: Proxy, processes: list[UnpackProcess]
) -> None:
    put_image(registry, "wrong", "x", [big("one", BIG[6:])], diff_ids=[sha256(b"another")])
    with pytest.raises(DigestMismatch):
        store.pull(f"{registry.host}/wrong:x")
    noise = (media_types.OCI_LAYER, b"noise" * 50_000)
    put_image(registry, "wrong", "y", [noise])
    with pytest.raises(InvalidLayer):
        store.pull(f"{registry.host}/wrong:y")
    put_image(registry, "wrong", "z", [big("one", BIG[7:])])
    proxy.hold_after = 1_000_000
    proxy.hold.clear()
    leaver = Cancellation()
    thread, problems = in_thread(lambda: store.pull(f"{proxy.host}/wrong:z", cancellation=leaver))
    until(lambda: proxy.passed > 1_000_000)
    leaver.set()
    proxy.hold.set()
    thread.join(60)
    assert [type(error) for error in problems] == [PullCancelled]
    assert len(processes) == 3
    assert ended(processes)
    assert list((store.root / "overlay2/stage").iterdir()) == []
