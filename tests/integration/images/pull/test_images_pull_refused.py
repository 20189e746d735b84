"""Pulling from registries that are wrong, and onto a full disk: nothing stays of what is refused."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sampan.errors import NotFound, SampanError
from sampan.images.errors import NoSpace
from sampan.oci import media_types
from sampan.oci.digest import DigestMismatch, sha256
from sampan.oci.image import InvalidImage
from sampan.storage import InvalidLayer
from sampan.storage.limits import Limits
from support import needs
from support.layers import entry, layer
from support.proxy import Proxy
from support.pulling import BIG, Store, big, put_image, unpacked
from support.registry import Registry

pytestmark = [pytest.mark.root, needs.program("docker-registry")]


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


def test_a_decompression_bomb(store: Store, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a lower limit than the real one, which takes seconds to reach."""
    assert Limits().ratio_from_bytes == 2 << 30
    for module in ("compression", "unpack"):
        monkeypatch.setattr(f"sampan.storage.{module}.Limits", lambda: Limits(ratio_from_bytes=256 << 20))
    size = 512 << 20
    info, _ = entry("zeros")
    info.size = size
    zeros = 16 << 20
    frames = [zstandard.compress(info.tobuf(), 1), zstandard.compress(bytes(zeros), 1) * (size // zeros)]
    blob = b"".join([*frames, zstandard.compress(bytes(1024), 1)])
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
