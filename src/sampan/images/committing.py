"""`docker commit`: what a container changed becomes an image on top of the container's own.

The layer is a snapshot that the storage driver has taken; its archive is written once, hashed on the way, and
kept as the layer's blob, which is never unpacked again.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from sampan.images.content import Lease
from sampan.images.errors import NoSuchImage
from sampan.images.image import Image
from sampan.images.records import ImageRecords
from sampan.oci import media_types
from sampan.oci.digest import chain_ids, sha256
from sampan.oci.image import (
    DOCUMENT_LIMIT_BYTES,
    Descriptor,
    History,
    ImageConfig,
    Manifest,
    encode_image,
    encode_manifest,
    parse_manifest,
)
from sampan.oci.reference import Reference
from sampan.storage import Snapshot

EMPTY_ARCHIVE = sha256(bytes(1024))  # nothing was changed: no layer


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit says of the new image beside its files.

    Attributes:
        config: what its containers run with.
        created_by: the command that made the changes.
    """

    config: ImageConfig
    author: str = ""
    comment: str = ""
    created_by: str = ""


def commit_image(
    records: ImageRecords, snapshot: Snapshot, parent_id: str, commit: Commit, reference: Reference | None
) -> str:
    """Make an image of a snapshot.

    Args:
        snapshot: of a container of the image `parent_id`; it is used up.
        reference: the name that it gets.

    Returns:
        the image's id.

    Raises:
        NoSuchImage: the container's image has been removed.
        OSError: the disk is full or broken; nothing is left.
    """
    with records.content.lease(records.collect) as lease:
        parent, blobs = _hold_parent(records, lease, parent_id)
        layers = _parent_layers(records, parent)
        diff_ids = list(parent.diff_ids)
        with records.content.writer() as writer:
            snapshot.write_tar(cast("BinaryIO", writer))
            diff_id = writer.digest
            if diff_id != EMPTY_ARCHIVE:
                diff_ids.append(diff_id)
                layer = chain_ids(diff_ids)[-1]
                lease.add(diff_id, f"layer:{layer}")
                writer.commit()
                with records.unpacking(layer):
                    snapshot.commit(layer)
                layers.append(Descriptor(media_types.OCI_LAYER, diff_id, writer.size))
                blobs.append(diff_id)
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        step = History(now, commit.created_by, commit.author, commit.comment, diff_id == EMPTY_ARCHIVE)
        document = replace(
            parent.document,
            config=commit.config,
            diff_ids=diff_ids,
            history=[*parent.document.history, step],
            created=now,
            author=commit.author,
            comment=commit.comment,
            docker_version="",
        )
        data = encode_image(document)
        image_id = sha256(data)
        manifest = encode_manifest(Manifest(Descriptor(media_types.OCI_CONFIG, image_id, len(data)), layers))
        lease.add(image_id, sha256(manifest))
        records.content.put(data)
        manifest_digest = records.content.put(manifest)
        with records.content.lock, records.database.transaction():
            known = records.get(parent_id) is not None
            records.add(image_id, document, manifest_digest, blobs, parent_id if known else "")
            if reference is not None:
                records.name(reference, image_id)
    return image_id


def _hold_parent(records: ImageRecords, lease: Lease, parent_id: str) -> tuple[Image, list[str]]:
    """The parent and its layers' blobs, none of which can go away from here on."""
    with records.content.lock:
        parent = records.get(parent_id)
        if parent is None:
            raise NoSuchImage(f"No such image: {parent_id}")
        return parent, records.hold(lease, parent_id)


def _parent_layers(records: ImageRecords, parent: Image) -> list[Descriptor]:
    manifest = parse_manifest(records.content.checked(parent.manifest_digest, DOCUMENT_LIMIT_BYTES))
    return [
        Descriptor(media_types.as_oci(layer.media_type), layer.digest, layer.size)
        for layer in manifest.layers
    ]
