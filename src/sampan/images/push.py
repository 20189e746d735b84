"""`docker push`: an image's blobs and its manifest to a registry, sending only what is missing there.

An image that came from a registry goes back as it came, manifest included, so that its digest stays. Of one
that was made here (import, commit, load of plain tars) the layers are compressed on the way, and the manifest
tells of the compressed ones. Messages are Docker's, topmost layer first.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, BinaryIO

from sampan.dataclasses import dataclass
from sampan.errors import SampanError
from sampan.images.image import Image
from sampan.images.packing import Packing, needs_packing
from sampan.images.pull_progress import progress_message
from sampan.images.records import ImageRecords
from sampan.images.sources import BlobSources
from sampan.oci import media_types
from sampan.oci.digest import hex_of
from sampan.oci.image import DOCUMENT_LIMIT_BYTES, Descriptor, Manifest, encode_manifest, parse_manifest
from sampan.oci.reference import Reference
from sampan.registry import Repository

Progress = Callable[[dict[str, Any]], None]

_SECONDS_BETWEEN = 0.1
_FOREIGN = (media_types.DOCKER_LAYER_FOREIGN, media_types.OCI_LAYER_NONDISTRIBUTABLE)


class PushStopped(SampanError):
    """Another layer of the same push has failed."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer: as the store has it, and its diff id."""

    descriptor: Descriptor
    diff_id: str

    @property
    def short_id(self) -> str:
        """How progress messages call it."""
        return hex_of(self.diff_id)[:12]


class Push:
    """Pushes images to one repository.

    Args:
        sources: hints where blobs are; added to.
        compression: "gzip" or "zstd", for layers that are not compressed yet.
        progress: receives Docker's messages, from several threads; what it raises ends the push.
    """

    def __init__(
        self,
        records: ImageRecords,
        sources: BlobSources,
        repository: Repository,
        compression: str,
        progress: Progress,
    ) -> None:
        self._records = records
        self._sources = sources
        self._repository = repository
        self._compression = compression
        self._progress = progress
        self._stopped = threading.Event()

    def image(self, image: Image, reference: Reference) -> None:
        """Push one image under one tag, and record its digest in the repository.

        Args:
            reference: the repository with the tag.

        Raises:
            RegistryError: the registry does not take it, or cannot be reached.
            BrokenContent: the store has lost or spoiled a part of it.
        """
        with self._records.content.lease(self._records.collect) as lease:
            data = self._records.content.checked(image.manifest_digest, DOCUMENT_LIMIT_BYTES)
            manifest = parse_manifest(data)
            lease.add(image.id, image.manifest_digest, *(layer.digest for layer in manifest.layers))
            as_it_came = any(name.digest == image.manifest_digest for name in image.names)
            sent = self._layers(image, manifest, as_it_came)
            if sent != manifest.layers:
                data = encode_manifest(replace(_as_oci(manifest), layers=sent))
            self._document(manifest.config)
            digest = self._repository.put_manifest(reference.tag or "", data, _media_type(manifest, sent))
            blobs = [layer.digest for layer in sent if layer.media_type not in _FOREIGN]
            self._sources.saw(reference, manifest.config.digest, *blobs)
            self._records.name(reference.with_digest(digest), image.id)
        self._progress({"status": f"{reference.tag}: digest: {digest} size: {len(data)}"})
        self._progress(
            {"progressDetail": {}, "aux": {"Tag": reference.tag, "Digest": digest, "Size": len(data)}}
        )

    # --- layers ---

    def _layers(self, image: Image, manifest: Manifest, as_it_came: bool) -> list[Descriptor]:
        """Have every layer in the registry; their descriptors there, lowest first."""
        layers = [
            _Layer(descriptor, diff_id)
            for descriptor, diff_id in zip(manifest.layers, image.diff_ids, strict=True)
        ]
        unique = list(dict.fromkeys(layer.diff_id for layer in reversed(layers)))
        first = {layer.diff_id: layer for layer in reversed(layers)}
        limit = self._repository.config.max_concurrent_uploads
        for diff_id in unique:
            self._tell(first[diff_id], "Preparing")
        for diff_id in unique[limit:]:
            self._tell(first[diff_id], "Waiting")
        done: dict[str, Descriptor] = {}
        with concurrent.futures.ThreadPoolExecutor(limit, "push") as pool:
            waiting = {pool.submit(self._layer, first[diff_id], as_it_came): diff_id for diff_id in unique}
            try:
                for future in concurrent.futures.as_completed(waiting):
                    done[waiting[future]] = future.result()
            except BaseException:
                self._stopped.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return [done[layer.diff_id] for layer in layers]

    def _layer(self, layer: _Layer, as_it_came: bool) -> Descriptor:
        descriptor = layer.descriptor
        if descriptor.media_type in _FOREIGN:
            self._tell(layer, "Skipped foreign layer")
            return descriptor
        if as_it_came or not needs_packing(descriptor.media_type):
            if not self._is_there(layer, descriptor.digest):
                self._upload(layer)
            return descriptor
        known = self._sources.packed(descriptor.digest, self._compression)
        if known is not None and self._is_there(layer, known[0]):
            return self._packed(*known)
        return self._pack(layer)

    def _packed(self, digest: str, size: int) -> Descriptor:
        return Descriptor(media_types.layer_type(self._compression), digest, size)

    def _is_there(self, layer: _Layer, digest: str) -> bool:
        """Whether the registry has the blob, in this repository or now from another one."""
        self._check()
        if self._repository.has_blob(digest):
            self._tell(layer, "Layer already exists")
            return True
        for path in self._sources.others(self._repository.reference, digest)[:3]:
            if self._repository.uploads.mount(digest, path):
                self._tell(layer, f"Mounted from {path}")
                return True
            self._sources.lost(self._repository.reference, path, digest)
        return False

    def _upload(self, layer: _Layer) -> None:
        descriptor = layer.descriptor
        self._repository.uploads.upload(
            descriptor.digest,
            descriptor.size,
            lambda: self._open(descriptor.digest),
            self._meter(layer, descriptor.size),
            lambda seconds: self._tell(layer, f"Retrying in {max(1, round(seconds))} seconds"),
        )
        self._tell(layer, "Pushed")

    def _pack(self, layer: _Layer) -> Descriptor:
        """Compress and send a layer at once."""
        blob = layer.descriptor.digest
        meter = self._meter(layer, layer.descriptor.size)
        packing: list[Packing] = []

        def make() -> Packing:
            packing[:] = [Packing(self._open(blob), layer.diff_id, self._compression, meter)]
            return packing[0]

        digest = self._repository.uploads.upload_stream(
            make,
            lambda: packing[0].digest,
            lambda seconds: self._tell(layer, f"Retrying in {max(1, round(seconds))} seconds"),
        )
        self._sources.keep_packed(blob, self._compression, digest, packing[0].size)
        self._tell(layer, "Pushed")
        return self._packed(digest, packing[0].size)

    def _document(self, config: Descriptor) -> None:
        if not self._repository.has_blob(config.digest):
            self._repository.uploads.upload(config.digest, config.size, lambda: self._open(config.digest))

    def _open(self, digest: str) -> BinaryIO:
        return self._records.content.open(digest)

    # --- messages ---

    def _tell(self, layer: _Layer, status: str) -> None:
        self._progress({"status": status, "progressDetail": {}, "id": layer.short_id})

    def _meter(self, layer: _Layer, total: int) -> Callable[[int], None]:
        """Tells how far a layer is, not too often; ends its upload when another one has failed."""
        last = 0.0

        def report(current: int) -> None:
            nonlocal last
            self._check()
            now = time.monotonic()
            if now - last < _SECONDS_BETWEEN and current < total:
                return
            last = now
            self._progress(progress_message("Pushing", current, total, layer.short_id))

        return report

    def _check(self) -> None:
        if self._stopped.is_set():
            raise PushStopped("the push was stopped, because another layer failed")


def _as_oci(manifest: Manifest) -> Manifest:
    """The manifest with OCI's types throughout, as the types of compressed layers are OCI's."""
    config = replace(manifest.config, media_type=media_types.OCI_CONFIG)
    return replace(manifest, media_type=media_types.OCI_MANIFEST, config=config)


def _media_type(manifest: Manifest, sent: list[Descriptor]) -> str:
    changed = sent != manifest.layers
    return media_types.OCI_MANIFEST if changed else manifest.media_type or media_types.OCI_MANIFEST
