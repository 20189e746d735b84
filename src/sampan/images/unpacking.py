"""From blobs in the content store to layers in the driver, each proven by its diff id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sampan.images.ahead import LayersAhead
from sampan.images.content import Lease
from sampan.images.records import ImageRecords
from sampan.oci.digest import DigestMismatch, hex_of
from sampan.storage.compression import Hashing, ReadAhead, decompressed

Progress = Callable[[dict[str, Any]], None]


def unpack_layers(
    records: ImageRecords,
    lease: Lease,
    diff_ids: list[str],
    chain: list[str],
    blobs: list[str],
    progress: Progress,
    verified: bool = True,
    ahead: LayersAhead | None = None,
) -> None:
    """Make sure that every layer of an image is in the driver.

    Args:
        lease: keeps the layers until the image is recorded.
        diff_ids: what each layer's uncompressed bytes must hash to, lowest first.
        chain: the chain id at each layer.
        blobs: the digest of each layer's blob, compressed or not.
        progress: told when a layer begins and ends.
        verified: the blobs have just been hashed, so that a plain one need not be again.
        ahead: may have a layer unpacked already.

    Raises:
        DigestMismatch: a layer is not what the image's config says.
        InvalidLayer: it is broken or hostile. No part of it stays.
    """
    below: str | None = None
    for diff_id, layer, blob in zip(diff_ids, chain, blobs, strict=True):
        lease.add(f"layer:{layer}")
        with records.unpacking(layer):
            if not records.driver.has_layer(layer):
                _unpack(records, diff_id, layer, below, blob, progress, verified, ahead)
        below = layer


def _unpack(
    records: ImageRecords,
    diff_id: str,
    layer: str,
    below: str | None,
    blob: str,
    progress: Progress,
    verified: bool,
    ahead: LayersAhead | None,
) -> None:
    total = records.content.size(blob)
    short = hex_of(diff_id)[:12]
    progress({"status": "Loading layer", "progressDetail": {"current": 0, "total": total}, "id": short})
    if ahead is None or not _adopt(ahead, diff_id, layer, below, blob):
        _unpack_blob(records, diff_id, layer, below, blob, verified)
    progress({"status": "Loading layer", "progressDetail": {"current": total, "total": total}, "id": short})


def _adopt(ahead: LayersAhead, diff_id: str, layer: str, below: str | None, blob: str) -> bool:
    """Take the layer from those that are unpacked already."""
    taken = ahead.take(blob)
    if taken is None:
        return False
    prepared, found = taken
    with prepared:
        _verify(blob, found, diff_id)
        prepared.stand_on(below)
        prepared.commit(layer)
    return True


def _verify(blob: str, found: str, diff_id: str) -> None:
    if found != diff_id:
        raise DigestMismatch(f"layer {blob} unpacks to {found}, but the image says {diff_id}")


def _unpack_blob(
    records: ImageRecords, diff_id: str, layer: str, below: str | None, blob: str, verified: bool
) -> None:
    with records.content.open(blob) as file:
        kind, plain = decompressed(file)
        if verified and not kind and blob == diff_id:
            records.driver.apply_layer(layer, below, plain)
        else:
            hashing = Hashing(plain)
            with ReadAhead(hashing) as stream:
                records.driver.apply_layer(
                    layer, below, stream, lambda: _verify(blob, hashing.digest, diff_id)
                )
