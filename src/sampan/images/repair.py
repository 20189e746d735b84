"""At start: what a crash, a hand in the store, or a change of the storage driver left is set right.

Blobs are the truth, layers can be had from them again; an image that lacks a blob is dropped. After a power
cut the blobs of an image that was not yet on disk are hashed, and its layers are unpacked again.
"""

from __future__ import annotations

import hashlib
import logging

from sampan.errors import SampanError
from sampan.images.records import ImageRecords
from sampan.images.unpacking import unpack_layers
from sampan.oci.digest import hex_of

_log = logging.getLogger(__name__)


def repair(records: ImageRecords) -> None:
    """Make every record true or drop it with a warning, then delete what no record names."""
    for image_id in records.settling.doubtful():
        _doubt(records, image_id)
    for image_id in records.ids():
        missing = records.missing(image_id)
        if not missing:
            continue
        names = ", ".join(name.familiar for name in records.names(image_id)) or image_id
        reason = f"{missing[0]} is missing from the store"
        if all(name.startswith("layer:") for name in missing):
            try:
                unpack_again(records, image_id)
            except (SampanError, OSError) as error:
                reason = f"its layers cannot be unpacked: {error}"
            else:
                _log.warning("image %s: its layers were unpacked again for %s", names, records.driver.name)
                continue
        _log.warning("image %s is dropped: %s", names, reason)
        records.drop(image_id)
    for image_id in records.settling.doubtful():  # what is left of them is good, but may not be on disk
        records.settling.mark(image_id)
    if records.settling.unsettled():
        records.settling.begin()
    records.collect_all()


def _doubt(records: ImageRecords, image_id: str) -> None:
    """Take away what a power cut may have torn: blobs that do not have their digest, and all layers."""
    _log.warning("image %s may not have reached the disk before the machine went down: checking", image_id)
    for name in records.references(image_id):
        if not name.startswith("layer:") and records.content.exists(name) and not _intact(records, name):
            records.content.delete(name)
    settled = records.settled_layers()
    for layer in reversed([layer for _, layer in records.layer_blobs(image_id)]):
        if layer not in settled:
            records.driver.forget_layer(layer)


def _intact(records: ImageRecords, digest: str) -> bool:
    with records.content.path(digest).open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == hex_of(digest)


def unpack_again(records: ImageRecords, image_id: str) -> None:
    """Unpack those layers of an image that the driver lacks, from blobs that need not be good."""
    document = records.document(image_id)
    blobs = [blob for blob, _ in records.layer_blobs(image_id)]
    with records.content.lease(records.collect) as lease:
        unpack_layers(
            records,
            lease,
            document.diff_ids,
            document.chain_ids,
            blobs,
            lambda _message: None,
            verified=False,
        )
    records.settling.mark(image_id)
