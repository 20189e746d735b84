"""`docker load`: archives of `docker save`, and OCI image layouts.

A docker-archive is told by its `manifest.json`, a layout by `index.json` (OCI image spec, image layout). What
current engines save is both; `manifest.json` then decides, as it does for them.
"""

from __future__ import annotations

import json
from dataclasses import field
from typing import Any

from sampan.dataclasses import dataclass
from sampan.images.ahead import LayersAhead
from sampan.images.archive import Archive, ArchiveFile, claimed_digest, read_archive
from sampan.images.content import Lease
from sampan.images.errors import InvalidArchive
from sampan.images.image import Loaded, check_platform
from sampan.images.records import ImageRecords
from sampan.images.selection import best_for, is_attestation
from sampan.images.unpacking import Progress, unpack_layers
from sampan.oci import media_types
from sampan.oci.digest import DigestMismatch, hex_of, sha256
from sampan.oci.image import (
    Descriptor,
    ImageDocument,
    Manifest,
    Platform,
    encode_manifest,
    local_architecture,
    parse_image,
    parse_index,
    parse_manifest,
)
from sampan.oci.platforms import shown
from sampan.oci.reference import Reference, parse
from sampan.storage.compression import MAGIC_LENGTH, sniff
from sampan.storage.tar_reader import Readable

_NAME_OF_IMAGE = "io.containerd.image.name"
_NAME_OF_REFERENCE = "org.opencontainers.image.ref.name"
_DEPTH_LIMIT = 8


@dataclass(slots=True)
class _Found:
    """An image in the archive: its documents, the files of its layers, the names it wants."""

    config: ArchiveFile
    document: ImageDocument
    layers: list[ArchiveFile]
    manifest: bytes
    references: list[Reference] = field(default_factory=list)

    def missing(self, records: ImageRecords) -> list[str]:
        """The blobs of those of its layers that are not unpacked."""
        return [
            layer.digest
            for layer, chain_id in zip(self.layers, self.document.chain_ids, strict=True)
            if not records.driver.has_layer(chain_id)
        ]


def load(
    records: ImageRecords, stream: Readable, progress: Progress, platform: Platform | None = None
) -> list[Loaded]:
    """Bring the images of an archive into the store, all of them or none.

    Args:
        stream: the archive, plain or compressed; it is read once, front to back.
        progress: receives Docker's messages.
        platform: what the images must be for; of an index this machine's is taken when not given.

    Raises:
        NoSuchImage: an image is for another platform.
        InvalidArchive, InvalidImage, InvalidLayer, DigestMismatch: the archive is not as it must be.
    """
    with (
        records.content.scratch() as scratch,
        records.content.lease(records.collect) as lease,
        LayersAhead(records) as ahead,
    ):
        archive = read_archive(stream, scratch, ahead)
        images = _images(archive, platform)
        ahead.keep_only({blob for image in images for blob in image.missing(records)})
        added = []
        for image in images:
            image_id = _store(records, lease, image, progress, ahead)
            added.append((image_id, image))
        with records.database.transaction():
            for image_id, image in added:
                records.add(
                    image_id,
                    image.document,
                    records.content.put(image.manifest),
                    [layer.digest for layer in image.layers],
                )
                for reference in image.references:
                    before = records.name(reference, image_id)
                    if before is not None:
                        progress(
                            {
                                "stream": f"The image {reference.familiar} already exists, renaming the"
                                f" old one with ID {before} to empty string\n"
                            }
                        )
    loaded = []
    for image_id, image in added:
        for reference in image.references:
            progress({"stream": f"Loaded image: {reference.familiar}\n"})
        if not image.references:
            progress({"stream": f"Loaded image ID: {image_id}\n"})
        loaded.append(Loaded(image_id, [reference.familiar for reference in image.references]))
    return loaded


def _store(records: ImageRecords, lease: Lease, image: _Found, progress: Progress, ahead: LayersAhead) -> str:
    image_id = image.config.digest
    manifest_digest = sha256(image.manifest)
    lease.add(image_id, manifest_digest, *(layer.digest for layer in image.layers))
    for file in (image.config, *image.layers):
        if file.path.exists():  # two images, or two layers, may share it
            file.path.chmod(0o644)
            file.path.rename(records.content.path(file.digest))
    unpack_layers(
        records,
        lease,
        image.document.diff_ids,
        image.document.chain_ids,
        [layer.digest for layer in image.layers],
        progress,
        ahead=ahead,
    )
    return image_id


def _images(archive: Archive, platform: Platform | None) -> list[_Found]:
    if archive.find("manifest.json") is not None:
        return _docker_archive(archive, platform)
    if archive.find("index.json") is not None:
        return _layout(archive, platform)
    if archive.find("repositories") is not None:
        raise InvalidArchive(
            "this archive has the format of Docker before 1.10 (`repositories` without `manifest.json`),"
            " which is not supported: load and save it again with a newer engine"
        )
    raise InvalidArchive("this is not an archive of images: it has neither manifest.json nor index.json")


def _found(
    config: ArchiveFile, document: ImageDocument, layers: list[ArchiveFile], manifest: bytes
) -> _Found:
    if document.os not in ("", "linux"):
        raise InvalidArchive(f"cannot load {document.os} image on linux")
    if len(layers) != len(document.diff_ids):
        raise InvalidArchive(
            f"invalid manifest, layers length mismatch: expected {len(document.diff_ids)}, got {len(layers)}"
        )
    return _Found(config, document, layers, manifest)


def _json(archive: Archive, name: str) -> Any:
    try:
        return json.loads(archive.document(name))
    except (ValueError, RecursionError) as error:
        raise InvalidArchive(f"{name} is not valid JSON: {error}") from None


# --- docker-archive ---


def _docker_archive(archive: Archive, platform: Platform | None) -> list[_Found]:
    entries = _json(archive, "manifest.json")
    if not isinstance(entries, list):
        raise InvalidArchive("manifest.json is not a list")
    images = [_docker_entry(archive, entry) for entry in entries]
    for image in images:
        _check_platform(image, platform)
    return images


def _check_platform(image: _Found, platform: Platform | None) -> None:
    if platform is not None:
        name = image.references[0].familiar if image.references else image.config.digest
        check_platform(name, image.document.platform, platform)


def _docker_entry(archive: Archive, entry: Any) -> _Found:
    if not isinstance(entry, dict) or not isinstance(entry.get("Config"), str):
        raise InvalidArchive("manifest.json has an entry without Config")
    names, tags = entry.get("Layers") or [], entry.get("RepoTags") or []
    if not _are_texts(names) or not _are_texts(tags):
        raise InvalidArchive("manifest.json: Layers and RepoTags must be lists of texts")
    config = _checked(archive, entry["Config"])
    layers = [_checked(archive, name) for name in names]
    manifest = Manifest(
        config=Descriptor(media_types.OCI_CONFIG, config.digest, config.size),
        layers=[
            Descriptor(media_types.layer_type(_compression(layer)), layer.digest, layer.size)
            for layer in layers
        ],
    )
    found = _found(config, parse_image(archive.document(entry["Config"])), layers, encode_manifest(manifest))
    for tag in tags:
        reference = parse(tag)
        if reference.tag is None:
            raise InvalidArchive(f"invalid tag {tag!r}")
        found.references.append(reference)
    return found


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _checked(archive: Archive, name: str) -> ArchiveFile:
    """A file whose name may tell its digest, which then has to be right."""
    file = archive.get(name)
    if claimed_digest(name) not in (None, file.digest):
        raise DigestMismatch(f"{name} has the digest {file.digest}, not the one in its name")
    return file


def _compression(file: ArchiveFile) -> str:
    with file.path.open("rb") as opened:
        return sniff(opened.read(MAGIC_LENGTH))


# --- OCI layout ---


def _layout(archive: Archive, platform: Platform | None) -> list[_Found]:
    marker = _json(archive, "oci-layout") if archive.find("oci-layout") else None
    if not isinstance(marker, dict) or marker.get("imageLayoutVersion") != "1.0.0":
        raise InvalidArchive("index.json without an oci-layout file of version 1.0.0")
    target = platform or Platform("linux", local_architecture())
    wanted = _fitting(parse_index(archive.document("index.json")).manifests, target)
    found: dict[str, _Found] = {}
    for descriptor in wanted:
        manifest = _resolve(archive, descriptor, target, 0)
        image = found.setdefault(manifest.digest, _layout_image(archive, manifest))
        reference = _reference(descriptor)
        if reference is not None and reference not in image.references:
            image.references.append(reference)
    if not found:
        raise InvalidArchive("the archive's index names no image")
    for image in found.values():
        _check_platform(image, platform)
    return list(found.values())


def _fitting(descriptors: list[Descriptor], platform: Platform) -> list[Descriptor]:
    """Without attestations; where a name stands for several platforms, the one that is wanted."""
    images = [item for item in descriptors if not is_attestation(item)]
    chosen = []
    for descriptor in images:
        name = descriptor.annotations.get(_NAME_OF_IMAGE) or descriptor.annotations.get(_NAME_OF_REFERENCE)
        rivals = [
            other
            for other in images
            if name
            and name in (other.annotations.get(_NAME_OF_IMAGE), other.annotations.get(_NAME_OF_REFERENCE))
        ]
        best = best_for(rivals, platform) if len(rivals) > 1 else descriptor
        if descriptor is best or (best is not None and descriptor.platform == best.platform):
            chosen.append(descriptor)
    return chosen


def _resolve(archive: Archive, descriptor: Descriptor, platform: Platform, depth: int) -> Descriptor:
    """Down through nested indexes to the manifest for a platform."""
    data = _blob_document(archive, descriptor)
    is_index = descriptor.media_type in media_types.INDEXES or (
        descriptor.media_type not in media_types.MANIFESTS and b'"manifests"' in data
    )
    if not is_index:
        return descriptor
    if depth == _DEPTH_LIMIT:
        raise InvalidArchive(f"the archive's indexes are nested more than {_DEPTH_LIMIT} deep")
    below = [item for item in parse_index(data).manifests if not is_attestation(item)]
    best = best_for(below, platform)
    if best is None:
        best = below[0] if len(below) == 1 else None
    if best is None:
        raise InvalidArchive(f"{descriptor.digest} holds no image for {shown(platform)}")
    return _resolve(archive, best, platform, depth + 1)


def _layout_image(archive: Archive, descriptor: Descriptor) -> _Found:
    data = _blob_document(archive, descriptor)
    manifest = parse_manifest(data, descriptor.media_type)
    if manifest.config.media_type and manifest.config.media_type not in media_types.CONFIGS:
        raise InvalidArchive(
            f"{descriptor.digest} is not an image: its config is {manifest.config.media_type}"
        )
    config = _blob(archive, manifest.config)
    layers = [_blob(archive, layer) for layer in manifest.layers]
    return _found(config, parse_image(_blob_document(archive, manifest.config)), layers, data)


def _blob(archive: Archive, descriptor: Descriptor) -> ArchiveFile:
    file = archive.get(f"blobs/sha256/{hex_of(descriptor.digest)}")
    if file.digest != descriptor.digest:
        raise DigestMismatch(f"the content of {descriptor.digest} has the digest {file.digest}")
    if descriptor.size != file.size:
        raise DigestMismatch(
            f"{descriptor.digest} has {file.size} bytes, not the {descriptor.size} that were announced"
        )
    return file


def _blob_document(archive: Archive, descriptor: Descriptor) -> bytes:
    _blob(archive, descriptor)
    return archive.document(f"blobs/sha256/{hex_of(descriptor.digest)}")


def _reference(descriptor: Descriptor) -> Reference | None:
    """The name that an annotation gives; a bare word is a tag without a repository: no name."""
    full = descriptor.annotations.get(_NAME_OF_IMAGE)
    if not full:
        full = descriptor.annotations.get(_NAME_OF_REFERENCE, "")
        if ":" not in full and "/" not in full:
            return None
    reference = parse(full).with_default_tag()
    return reference.with_tag(reference.tag) if reference.tag else None
