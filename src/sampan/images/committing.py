"""`docker commit` and the steps of builds: an image on top of another one.

The layer, if there is one, is a snapshot that the storage driver has taken; its archive is written once,
hashed on the way, and kept as the layer's blob, which is never unpacked again.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO, cast

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter
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
    ImageDocument,
    Manifest,
    Platform,
    encode_config,
    encode_image,
    encode_manifest,
    local_architecture,
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
        platform: what an image without a parent is for; this machine when not given.
    """

    config: ImageConfig
    author: str = ""
    comment: str = ""
    created_by: str = ""
    platform: Platform | None = None


@dataclass(slots=True)
class _Base:
    """What the new image stands on: its document, and its layers with their blobs."""

    document: ImageDocument
    layers: list[Descriptor]
    blobs: list[str]


def commit_image(
    records: ImageRecords,
    snapshot: Snapshot | None,
    parent_id: str,
    commit: Commit,
    reference: Reference | None = None,
    made: Callable[[str], None] | None = None,
) -> str:
    """Make an image of a snapshot, or with none one that only says something else than its parent.

    Args:
        snapshot: of a container of the image `parent_id`; it is used up.
        parent_id: empty for an image that stands on nothing.
        reference: the name that it gets.
        made: is told of the image before anybody else can remove it.

    Returns:
        the image's id.

    Raises:
        NoSuchImage: the container's image has been removed.
        InvalidParameter: what it says is too long.
        OSError: the disk is full or broken; nothing is left.
    """
    with records.content.lease(records.collect) as lease:
        base = _hold_base(records, lease, parent_id, commit.platform)
        before = len(base.layers)
        if snapshot is not None:
            _add_layer(records, lease, base, snapshot)
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        empty = len(base.layers) == before
        step = History(now, commit.created_by, commit.author, commit.comment, empty)
        return _record(records, lease, base, parent_id, commit, step, reference, made)


def adopt_step(records: ImageRecords, source_id: str, parent_id: str, commit: Commit) -> str | None:
    """The next step of another image as an image of its own, on top of a parent that has the steps before it.

    Returns:
        the image's id; None when the other image does not go on from the parent with this very step.

    Raises:
        NoSuchImage: one of the images has been removed.
    """
    with records.content.lease(records.collect) as lease:
        base = _hold_base(records, lease, parent_id, commit.platform)
        source = _hold_base(records, lease, source_id, None)
        document, steps, layers = base.document, len(base.document.history), len(base.layers)
        goes_on = (
            len(source.document.history) > steps
            and source.document.history[:steps] == document.history
            and source.document.diff_ids[:layers] == document.diff_ids
            and source.document.history[steps].created_by == commit.created_by
        )
        if not goes_on:
            return None
        step = source.document.history[steps]
        if len(source.document.history) == steps + 1 and source.document.config == commit.config:
            return source_id
        if not step.empty_layer:
            if len(source.layers) <= layers:
                return None
            base.layers.append(source.layers[layers])
            base.blobs.append(source.blobs[layers])
            document.diff_ids.append(source.document.diff_ids[layers])
        return _record(records, lease, base, parent_id, commit, step, None)


def find_step(records: ImageRecords, parent_id: str, commit: Commit) -> str | None:
    """The newest image here that the same step has made of the same parent; None for none."""
    parent = records.get(parent_id) if parent_id else None
    if parent_id and parent is None:
        return None
    history = parent.document.history if parent else []
    diff_ids = parent.diff_ids if parent else []
    wanted = encode_config(commit.config)
    found: list[tuple[str, str]] = []
    for child_id in records.children(parent_id):
        child = records.get(child_id)
        if child is None:
            continue
        document = child.document
        same = (
            len(document.history) == len(history) + 1
            and document.history[:-1] == history
            and document.diff_ids[: len(diff_ids)] == diff_ids
            and document.history[-1].created_by == commit.created_by
            and document.author == commit.author
            and encode_config(document.config) == wanted
            and (commit.platform is None or document.platform == commit.platform)
            and not records.missing(child_id)
        )
        if same:
            found.append((document.created, child_id))
    return max(found)[1] if found else None


def _hold_base(records: ImageRecords, lease: Lease, parent_id: str, platform: Platform | None) -> _Base:
    """The parent and its layers' blobs, none of which can go away from here on; for no parent nothing."""
    if not parent_id:
        platform = platform or Platform("linux", local_architecture())
        document = ImageDocument(
            platform.architecture, platform.os or "linux", ImageConfig(), [], variant=platform.variant
        )
        return _Base(document, [], [])
    with records.content.lock:
        parent = records.get(parent_id)
        if parent is None:
            raise NoSuchImage(f"No such image: {parent_id}")
        blobs = records.hold(lease, parent_id)
    document = replace(parent.document, diff_ids=list(parent.diff_ids), history=list(parent.document.history))
    return _Base(document, _layers(records, parent), blobs)


def _add_layer(records: ImageRecords, lease: Lease, base: _Base, snapshot: Snapshot) -> None:
    """Put the snapshot's files on top, unless there are none."""
    with records.content.writer() as writer:
        snapshot.write_tar(cast("BinaryIO", writer))
        diff_id = writer.digest
        if diff_id == EMPTY_ARCHIVE:
            return
        diff_ids = base.document.diff_ids
        diff_ids.append(diff_id)
        layer = chain_ids(diff_ids)[-1]
        lease.add(diff_id, f"layer:{layer}")
        writer.commit()
        with records.unpacking(layer):
            snapshot.commit(layer)
        base.layers.append(Descriptor(media_types.OCI_LAYER, diff_id, writer.size))
        base.blobs.append(diff_id)


def _record(
    records: ImageRecords,
    lease: Lease,
    base: _Base,
    parent_id: str,
    commit: Commit,
    step: History,
    reference: Reference | None,
    made: Callable[[str], None] | None = None,
) -> str:
    """Write the image's documents and note it down; its id."""
    document = replace(
        base.document,
        config=commit.config,
        history=[*base.document.history, step],
        created=step.created,
        author=commit.author,
        comment=commit.comment,
        docker_version="",
    )
    data = encode_image(document)
    if len(data) > DOCUMENT_LIMIT_BYTES:  # it could not be read again
        raise InvalidParameter(
            f"the image's config and history would have more than {DOCUMENT_LIMIT_BYTES} bytes"
        )
    image_id = sha256(data)
    manifest = encode_manifest(Manifest(Descriptor(media_types.OCI_CONFIG, image_id, len(data)), base.layers))
    lease.add(image_id, sha256(manifest))
    records.content.put(data)
    manifest_digest = records.content.put(manifest)
    with records.content.lock, records.database.transaction():
        known = bool(parent_id) and records.get(parent_id) is not None
        records.add(image_id, document, manifest_digest, base.blobs, parent_id if known else "")
        if reference is not None:
            records.name(reference, image_id)
        if made is not None:
            made(image_id)
    return image_id


def _layers(records: ImageRecords, parent: Image) -> list[Descriptor]:
    manifest = parse_manifest(records.content.checked(parent.manifest_digest, DOCUMENT_LIMIT_BYTES))
    return [
        Descriptor(media_types.as_oci(layer.media_type), layer.digest, layer.size)
        for layer in manifest.layers
    ]
