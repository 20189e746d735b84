"""`docker import`: a root file system's archive becomes an image of one layer."""

from __future__ import annotations

import datetime

from sampan.dockerfile import apply_changes
from sampan.errors import InvalidParameter
from sampan.images.content import BlobWriter
from sampan.images.records import ImageRecords
from sampan.oci import media_types
from sampan.oci.digest import sha256
from sampan.oci.image import (
    Descriptor,
    History,
    ImageConfig,
    ImageDocument,
    Manifest,
    Platform,
    encode_image,
    encode_manifest,
    local_architecture,
)
from sampan.oci.platforms import from_text
from sampan.oci.reference import Reference
from sampan.storage.compression import Hashing, ReadAhead, decompressed, peek
from sampan.storage.tar_reader import Readable


class _Tee:
    """Keeps what is read through it as a blob."""

    def __init__(self, stream: Readable, blob: BlobWriter) -> None:
        self._stream = stream
        self._blob = blob

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._blob.write(data)
        return data

    def drain(self) -> None:
        """Read what follows the compressed data, so that the blob is all that was sent."""
        while self.read(1 << 20):
            pass


def import_image(
    records: ImageRecords,
    stream: Readable,
    reference: Reference | None,
    changes: list[str],
    message: str,
    platform: str = "",
) -> str:
    """Make an image of an archive, plain or compressed.

    Args:
        reference: the name that it gets.
        changes: Dockerfile instructions for its config.
        message: its history's comment.
        platform: `os[/architecture[/variant]]` when it is not this machine's.

    Returns:
        the image's id.

    Raises:
        InvalidParameter: for a change or platform that cannot be.
        InvalidLayer: the archive is broken or hostile; nothing is left.
    """
    config = ImageConfig()
    apply_changes(config, changes)
    target = _platform(platform)
    with records.content.lease(records.collect) as lease, records.content.writer() as writer:
        kind, whole = peek(stream)
        tee = _Tee(whole, writer)
        _, plain = decompressed(tee)
        hashing = Hashing(plain) if kind else None  # a plain archive is hashed on its way into the blob
        with ReadAhead(hashing or plain) as ahead, records.driver.prepare_layer(None, ahead) as layer:
            tee.drain()
            blob = writer.digest
            diff_id = hashing.digest if hashing else blob
            lease.add(blob, f"layer:{diff_id}")
            writer.commit()
            layer.commit(diff_id)
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        document = ImageDocument(
            architecture=target.architecture,
            os="linux",
            variant=target.variant,
            config=config,
            diff_ids=[diff_id],
            history=[History(created=now, comment=message)],
            created=now,
            comment=message,
        )
        data = encode_image(document)
        image_id = sha256(data)
        lease.add(image_id)
        records.content.put(data)
        manifest = encode_manifest(
            Manifest(
                config=Descriptor(media_types.OCI_CONFIG, image_id, len(data)),
                layers=[Descriptor(media_types.layer_type(kind), blob, writer.size)],
            )
        )
        manifest_digest = sha256(manifest)
        lease.add(manifest_digest)
        records.content.put(manifest)
        with records.database.transaction():
            records.add(image_id, document, manifest_digest, [blob])
            if reference is not None:
                records.name(reference, image_id)
    return image_id


def _platform(text: str) -> Platform:
    if not text:
        return Platform("linux", local_architecture())
    platform = from_text(text)
    if platform.os != "linux":
        raise InvalidParameter(f"operating system {platform.os!r} is not supported (only linux)")
    return platform
