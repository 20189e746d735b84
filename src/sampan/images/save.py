"""`docker save`: one archive that is OCI image layout and docker-archive at once, as Docker writes since 25.

Blobs go out as they came in, so that digests, ids and signatures still hold wherever the archive is loaded.
"""

from __future__ import annotations

import os
from typing import Any, BinaryIO

from sampan.images.errors import BrokenContent
from sampan.images.image import Image
from sampan.images.records import ImageRecords
from sampan.oci import media_types
from sampan.oci.digest import hex_of
from sampan.oci.image import (
    DOCUMENT_LIMIT_BYTES,
    Descriptor,
    Index,
    Platform,
    encode_index,
    parse_manifest,
    to_json,
)
from sampan.oci.reference import Reference
from sampan.storage.tar_writer import TarWriter


def save(records: ImageRecords, images: list[tuple[Image, list[Reference]]], out: BinaryIO) -> None:
    """Write images with those of their names that were asked for.

    Args:
        images: each image once, with the names that the archive shall give it (none when asked for by id).
        out: where to write.
    """
    with records.content.lease(records.collect) as lease:
        descriptors: list[Descriptor] = []
        entries: list[dict[str, Any]] = []
        blobs: dict[str, None] = {}
        for image, names in images:
            layers = records.hold(lease, image.id)
            blobs.update(dict.fromkeys((image.manifest_digest, image.id, *layers)))
            descriptors += _descriptors(records, image, names)
            entries.append(
                {
                    "Config": _path(image.id),
                    "RepoTags": [name.familiar for name in names] or None,
                    "Layers": [_path(layer) for layer in layers],
                }
            )
        writer = TarWriter(out)
        for directory in (b"blobs/", b"blobs/sha256/"):
            writer.header(directory, b"5", mode=0o755)
        for digest in sorted(blobs):
            with records.content.open(digest) as file:
                size = os.fstat(file.fileno()).st_size
                writer.header(_path(digest).encode(), b"0", size=size)
                writer.file(file.fileno(), size)
        for name, data in (
            ("index.json", encode_index(Index(descriptors))),
            ("manifest.json", to_json(entries)),
            ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        ):
            writer.header(name.encode(), b"0", size=len(data))
            writer.data(data)
        writer.close()


def _path(digest: str) -> str:
    return f"blobs/sha256/{hex_of(digest)}"


def _descriptors(records: ImageRecords, image: Image, names: list[Reference]) -> list[Descriptor]:
    data = records.content.checked(image.manifest_digest, DOCUMENT_LIMIT_BYTES)
    manifest = parse_manifest(data)
    media_type = manifest.media_type or media_types.OCI_MANIFEST
    for blob in (manifest.config, *manifest.layers):
        size = records.content.size(blob.digest)
        if size != blob.size:
            raise BrokenContent(blob.digest, f"it has {size} bytes, not {blob.size}")
    platform = Platform(image.os, image.architecture, image.document.variant)

    def descriptor(annotations: dict[str, str]) -> Descriptor:
        return Descriptor(media_type, image.manifest_digest, len(data), annotations, platform)

    if not names:
        return [descriptor({})]
    return [
        descriptor(
            {"io.containerd.image.name": str(name), "org.opencontainers.image.ref.name": name.tag or ""}
        )
        for name in names
    ]
