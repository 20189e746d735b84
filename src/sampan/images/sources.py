"""What is remembered of blobs in registries: where each is known to be, and what a plain one is when packed.

A push mounts a blob from another repository of the same registry instead of sending it, and finds that a
layer which it compressed before is there already. All of it is hints: a registry is asked before they are
believed.
"""

from __future__ import annotations

import time

from sampan.database import Database
from sampan.oci.reference import Reference

_KEPT_FOR_EACH = 16
_TABLES = """
CREATE TABLE IF NOT EXISTS image_blob_sources (
    blob TEXT NOT NULL,
    domain TEXT NOT NULL,
    path TEXT NOT NULL,
    seen_at_ns INTEGER NOT NULL,
    PRIMARY KEY (blob, domain, path)
);
CREATE TABLE IF NOT EXISTS image_packed_layers (
    blob TEXT NOT NULL,
    compression TEXT NOT NULL,
    packed TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY (blob, compression)
);
"""


class BlobSources:
    """The hints, kept in the daemon's database.

    Args:
        database: the tables here are `image_blob_sources` and `image_packed_layers`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        database.script(_TABLES)

    def saw(self, reference: Reference, *digests: str) -> None:
        """These blobs were pulled from, or pushed to, the repository that `reference` names."""
        with self._database.transaction():
            for digest in digests:
                self._database.execute(
                    "INSERT INTO image_blob_sources (blob, domain, path, seen_at_ns) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT (blob, domain, path) DO UPDATE SET seen_at_ns = excluded.seen_at_ns",
                    (digest, reference.domain, reference.path, time.time_ns()),
                )
                self._database.execute(
                    "DELETE FROM image_blob_sources WHERE blob = ? AND seen_at_ns < (SELECT MIN(seen_at_ns)"
                    " FROM (SELECT seen_at_ns FROM image_blob_sources WHERE blob = ?"
                    " ORDER BY seen_at_ns DESC LIMIT ?))",
                    (digest, digest, _KEPT_FOR_EACH),
                )

    def others(self, reference: Reference, digest: str) -> list[str]:
        """Other repositories of the same registry that may have the blob, the last seen first."""
        return [
            row[0]
            for row in self._database.execute(
                "SELECT path FROM image_blob_sources WHERE blob = ? AND domain = ? AND path != ?"
                " ORDER BY seen_at_ns DESC",
                (digest, reference.domain, reference.path),
            )
        ]

    def lost(self, reference: Reference, path: str, digest: str) -> None:
        """The repository `path` did not have the blob."""
        self._database.execute(
            "DELETE FROM image_blob_sources WHERE blob = ? AND domain = ? AND path = ?",
            (digest, reference.domain, path),
        )

    def packed(self, blob: str, compression: str) -> tuple[str, int] | None:
        """Digest and size in bytes of a plain blob when it was compressed last."""
        rows = self._database.execute(
            "SELECT packed, size_bytes FROM image_packed_layers WHERE blob = ? AND compression = ?",
            (blob, compression),
        )
        return (rows[0][0], rows[0][1]) if rows else None

    def keep_packed(self, blob: str, compression: str, packed: str, size_bytes: int) -> None:
        """Remember what a plain blob became."""
        self._database.execute(
            "INSERT INTO image_packed_layers (blob, compression, packed, size_bytes) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (blob, compression) DO UPDATE"
            " SET packed = excluded.packed, size_bytes = excluded.size_bytes",
            (blob, compression, packed, size_bytes),
        )

    def forget(self, blob: str) -> None:
        """The store no longer has this blob."""
        with self._database.transaction():
            self._database.execute(
                "DELETE FROM image_blob_sources WHERE blob = ?"
                " OR blob IN (SELECT packed FROM image_packed_layers WHERE blob = ?)",
                (blob, blob),
            )
            self._database.execute("DELETE FROM image_packed_layers WHERE blob = ?", (blob,))
