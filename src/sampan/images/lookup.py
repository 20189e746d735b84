"""What a registry has under a name, without pulling it."""

from __future__ import annotations

from sampan.oci import media_types
from sampan.oci.image import (
    DOCUMENT_LIMIT_BYTES,
    Descriptor,
    Platform,
    parse_image,
    parse_index,
    parse_manifest,
)
from sampan.oci.reference import Reference
from sampan.registry import Credentials, InvalidAnswer, Registries


def look_up(
    registries: Registries, reference: Reference, credentials: Credentials
) -> tuple[Descriptor, list[Platform]]:
    """The descriptor of a manifest or index, and the platforms that it is for.

    Raises:
        NotInRegistry: there is none.
        RegistryError: the registry cannot be asked.
        DigestMismatch, InvalidImage: what it has is not what it says.
    """
    repository = registries.repository(reference, credentials)
    data, descriptor = repository.manifest(reference.digest or reference.tag or "latest")
    if descriptor.media_type in media_types.INDEXES:
        below = parse_index(data).manifests
        return descriptor, [item.platform for item in below if item.platform is not None]
    config = parse_manifest(data, descriptor.media_type).config
    if config.media_type not in media_types.CONFIGS:
        return descriptor, []
    if config.size > DOCUMENT_LIMIT_BYTES:
        raise InvalidAnswer(f"{reference.familiar}: the image's config is announced with {config.size} bytes")
    with repository.download(config) as stream:
        document = parse_image(stream.read())
    return descriptor, [Platform(document.os, document.architecture, document.variant, document.os_version)]
