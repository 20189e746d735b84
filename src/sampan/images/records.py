"""The images' tables, and what may be deleted because nothing in them names it any more."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sampan.database import Database
from sampan.errors import SampanError
from sampan.images.content import ContentStore, Lease
from sampan.images.errors import BrokenContent, NoSuchImage
from sampan.images.image import TABLES, Image
from sampan.images.settling import Settling, flush_file_system
from sampan.images.sources import BlobSources
from sampan.oci.image import DOCUMENT_LIMIT_BYTES, Descriptor, ImageDocument, parse_image, parse_manifest
from sampan.oci.reference import Reference, parse
from sampan.storage import Driver

_log = logging.getLogger(__name__)
_COLUMNS = "id, manifest, size_bytes, parent, added_at_ns, tagged_at_ns"
_parse = functools.lru_cache(1024)(parse)


class ImageRecords:
    """Which images there are, what they are called and what they consist of.

    Args:
        root: the data root; the content store is `content` in it.
        driver: where the layers are.
        database: the daemon's database.
    """

    def __init__(self, root: Path, driver: Driver, database: Database) -> None:
        self.content = ContentStore(root / "content")
        self.driver = driver
        self.database = database
        self.sources = BlobSources(database)
        self._documents: dict[str, ImageDocument] = {}
        self._manifests: dict[str, Descriptor] = {}
        self._layer_locks: dict[str, threading.Lock] = {}
        database.script(TABLES)
        self.settling = Settling(database, self._flush)

    def _flush(self) -> None:
        self.driver.sync()
        flush_file_system(self.content.blobs)

    # --- reading ---

    def get(self, image_id: str) -> Image | None:
        """The image with this complete id."""
        rows = self.database.execute(f"SELECT {_COLUMNS} FROM images WHERE id = ?", (image_id,))
        if not rows:
            return None
        try:
            return self._image(rows[0], self.names(image_id))
        except BrokenContent:
            if self._is_recorded(image_id):
                raise
            return None  # removed between the two looks

    def _is_recorded(self, image_id: str) -> bool:
        return bool(self.database.execute("SELECT 1 FROM images WHERE id = ?", (image_id,)))

    def all(self) -> list[Image]:
        """Every image, the newest first. One whose config document cannot be read is left out and logged."""
        with self.database.transaction():
            rows = self.database.execute(f"SELECT {_COLUMNS} FROM images ORDER BY added_at_ns DESC")
            named = self.database.execute("SELECT image, name FROM image_names ORDER BY name")
        names: dict[str, list[Reference]] = {}
        for image_id, name in named:
            names.setdefault(image_id, []).append(_parse(name))
        images = []
        for row in rows:
            try:
                images.append(self._image(row, names.get(row[0], [])))
            except SampanError as error:
                if self._is_recorded(row[0]):
                    _log.warning("image %s is left out of lists: %s", row[0], error.message)
        return images

    def _image(self, row: tuple[Any, ...], names: list[Reference]) -> Image:
        image_id, manifest, size, parent, added, tagged = row
        document = self.document(image_id)
        return Image(
            id=image_id,
            document=document,
            names=names,
            top_layer=document.top_layer,
            size_bytes=size,
            manifest_digest=manifest,
            parent=parent,
            added_at_ns=added,
            tagged_at_ns=tagged,
        )

    def document(self, image_id: str) -> ImageDocument:
        """The parsed config document of an image; do not change it.

        Raises:
            BrokenContent: the store no longer has it, or has something else in its place.
        """
        known = self._documents.get(image_id)
        if known is None:
            known = parse_image(self.content.checked(image_id, DOCUMENT_LIMIT_BYTES))
            self._documents[image_id] = known
        return known

    def __contains__(self, image_id: str) -> bool:
        return bool(self.database.execute("SELECT 1 FROM images WHERE id = ?", (image_id,)))

    def ids(self) -> list[str]:
        """Every image, the newest first."""
        return [row[0] for row in self.database.execute("SELECT id FROM images ORDER BY added_at_ns DESC")]

    def ids_with_prefix(self, digits: str) -> list[str]:
        """The images whose id begins with these hex digits."""
        low = "sha256:" + digits
        return [
            row[0]
            for row in self.database.execute(
                "SELECT id FROM images WHERE id >= ? AND id < ?", (low, low + "g")
            )
        ]

    def named(self, reference: Reference) -> str | None:
        """The id of the image that has exactly this tag or digest."""
        rows = self.database.execute("SELECT image FROM image_names WHERE name = ?", (str(reference),))
        return rows[0][0] if rows else None

    def names(self, image_id: str) -> list[Reference]:
        """The image's tags and digests, sorted."""
        rows = self.database.execute(
            "SELECT name FROM image_names WHERE image = ? ORDER BY name", (image_id,)
        )
        return [_parse(row[0]) for row in rows]

    def children(self, image_id: str) -> list[str]:
        """The images made from this one."""
        return [
            row[0] for row in self.database.execute("SELECT id FROM images WHERE parent = ?", (image_id,))
        ]

    def layer_blobs(self, image_id: str) -> list[tuple[str, str]]:
        """Blob digest and chain id of each layer, lowest first."""
        return [
            (row[0], row[1])
            for row in self.database.execute(
                "SELECT blob, layer FROM image_layers WHERE image = ? ORDER BY position", (image_id,)
            )
        ]

    def has_unpacked(self, blob: str) -> bool:
        """Whether the driver has a layer that came from this blob."""
        rows = self.database.execute("SELECT DISTINCT layer FROM image_layers WHERE blob = ?", (blob,))
        return any(self.driver.has_layer(row[0]) for row in rows)

    def layer_size(self, layer: str) -> int:
        """The size of a layer's files in bytes; 0 for one that the driver has lost."""
        return self.driver.layer_size(layer) if self.driver.has_layer(layer) else 0

    def manifest_descriptor(self, image: Image) -> Descriptor:
        """The manifest that belongs to an image.

        Raises:
            BrokenContent, InvalidImage: it is lost, or no manifest.
        """
        known = self._manifests.get(image.manifest_digest)
        if known is None:
            data = self.content.checked(image.manifest_digest, DOCUMENT_LIMIT_BYTES)
            media_type = parse_manifest(data).media_type
            known = Descriptor(media_type, image.manifest_digest, len(data))
            self._manifests[image.manifest_digest] = known
        return known

    def content_size(self, image: Image) -> int:
        """The sum of the sizes of an image's blobs in bytes."""
        names = {image.id, image.manifest_digest, *(blob for blob, _ in self.layer_blobs(image.id))}
        return sum(self.content.size(name) for name in names)

    def hold(self, lease: Lease, image_id: str) -> list[str]:
        """Have a lease keep all that an image consists of.

        Returns:
            its layers' blobs, lowest first.

        Raises:
            NoSuchImage: it has been removed meanwhile.
        """
        with self.content.lock:
            names = self.references(image_id)
            if not self._is_recorded(image_id):
                raise NoSuchImage(f"No such image: {image_id}")
            lease.add(*names)
            return [blob for blob, _ in self.layer_blobs(image_id)]

    # --- writing ---

    def add(
        self,
        image_id: str,
        document: ImageDocument,
        manifest_digest: str,
        blobs: list[str],
        parent: str = "",
    ) -> None:
        """Record an image whose blobs and layers are all here; an image that is known stays as it was."""
        chain = document.chain_ids
        size = sum(self.driver.layer_size(layer) for layer in chain)
        with self.database.transaction():
            if self.database.execute("SELECT 1 FROM images WHERE id = ?", (image_id,)):
                return
            self.database.execute(
                "INSERT INTO images (id, manifest, size_bytes, parent, added_at_ns) VALUES (?, ?, ?, ?, ?)",
                (image_id, manifest_digest, size, parent, time.time_ns()),
            )
            for position, (blob, layer) in enumerate(zip(blobs, chain, strict=True)):
                self.database.execute(
                    "INSERT INTO image_layers (image, position, blob, layer) VALUES (?, ?, ?, ?)",
                    (image_id, position, blob, layer),
                )
            self.settling.mark(image_id)

    def keep(self, image_id: str, documents: Iterable[str]) -> None:
        """Keep blobs as long as the image: the indexes and manifests by which it came, beside its own."""
        with self.database.transaction():
            for blob in documents:
                self.database.execute(
                    "INSERT OR IGNORE INTO image_documents (image, blob) VALUES (?, ?)", (image_id, blob)
                )

    def documents(self, image_id: str) -> list[str]:
        """The blobs that `keep` was told of."""
        rows = self.database.execute("SELECT blob FROM image_documents WHERE image = ?", (image_id,))
        return [row[0] for row in rows]

    def name(self, reference: Reference, image_id: str) -> str | None:
        """Give an image a name.

        Returns:
            the id of the image that had it before, when that was another one.
        """
        with self.database.transaction():
            before = self.named(reference)
            self.database.execute(
                "INSERT INTO image_names (name, image) VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET image = excluded.image",
                (str(reference), image_id),
            )
            self.database.execute(
                "UPDATE images SET tagged_at_ns = ? WHERE id = ?", (time.time_ns(), image_id)
            )
        return before if before != image_id else None

    def unname(self, reference: Reference) -> None:
        """Take a name away."""
        self.database.execute("DELETE FROM image_names WHERE name = ?", (str(reference),))

    def drop(self, image_id: str) -> list[str]:
        """Forget an image with all its names.

        Returns:
            the layers that went with it, topmost first.
        """
        with self.content.lock:
            candidates = self.references(image_id)
            with self.database.transaction():
                self.database.execute("DELETE FROM images WHERE id = ?", (image_id,))
            self._documents.pop(image_id, None)
            for name in candidates:
                self._manifests.pop(name, None)
            return self.collect(candidates)

    # --- collecting ---

    def references(self, image_id: str) -> list[str]:
        """The blobs and the layers (`layer:` before their id, topmost first) that an image consists of."""
        rows = self.database.execute("SELECT manifest FROM images WHERE id = ?", (image_id,))
        layers = self.layer_blobs(image_id)
        return [
            image_id,
            *(row[0] for row in rows),
            *(blob for blob, _ in layers),
            *self.documents(image_id),
            *(f"layer:{layer}" for _, layer in reversed(layers)),
        ]

    def collect(self, candidates: Iterable[str]) -> list[str]:
        """Delete those blobs, and layers (`layer:` before their id), that no record and no lease names.

        Returns:
            the layers that were deleted, topmost first.
        """
        removed: list[str] = []
        with self.content.lock:
            for name in self.unused(candidates):
                if not name.startswith("layer:"):
                    self.content.delete(name)
                    self.sources.forget(name)
                    continue
                with contextlib.suppress(SampanError):  # something stands on it after all
                    self.driver.remove_layer(name[6:])
                    removed.append(name[6:])
        if removed:
            threading.Thread(target=self.driver.purge_trash, name="purge", daemon=True).start()
        return removed

    def unused(self, candidates: Iterable[str]) -> list[str]:
        """Those blobs and layers that no record and no lease names; a layer after those on top of it."""
        with self.content.lock:
            layers, found = set(), []
            for name in candidates:
                if name.startswith("layer:"):
                    layers.add(name[6:])
                elif name not in self.content.leased and not self._blob_used(name):
                    found.append(name)
            in_use = self._layers_used() if layers else set()
            for layer in sorted(layers & self.driver.layers(), key=self._depth, reverse=True):
                if layer not in in_use and f"layer:{layer}" not in self.content.leased:
                    found.append(f"layer:{layer}")
        return found

    def collect_all(self) -> list[str]:
        """`collect` for everything in the store."""
        names = list(self.content.digests()) + [f"layer:{layer}" for layer in self.driver.layers()]
        return self.collect(names)

    def settled_layers(self) -> set[str]:
        """The layers of images that are known to be on disk as a whole."""
        rows = self.database.execute(
            "SELECT DISTINCT layer FROM image_layers WHERE image NOT IN (SELECT image FROM image_unsettled)"
        )
        return {row[0] for row in rows}

    def _blob_used(self, digest: str) -> bool:
        return bool(
            self.database.execute(
                "SELECT 1 FROM images WHERE id = ? OR manifest = ?"
                " UNION ALL SELECT 1 FROM image_layers WHERE blob = ?"
                " UNION ALL SELECT 1 FROM image_documents WHERE blob = ? LIMIT 1",
                (digest, digest, digest, digest),
            )
        )

    def _layers_used(self) -> set[str]:
        used = {row[0] for row in self.database.execute("SELECT DISTINCT layer FROM image_layers")}
        for layer in self.driver.used_layers():
            known: str | None = layer
            while known is not None and known not in used and self.driver.has_layer(known):
                used.add(known)
                known = self.driver.layer_parent(known)
        return used

    def _depth(self, layer: str) -> int:
        depth = 0
        known: str | None = layer
        while known is not None and self.driver.has_layer(known):
            depth += 1
            known = self.driver.layer_parent(known)
        return depth

    @contextlib.contextmanager
    def unpacking(self, layer_id: str) -> Iterator[None]:
        """Only one thread at a time unpacks a given layer; the next one finds it there."""
        with self.content.lock:
            lock = self._layer_locks.setdefault(layer_id, threading.Lock())
        try:
            with lock:
                yield
        finally:
            with self.content.lock:
                if not lock.locked():
                    self._layer_locks.pop(layer_id, None)

    def missing(self, image_id: str) -> list[str]:
        """Which of the blobs and layers (`layer:` before their id) of an image are not in the store."""
        return [name for name in self.references(image_id) if not self._is_here(name)]

    def _is_here(self, name: str) -> bool:
        if name.startswith("layer:"):
            return self.driver.has_layer(name[6:])
        return self.content.exists(name)
