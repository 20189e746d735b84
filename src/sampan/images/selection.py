"""Which manifest of an index to take (OCI image spec, image index; the order is containerd's)."""

from __future__ import annotations

from sampan.oci.image import Descriptor, Platform
from sampan.oci.platforms import preference

_ATTESTATION = "vnd.docker.reference.type"


def is_attestation(descriptor: Descriptor) -> bool:
    """Whether an index's entry is about another entry, as build tools add them, and no image."""
    unknown = descriptor.platform is not None and descriptor.platform.os == "unknown"
    return unknown or _ATTESTATION in descriptor.annotations


def best_for(descriptors: list[Descriptor], platform: Platform) -> Descriptor | None:
    """The entry for a platform; one that does not tell its own will do when nothing fits better."""
    ranked: list[tuple[int, int, Descriptor]] = []
    for position, descriptor in enumerate(descriptors):
        have = descriptor.platform
        if have is not None and have.os and have.architecture:
            rank = preference(have, platform)
            if rank is not None:
                ranked.append((rank, position, descriptor))
    if ranked:
        return min(ranked, key=lambda item: item[:2])[2]
    return next((item for item in descriptors if item.platform in (None, Platform("", ""))), None)
