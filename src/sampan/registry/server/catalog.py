"""What the registry knows: repositories, tags, manifests, which blobs are where. SQLite, `registry.db`.

Writes go through one connection and reach the disk before they are acknowledged (`synchronous=FULL`); reads
have a connection of their own, so that no reader waits for a writer's disk. Manifests live here whole, so a
manifest, its tag and what it names appear in one transaction.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import field
from pathlib import Path
from typing import Any

from sampan.database import Database
from sampan.dataclasses import dataclass
from sampan.registry.server.faults import ManifestBlobUnknown
from sampan.registry.server.manifests import Child, Document
from sampan.registry.server.names import is_digest

_SCHEMA = """
CREATE TABLE IF NOT EXISTS repositories (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS blobs (
    digest TEXT PRIMARY KEY, size INTEGER NOT NULL, stored REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS links (
    repository INTEGER NOT NULL, digest TEXT NOT NULL, touched REAL NOT NULL, PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS links_by_digest ON links (digest);
CREATE TABLE IF NOT EXISTS documents (digest TEXT PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS manifests (
    repository INTEGER NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, artifact_type TEXT NOT NULL,
    subject TEXT NOT NULL, annotations TEXT NOT NULL, size INTEGER NOT NULL, pushed REAL NOT NULL,
    PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS manifests_by_digest ON manifests (digest);
CREATE INDEX IF NOT EXISTS manifests_by_subject ON manifests (repository, subject) WHERE subject <> '';
CREATE TABLE IF NOT EXISTS tags (
    repository INTEGER NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, moved REAL NOT NULL,
    checked REAL NOT NULL, PRIMARY KEY (repository, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tags_by_digest ON tags (repository, digest);
CREATE TABLE IF NOT EXISTS children (
    repository INTEGER NOT NULL, parent TEXT NOT NULL, child TEXT NOT NULL, is_manifest INTEGER NOT NULL,
    size INTEGER NOT NULL, PRIMARY KEY (repository, parent, child)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS children_by_child ON children (repository, child);
"""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest in a repository."""

    digest: str
    media_type: str
    content: bytes
    checked: float = 0.0  # when the tag it was found by was last compared with upstream
    stale: bool = False  # upstream could not be asked whether it is still so


@dataclass(frozen=True, slots=True)
class Referrer:
    """A manifest that names another one as its subject."""

    digest: str
    media_type: str
    artifact_type: str
    size: int
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Summary:
    """A repository in a list."""

    name: str
    tags: int
    manifests: int
    size_bytes: int
    pushed: float


class Catalog:
    """The database of one registry. Every call may come from any thread.

    Args:
        root: the registry's data directory.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / "registry.db"
        self._db = Database(self.path)
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.script(_SCHEMA)
        self._reader = Database(self.path)

    def transaction(self) -> AbstractContextManager[None]:
        """All writes of the block, and the lock that they share with the collector."""
        return self._db.transaction()

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """One statement on the writing connection, for the collector."""
        return self._db.execute(statement, parameters)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
        self._db.close()

    # --- reading ---

    def exists(self, name: str) -> bool:
        """Whether anything was pushed to this repository."""
        return bool(self._reader.execute("SELECT 1 FROM repositories WHERE name = ?", (name,)))

    def manifest(self, name: str, reference: str) -> Manifest | None:
        """The manifest that a tag or digest names."""
        if is_digest(reference):
            rows = self._reader.execute(
                "SELECT m.digest, m.media_type, d.content, m.pushed FROM repositories r"
                " JOIN manifests m ON m.repository = r.id AND m.digest = ?"
                " JOIN documents d ON d.digest = m.digest WHERE r.name = ?",
                (reference, name),
            )
        else:
            rows = self._reader.execute(
                "SELECT m.digest, m.media_type, d.content, t.checked FROM repositories r"
                " JOIN tags t ON t.repository = r.id AND t.name = ?"
                " JOIN manifests m ON m.repository = r.id AND m.digest = t.digest"
                " JOIN documents d ON d.digest = m.digest WHERE r.name = ?",
                (reference, name),
            )
        return Manifest(*rows[0]) if rows else None

    def blob_size(self, name: str, digest: str) -> int | None:
        """The size of a blob that the repository has, else None."""
        rows = self._reader.execute(
            "SELECT b.size FROM repositories r JOIN links l ON l.repository = r.id AND l.digest = ?"
            " JOIN blobs b ON b.digest = l.digest WHERE r.name = ?",
            (digest, name),
        )
        return int(rows[0][0]) if rows else None

    def announced_size(self, name: str, digest: str) -> int | None:
        """The size of a blob as a manifest of the repository tells it, else None."""
        rows = self._reader.execute(
            "SELECT c.size FROM repositories r JOIN children c ON c.repository = r.id AND c.child = ?"
            " WHERE r.name = ? AND NOT c.is_manifest LIMIT 1",
            (digest, name),
        )
        return int(rows[0][0]) if rows else None

    def tags(self, name: str, last: str, limit: int) -> list[str]:
        """Up to `limit` tags behind `last`, in the order of their bytes."""
        rows = self._reader.execute(
            "SELECT t.name FROM repositories r JOIN tags t ON t.repository = r.id AND t.name > ?"
            " WHERE r.name = ? ORDER BY t.name LIMIT ?",
            (last, name, limit),
        )
        return [row[0] for row in rows]

    def tags_of(self, name: str, digest: str) -> list[str]:
        """The tags that name a manifest."""
        rows = self._reader.execute(
            "SELECT t.name FROM repositories r JOIN tags t ON t.repository = r.id AND t.digest = ?"
            " WHERE r.name = ? ORDER BY t.name",
            (digest, name),
        )
        return [row[0] for row in rows]

    def repositories(self, last: str, limit: int, containing: str = "") -> list[str]:
        """Up to `limit` repositories with a manifest behind `last`, in the order of their bytes."""
        rows = self._reader.execute(
            "SELECT r.name FROM repositories r WHERE r.name > ? AND instr(r.name, ?)"
            " AND EXISTS (SELECT 1 FROM manifests m WHERE m.repository = r.id) ORDER BY r.name LIMIT ?",
            (last, containing, limit),
        )
        return [row[0] for row in rows]

    def count(self, containing: str = "") -> int:
        """How many repositories have a manifest."""
        rows = self._reader.execute(
            "SELECT count(*) FROM repositories r WHERE instr(r.name, ?)"
            " AND EXISTS (SELECT 1 FROM manifests m WHERE m.repository = r.id)",
            (containing,),
        )
        return int(rows[0][0])

    def summary(self, name: str) -> Summary:
        """A repository in numbers."""
        rows = self._reader.execute(
            "SELECT (SELECT count(*) FROM tags WHERE repository = r.id),"
            " (SELECT count(*) FROM manifests WHERE repository = r.id),"
            " (SELECT coalesce(max(pushed), 0) FROM manifests WHERE repository = r.id)"
            " FROM repositories r WHERE r.name = ?",
            (name,),
        )
        tags, manifests, pushed = rows[0] if rows else (0, 0, 0.0)
        return Summary(name, tags, manifests, self.repository_bytes(name), pushed)

    def repository_bytes(self, name: str) -> int:
        """The bytes of blobs and manifests of a repository, each counted once."""
        rows = self._reader.execute(
            "SELECT coalesce((SELECT sum(b.size) FROM links l JOIN blobs b ON b.digest = l.digest"
            " WHERE l.repository = r.id), 0)"
            " + coalesce((SELECT sum(m.size) FROM manifests m WHERE m.repository = r.id), 0)"
            " FROM repositories r WHERE r.name = ?",
            (name,),
        )
        return int(rows[0][0]) if rows else 0

    def total_bytes(self) -> int:
        """The bytes of all blobs and manifests, each counted once."""
        rows = self._reader.execute(
            "SELECT coalesce((SELECT sum(size) FROM blobs), 0)"
            " + coalesce((SELECT sum(length(content)) FROM documents), 0)"
        )
        return int(rows[0][0])

    def referrers(self, name: str, digest: str, artifact_type: str = "") -> list[Referrer]:
        """The manifests whose subject is `digest`, oldest first."""
        rows = self._reader.execute(
            "SELECT m.digest, m.media_type, m.artifact_type, m.size, m.annotations FROM repositories r"
            " JOIN manifests m ON m.repository = r.id AND m.subject = ?1 AND m.subject <> ''"
            " WHERE r.name = ?2 AND (?3 = '' OR m.artifact_type = ?3) ORDER BY m.pushed, m.digest",
            (digest, name, artifact_type),
        )
        return [
            Referrer(digest, media_type, kind, size, json.loads(annotations))
            for digest, media_type, kind, size, annotations in rows
        ]

    def blob_digests(self) -> dict[str, int]:
        """All blobs and their sizes."""
        return dict(self._reader.execute("SELECT digest, size FROM blobs"))

    def is_linked(self, digest: str) -> bool:
        """Whether any repository has this blob."""
        return bool(self._reader.execute("SELECT 1 FROM links WHERE digest = ? LIMIT 1", (digest,)))

    # --- writing ---

    def _repository(self, name: str) -> int:
        rows = self._db.execute("SELECT id FROM repositories WHERE name = ?", (name,))
        if not rows:
            self._db.execute("INSERT INTO repositories (name) VALUES (?)", (name,))
            rows = self._db.execute("SELECT id FROM repositories WHERE name = ?", (name,))
        return int(rows[0][0])

    def _known(self, name: str) -> int | None:
        rows = self._db.execute("SELECT id FROM repositories WHERE name = ?", (name,))
        return int(rows[0][0]) if rows else None

    def add_blob(self, name: str, digest: str, size: int, place: Callable[[], None]) -> bool:
        """Record a blob in a repository; `place` gives its file the final name if there is none yet.

        Returns:
            whether it is new to the registry.
        """
        with self._db.transaction():
            known = self._db.execute("SELECT 1 FROM blobs WHERE digest = ?", (digest,))
            if not known:
                place()
                self._db.execute("INSERT INTO blobs VALUES (?, ?, ?)", (digest, size, time.time()))
            self._link(self._repository(name), digest)
            return not known

    def keep_fresh(self, name: str, since: float) -> None:
        """A long upload has ended: what its push sent before it is as fresh as it is."""
        with self._db.transaction():
            self._db.execute(
                "UPDATE links SET touched = ? WHERE repository = ? AND touched >= ?",
                (time.time(), self._known(name), since),
            )

    def _link(self, repository: int, digest: str) -> None:
        self._db.execute(
            "INSERT INTO links VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET touched = max(touched, excluded.touched)",
            (repository, digest, time.time()),
        )

    def mount(self, name: str, digest: str, source: str) -> bool:
        """Let a repository have a blob of another one; False when that one does not have it."""
        with self._db.transaction():
            other = self._known(source)
            if other is None or not self._db.execute(
                "SELECT 1 FROM links l JOIN blobs b ON b.digest = l.digest"
                " WHERE l.repository = ? AND l.digest = ?",
                (other, digest),
            ):
                return False
            self._link(self._repository(name), digest)
            return True

    def link_known(self, name: str, digest: str) -> bool:
        """Let a repository have a blob that the registry has anywhere; False when it has none."""
        with self._db.transaction():
            if not self._db.execute("SELECT 1 FROM blobs WHERE digest = ?", (digest,)):
                return False
            self._link(self._repository(name), digest)
            return True

    def put_manifest(
        self, name: str, tag: str, digest: str, data: bytes, document: Document, complete: bool = True
    ) -> bool:
        """Store a manifest, and name it by `tag` unless that is "".

        Args:
            complete: refuse it when the repository lacks something that it names.

        Returns:
            whether its bytes are new to the registry.

        Raises:
            ManifestBlobUnknown: then; the detail lists what is missing.
        """
        now = time.time()
        with self._db.transaction():
            repository = self._repository(name)
            if complete:
                self._check_children(repository, document.children)
            new = self._db.execute(
                "INSERT OR IGNORE INTO documents VALUES (?, ?) RETURNING 1", (digest, data)
            )
            self._db.execute(
                "INSERT INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " media_type = excluded.media_type, pushed = excluded.pushed",
                (
                    repository, digest, document.media_type, document.artifact_type, document.subject,
                    json.dumps(document.annotations), len(data), now,
                ),
            )  # fmt: skip
            for child in document.children:
                self._db.execute(
                    "INSERT OR IGNORE INTO children VALUES (?, ?, ?, ?, ?)",
                    (repository, digest, child.digest, child.is_manifest, child.size),
                )
            if tag:
                self._db.execute(
                    "INSERT INTO tags VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                    " digest = excluded.digest, moved = excluded.moved, checked = excluded.checked",
                    (repository, tag, digest, now, now),
                )
            return bool(new)

    def _check_children(self, repository: int, children: Iterable[Child]) -> None:
        missing = []
        for child in children:
            table = "manifests" if child.is_manifest else "links"
            if child.required and not self._db.execute(
                f"SELECT 1 FROM {table} WHERE repository = ? AND digest = ?", (repository, child.digest)
            ):
                missing.append(child.digest)
        if missing:
            raise ManifestBlobUnknown(
                f"the manifest names what this repository does not have: {missing[0]}"
                + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
                [{"digest": digest} for digest in missing[:100]],
            )

    def tag_checked(self, name: str, tag: str) -> None:
        """Upstream still has this tag as we have it."""
        with self._db.transaction():
            self._db.execute(
                "UPDATE tags SET checked = ? WHERE repository = ? AND name = ?",
                (time.time(), self._known(name), tag),
            )

    def delete_tag(self, name: str, tag: str) -> bool:
        """Take a tag away, and leave its manifest; False when there is none."""
        with self._db.transaction():
            repository = self._known(name)
            found = self._db.execute(
                "SELECT 1 FROM tags WHERE repository = ? AND name = ?", (repository, tag)
            )
            self._db.execute("DELETE FROM tags WHERE repository = ? AND name = ?", (repository, tag))
            return bool(found)

    def delete_manifest(self, name: str, digest: str) -> int | None:
        """Take a manifest and its tags away; how many bytes are free now, None when there is none."""
        with self._db.transaction():
            repository = self._known(name)
            if repository is None or not self._db.execute(
                "SELECT 1 FROM manifests WHERE repository = ? AND digest = ?", (repository, digest)
            ):
                return None
            return self.drop_manifest(repository, digest)

    def drop_manifest(self, repository: int, digest: str) -> int:
        """Take a manifest away, by the repository's number; how many bytes are free now."""
        with self._db.transaction():
            where = "WHERE repository = ? AND "
            self._db.execute(f"DELETE FROM tags {where} digest = ?", (repository, digest))
            self._db.execute(f"DELETE FROM children {where} parent = ?", (repository, digest))
            self._db.execute(f"DELETE FROM manifests {where} digest = ?", (repository, digest))
            freed = self._db.execute(
                "DELETE FROM documents WHERE digest = ?1"
                " AND NOT EXISTS (SELECT 1 FROM manifests WHERE digest = ?1) RETURNING length(content)",
                (digest,),
            )
            return int(freed[0][0]) if freed else 0

    def delete_link(self, name: str, digest: str) -> bool:
        """Take a blob away from a repository; False when it had none. The collector removes the bytes."""
        with self._db.transaction():
            repository = self._known(name)
            found = self._db.execute(
                "SELECT 1 FROM links WHERE repository = ? AND digest = ?", (repository, digest)
            )
            self._db.execute("DELETE FROM links WHERE repository = ? AND digest = ?", (repository, digest))
            return bool(found)

    def forget_blob(self, digest: str) -> None:
        """A blob's bytes are lost: no repository has it any more."""
        with self._db.transaction():
            self._db.execute("DELETE FROM links WHERE digest = ?", (digest,))
            self._db.execute("DELETE FROM blobs WHERE digest = ?", (digest,))

    def touch_links(self, touched: Iterable[tuple[str, str, float]]) -> None:
        """Remember when blobs were last asked for: repository, digest, time."""
        with self._db.transaction():
            for name, digest, when in touched:
                self._db.execute(
                    "UPDATE links SET touched = max(touched, ?) WHERE digest = ?"
                    " AND repository = (SELECT id FROM repositories WHERE name = ?)",
                    (when, digest, name),
                )
