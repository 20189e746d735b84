"""Manifests and indexes as a registry sees them: what they name, and nothing else of them.

OCI image spec 1.1 (manifest, index), Docker image manifest schema 2 and manifest list. The bytes are kept as
they came; a document that two readers could take for two different things is refused (CVE-2021-41190).
"""

from __future__ import annotations

import json
from dataclasses import field
from typing import Any

from sampan.dataclasses import dataclass
from sampan.oci import media_types
from sampan.registry.server.faults import ManifestInvalid
from sampan.registry.server.names import is_digest

_KNOWN = media_types.MANIFESTS | media_types.INDEXES
_FOREIGN = frozenset(
    (
        media_types.DOCKER_LAYER_FOREIGN,
        media_types.OCI_LAYER_NONDISTRIBUTABLE,
        media_types.OCI_LAYER_NONDISTRIBUTABLE + "+gzip",
        media_types.OCI_LAYER_NONDISTRIBUTABLE + "+zstd",
    )
)


@dataclass(frozen=True, slots=True)
class Child:
    """One thing that a manifest names."""

    digest: str
    size: int
    is_manifest: bool
    required: bool = True


@dataclass(frozen=True, slots=True)
class Document:
    """What a manifest says.

    Attributes:
        artifact_type: its own, or else its config's media type; "" for neither.
        subject: the digest of the manifest it is about, "" for none.
        children: blobs and manifests that belong to it.
    """

    media_type: str
    artifact_type: str = ""
    subject: str = ""
    annotations: dict[str, str] = field(default_factory=dict)
    children: list[Child] = field(default_factory=list)


def load(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`.

    Raises:
        ManifestInvalid: it is none.
    """
    try:
        value = json.loads(data)
    except RecursionError:
        raise ManifestInvalid("manifest invalid: JSON nested too deeply") from None
    except ValueError as error:
        raise ManifestInvalid(f"manifest invalid: not JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise ManifestInvalid("manifest invalid: not a JSON object")
    return value


def parse(data: bytes, content_type: str) -> Document:
    """Read a manifest that comes with a `Content-Type`.

    Raises:
        ManifestInvalid: it is no manifest, of a type not known here, or not of the type it comes with.
    """
    value = load(data)
    announced = content_type.partition(";")[0].strip()
    own = value.get("mediaType")
    if value.get("schemaVersion") == 1 or announced.startswith(
        "application/vnd.docker.distribution.manifest.v1"
    ):
        raise ManifestInvalid(
            "manifest invalid: Docker's schema 1 of before 2016 is not taken: push again with a newer client"
        )
    if own is not None and own != announced and announced in _KNOWN:
        raise ManifestInvalid(
            f"manifest invalid: mediaType {own!r} does not match Content-Type {announced!r}"
        )
    if announced not in _KNOWN:
        if own not in _KNOWN or announced not in ("", "application/json", "application/octet-stream"):
            raise ManifestInvalid(f"manifest invalid: unsupported media type {announced[:200]!r}")
        announced = str(own)
    if value.get("schemaVersion") != 2:
        raise ManifestInvalid("manifest invalid: schemaVersion must be 2")
    is_index = announced in media_types.INDEXES
    if is_index and ("layers" in value or "config" in value):
        raise ManifestInvalid("manifest invalid: an index has neither layers nor config")
    if not is_index and "manifests" in value:
        raise ManifestInvalid("manifest invalid: an image manifest has no manifests")
    children = _index_children(value) if is_index else _image_children(value)
    subject = value.get("subject")
    config = value.get("config")
    artifact_type = value.get("artifactType") or ""
    if not artifact_type and isinstance(config, dict):
        artifact_type = config.get("mediaType") or ""
    return Document(
        media_type=announced,
        artifact_type=_text(artifact_type, "artifactType"),
        subject="" if subject is None else _child(subject, "subject", True).digest,
        annotations=_annotations(value.get("annotations")),
        children=children,
    )


def _index_children(value: dict[str, Any]) -> list[Child]:
    listed = value.get("manifests")
    if not isinstance(listed, list):
        raise ManifestInvalid("manifest invalid: an index has a list of manifests")
    found = []
    for item in listed:
        kind = item.get("mediaType") if isinstance(item, dict) else None
        found.append(_child(item, "manifests", kind in _KNOWN or kind is None))
    return found


def _image_children(value: dict[str, Any]) -> list[Child]:
    layers = value.get("layers", [])
    if not isinstance(layers, list) or "config" not in value:
        raise ManifestInvalid("manifest invalid: an image manifest has a config and a list of layers")
    return [_child(value["config"], "config", False), *(_child(item, "layers", False) for item in layers)]


def _child(item: Any, where: str, is_manifest: bool) -> Child:
    if not isinstance(item, dict):
        raise ManifestInvalid(f"manifest invalid: {where}: a descriptor is an object")
    digest, size = item.get("digest"), item.get("size")
    if not isinstance(digest, str) or not is_digest(digest):
        raise ManifestInvalid(f"manifest invalid: {where}: invalid digest {str(digest)[:200]!r}")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        raise ManifestInvalid(f"manifest invalid: {where}: invalid size {str(size)[:40]!r}")
    kind, urls = item.get("mediaType"), item.get("urls")
    if not isinstance(kind, str) and kind is not None:
        raise ManifestInvalid(f"manifest invalid: {where}: mediaType is not a text")
    return Child(digest, size, is_manifest, required=not (kind in _FOREIGN and bool(urls)))


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ManifestInvalid(f"manifest invalid: {where} is not a text")
    return value


def _annotations(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ManifestInvalid("manifest invalid: annotations are an object of texts")
    return value
