"""An image as the rest of the engine sees it, and the tables that keep it."""

from __future__ import annotations

from dataclasses import field

from sampan.dataclasses import dataclass
from sampan.images.errors import NoSuchImage
from sampan.oci.image import ImageConfig, ImageDocument, Platform
from sampan.oci.platforms import satisfies, shown
from sampan.oci.reference import Reference

TABLES = """
CREATE TABLE IF NOT EXISTS images (
    id TEXT PRIMARY KEY,
    manifest TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    parent TEXT NOT NULL DEFAULT '',
    added_at_ns INTEGER NOT NULL,
    tagged_at_ns INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS image_layers (
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    blob TEXT NOT NULL,
    layer TEXT NOT NULL,
    PRIMARY KEY (image, position)
);
CREATE INDEX IF NOT EXISTS image_layers_blob ON image_layers (blob);
CREATE INDEX IF NOT EXISTS image_layers_layer ON image_layers (layer);
CREATE TABLE IF NOT EXISTS image_names (
    name TEXT PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS image_names_image ON image_names (image);
CREATE TABLE IF NOT EXISTS image_unsettled (
    image TEXT PRIMARY KEY REFERENCES images(id) ON DELETE CASCADE,
    boot TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS image_documents (
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    blob TEXT NOT NULL,
    PRIMARY KEY (image, blob)
);
CREATE INDEX IF NOT EXISTS image_documents_blob ON image_documents (blob);
CREATE TABLE IF NOT EXISTS image_facts (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
"""


@dataclass(slots=True)
class Image:
    """One image.

    Attributes:
        id: the digest of its config document.
        document: that document, parsed.
        names: its tags and digests.
        top_layer: the chain id of its topmost layer; None when it has no layers.
        size_bytes: the sum of its layers' files.
        manifest_digest: the manifest that belongs to it in the content store.
        parent: the id of the image it was made from, when that is known here.
        tagged_at_ns: when it last got a name; 0 never.
    """

    id: str
    document: ImageDocument
    names: list[Reference]
    top_layer: str | None
    size_bytes: int
    manifest_digest: str
    parent: str = ""
    added_at_ns: int = 0
    tagged_at_ns: int = 0

    @property
    def config(self) -> ImageConfig:
        """What its containers run with."""
        return self.document.config

    @property
    def repo_tags(self) -> list[str]:
        """Its tags as people write them."""
        return [name.familiar for name in self.names if not name.digest]

    @property
    def repo_digests(self) -> list[str]:
        """Its digest references as people write them."""
        return [name.familiar for name in self.names if name.digest]

    @property
    def diff_ids(self) -> list[str]:
        """The digests of its uncompressed layers, lowest first."""
        return self.document.diff_ids

    @property
    def created(self) -> str:
        """When it was made, RFC 3339, as its document says."""
        return self.document.created

    @property
    def architecture(self) -> str:
        """The processor it is for."""
        return self.document.architecture

    @property
    def platform(self) -> Platform:
        """What it runs on."""
        return self.document.platform

    @property
    def os(self) -> str:
        """The operating system it is for."""
        return self.document.os or "linux"


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """One line of `docker history`, topmost first; `id` is "<missing>" for steps without an image here."""

    id: str
    created: str
    created_by: str
    comment: str
    size_bytes: int
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image that `load` brought, with the names it got."""

    image_id: str
    references: list[str]


def check_platform(reference: str, have: Platform, wanted: Platform) -> None:
    """Raise `NoSuchImage`, in Docker's words, when an image is not for the platform that is wanted."""
    if not satisfies(have, wanted):
        raise NoSuchImage(
            f"image with reference {reference} was found but its platform ({shown(have)}) does not match the"
            f" specified platform ({shown(wanted)})"
        )
