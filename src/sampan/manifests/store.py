"""Manifest lists that are still to be pushed, in the directory and the format of docker's client.

`manifests/<list>/<image>` in the folder of config.json holds one image each; in their names `:` is `-` and
`/` is `_` (github.com/docker/cli, cli/manifest/store).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
from dataclasses import field
from pathlib import Path
from typing import Any

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter
from sampan.oci import media_types

_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant")


@dataclass(slots=True)
class ListedImage:
    """One image of a list.

    Attributes:
        reference: its whole name.
        media_type, digest: of its manifest.
        raw: the manifest as the registry has it.
        platform: what it runs on, in the words of the OCI image spec.
    """

    reference: str
    media_type: str
    digest: str
    raw: bytes
    platform: dict[str, Any] = field(default_factory=dict)

    @property
    def manifest(self) -> dict[str, Any]:
        """Its content."""
        content: dict[str, Any] = json.loads(self.raw)
        return content

    def document(self) -> dict[str, Any]:
        """As docker keeps and shows it."""
        kind = "OCIManifest" if self.media_type == media_types.OCI_MANIFEST else "SchemaV2Manifest"
        described = {"mediaType": self.media_type, "digest": self.digest, "size": len(self.raw)}
        return {
            "Ref": self.reference,
            "Descriptor": {**described, "platform": self._platform()},
            "Raw": base64.b64encode(self.raw).decode(),
            kind: self.manifest,
        }

    def entry(self) -> dict[str, Any]:
        """As a manifest list has it."""
        described = {"mediaType": self.media_type, "size": len(self.raw), "digest": self.digest}
        return {**described, "platform": self._platform()}

    def _platform(self) -> dict[str, Any]:
        platform = {"architecture": "", "os": "", **self.platform}
        return {name: platform[name] for name in _PLATFORM if name in platform}

    @classmethod
    def from_document(cls, document: dict[str, Any], where: Path) -> ListedImage:
        """From what docker or we have kept.

        Raises:
            InvalidParameter: it is not of that format.
        """
        try:
            described = document["Descriptor"]
            raw = base64.b64decode(document["Raw"])
            platform = {name: value for name, value in (described.get("platform") or {}).items() if value}
            return cls(document["Ref"], described["mediaType"], described["digest"], raw, platform)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise InvalidParameter(f"{where}: not a kept manifest ({error}); remove the file") from None


def list_document(images: list[ListedImage]) -> dict[str, Any]:
    """The manifest list of these images; it is of the kind that the first of them is of."""
    oci = bool(images) and images[0].media_type == media_types.OCI_MANIFEST
    return {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX if oci else media_types.DOCKER_INDEX,
        "manifests": [image.entry() for image in images],
    }


class Store:
    """The lists.

    Args:
        directory: where they lie; made when there is something to keep.
    """

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)

    def images(self, target: str) -> list[ListedImage]:
        """All of a list, by name; none when there is no such list."""
        place = self._place(target)
        names = sorted(os.listdir(place)) if place.is_dir() else []
        return [self._read(place / name) for name in names if not name.startswith(".")]

    def image(self, target: str, reference: str) -> ListedImage | None:
        """One of a list, if it is in there."""
        path = self._place(target) / _safe(reference)
        return self._read(path) if path.is_file() else None

    def save(self, target: str, image: ListedImage) -> None:
        """Put an image into a list, in place of the one of its name."""
        place = self._place(target)
        place.mkdir(parents=True, exist_ok=True)
        content = json.dumps(image.document(), separators=(",", ":"), ensure_ascii=False)
        fd, temporary = tempfile.mkstemp(prefix=".", dir=place)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(content)
        os.rename(temporary, place / _safe(image.reference))

    def remove(self, target: str) -> None:
        """Forget a list."""
        shutil.rmtree(self._place(target))

    def _place(self, target: str) -> Path:
        return self._directory / _safe(target)

    def _read(self, path: Path) -> ListedImage:
        try:
            document = json.loads(path.read_bytes())
        except ValueError as error:
            raise InvalidParameter(f"{path}: not a kept manifest ({error}); remove the file") from None
        return ListedImage.from_document(document, path)


def _safe(reference: str) -> str:
    return reference.replace(":", "-").replace("/", "_")
