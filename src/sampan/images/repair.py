"""At start: what a crash, a hand in the store, or a change of the storage driver left is set right.

Blobs are the truth, layers can be had from them again; an image that lacks a blob is dropped.
"""

from __future__ import annotations

import logging

from sampan.errors import SampanError
from sampan.images.records import ImageRecords
from sampan.images.unpacking import unpack_layers

_log = logging.getLogger(__name__)


def repair(records: ImageRecords) -> None:
    """Make every record true or drop it with a warning, then delete what no record names."""
    for image_id in records.ids():
        missing = records.missing(image_id)
        if not missing:
            continue
        names = ", ".join(name.familiar for name in records.names(image_id)) or image_id
        reason = f"{missing[0]} is missing from the store"
        if all(name.startswith("layer:") for name in missing):
            try:
                _unpack_again(records, image_id)
            except (SampanError, OSError) as error:
                reason = f"its layers cannot be unpacked: {error}"
            else:
                _log.warning("image %s: its layers were unpacked again for %s", names, records.driver.name)
                continue
        _log.warning("image %s is dropped: %s", names, reason)
        records.drop(image_id)
    records.collect_all()


def _unpack_again(records: ImageRecords, image_id: str) -> None:
    document = records.document(image_id)
    blobs = [blob for blob, _ in records.layer_blobs(image_id)]
    with records.content.lease(records.collect) as lease:
        unpack_layers(
            records, lease, document.diff_ids, document.chain_ids, blobs, progress=lambda _message: None
        )
