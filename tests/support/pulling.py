"""A store of images of its own to pull into, and images for a registry, good ones and others."""

from __future__ import annotations

import gzip
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zstandard

from sampan.database import Database
from sampan.images import Cancellation, ImageService
from sampan.oci import media_types
from sampan.oci.digest import sha256
from sampan.oci.platforms import from_text
from sampan.oci.reference import parse
from sampan.registry import Registries, RegistryConfig
from sampan.storage import Driver, open_driver
from support.layers import entry, layer
from support.registry import Registry

BIG = random.Random(1).randbytes(3_000_000)  # does not compress


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
