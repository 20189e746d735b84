"""Garbage collection while the registry serves: mark, then sweep what is still unmarked under the lock.

Kept is what a manifest names, and what a running push may be about to name: blobs and manifests that were
sent, mounted or asked for less than a grace period ago, or less than that before the oldest upload now open
in the same repository began. Each removal looks again within the transaction that removes, so a push that
comes in between either finds the thing kept or is told that it is not there and sends it again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import asdict

from sampan.database import Database
from sampan.dataclasses import dataclass
from sampan.registry.server.store import Store

log = logging.getLogger("sampan.registry.server")

_BATCH = 50

_UNTAGGED = """
WITH RECURSIVE live (repository, digest) AS (
    SELECT repository, digest FROM tags
    UNION
    SELECT c.repository, c.child FROM children c
        JOIN live l ON l.repository = c.repository AND l.digest = c.parent WHERE c.is_manifest
    UNION
    SELECT m.repository, m.digest FROM manifests m
        JOIN live l ON l.repository = m.repository AND l.digest = m.subject
)
SELECT m.repository, r.name, m.digest FROM manifests m JOIN repositories r ON r.id = m.repository
WHERE NOT EXISTS (SELECT 1 FROM live l WHERE l.repository = m.repository AND l.digest = m.digest)
"""
_STILL_UNTAGGED = """
SELECT 1 FROM manifests m WHERE m.repository = ?1 AND m.digest = ?2 AND m.pushed < ?3
    AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repository = ?1 AND t.digest = ?2)
    AND NOT EXISTS (SELECT 1 FROM children c WHERE c.repository = ?1 AND c.child = ?2)
    AND NOT EXISTS (SELECT 1 FROM manifests s WHERE s.repository = ?1 AND s.digest = m.subject)
"""
_UNNAMED = """
SELECT l.repository, r.name, l.digest FROM links l JOIN repositories r ON r.id = l.repository
WHERE l.touched < ? AND NOT EXISTS (
    SELECT 1 FROM children c WHERE c.repository = l.repository AND c.child = l.digest AND NOT c.is_manifest)
"""
_STILL_UNNAMED = """
SELECT 1 FROM links l WHERE l.repository = ?1 AND l.digest = ?2 AND l.touched < ?3 AND NOT EXISTS (
    SELECT 1 FROM children c WHERE c.repository = ?1 AND c.child = ?2 AND NOT c.is_manifest)
"""
_UNREAD = """
SELECT l.repository, r.name, l.digest FROM links l JOIN repositories r ON r.id = l.repository
WHERE l.touched < ?
"""
_STILL_UNREAD = "SELECT 1 FROM links WHERE repository = ? AND digest = ? AND touched < ?"
_UNLINKED = "SELECT b.digest FROM blobs b WHERE NOT EXISTS (SELECT 1 FROM links l WHERE l.digest = b.digest)"
_EMPTY = """
DELETE FROM repositories WHERE NOT EXISTS (SELECT 1 FROM links WHERE repository = id)
    AND NOT EXISTS (SELECT 1 FROM manifests WHERE repository = id)
    AND NOT EXISTS (SELECT 1 FROM tags WHERE repository = id)
"""


@dataclass(slots=True)
class Report:
    """What a collection has removed."""

    manifests: int = 0
    links: int = 0
    blobs: int = 0
    bytes: int = 0
    uploads: int = 0
    seconds: float = 0.0

    def as_json(self) -> dict[str, float]:
        """For the command."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"removed {self.blobs} blobs ({self.bytes} bytes), {self.manifests} untagged manifests, "
            f"{self.uploads} expired uploads in {self.seconds:.2f} s"
        )


class Collector:
    """Collects one store; at most one collection at a time, in a thread.

    Args:
        store: what to clean.
        untagged: also remove manifests that no tag leads to.
        keep_s: for a cache: remove blobs that nobody has read for so long; 0 never.
    """

    def __init__(self, store: Store, untagged: bool = False, keep_s: float = 0.0) -> None:
        self._store = store
        self._grace_s = store.limits.grace_s
        self._untagged = untagged
        self._keep_s = keep_s

    def collect(self, untagged: bool | None = None) -> Report:
        """Remove what nobody needs."""
        began = time.monotonic()
        report = Report(uploads=self._store.uploads.expire())
        self._store.flush_touches()
        look = Database(self._store.catalog.path)  # of our own, so that nobody waits for a long look
        try:
            if self._untagged if untagged is None else untagged:
                self._drop_manifests(look, report)
            recent = time.time() - self._grace_s
            self._drop_links(look.execute(_UNNAMED, (recent,)), _STILL_UNNAMED, self._grace_s, report)
            if self._keep_s:
                old = time.time() - self._keep_s
                self._drop_links(look.execute(_UNREAD, (old,)), _STILL_UNREAD, self._keep_s, report)
            self._drop_blobs([row[0] for row in look.execute(_UNLINKED)], report)
        finally:
            look.close()
        if not self._store.uploads.all():
            self._store.catalog.execute(_EMPTY)
        report.seconds = time.monotonic() - began
        log.info("garbage collection: %s", report)
        return report

    def _cutoff(self, name: str, grace_s: float) -> float:
        """What is older may go, in this repository."""
        begun = [one.started for one in self._store.uploads.all() if one.repository == name]
        return min([time.time(), *begun]) - grace_s

    def _drop_manifests(self, look: Database, report: Report) -> None:
        catalog = self._store.catalog
        while True:  # parents and subjects go first, what belonged to them in the next round
            before = report.manifests
            for repository, name, digest in look.execute(_UNTAGGED):
                with catalog.transaction():
                    cutoff = self._cutoff(name, self._grace_s)
                    rows = catalog.execute(_STILL_UNTAGGED, (repository, digest, cutoff))
                    freed = catalog.drop_manifest(repository, digest) if rows else 0
                if rows:
                    report.manifests += 1
                    report.bytes += freed
                    self._store.count_bytes(-freed)
            if report.manifests == before:
                return

    def _drop_links(
        self, found: Iterable[tuple[int, str, str]], still: str, grace_s: float, report: Report
    ) -> None:
        catalog, condemned = self._store.catalog, self._store.condemned
        for repository, name, digest in found:
            key = (name, digest)
            # Whoever asks for it from here on is told that it is not there; who asked before is seen below.
            condemned.add(key)
            try:
                with catalog.transaction():
                    cutoff = self._cutoff(name, grace_s)
                    if self._store.touched(name, digest) >= cutoff:
                        continue
                    if catalog.execute(still, (repository, digest, cutoff)):
                        catalog.execute(
                            "DELETE FROM links WHERE repository = ? AND digest = ?", (repository, digest)
                        )
                        report.links += 1
            finally:
                condemned.discard(key)

    def _drop_blobs(self, digests: list[str], report: Report) -> None:
        catalog = self._store.catalog
        for start in range(0, len(digests), _BATCH):
            with catalog.transaction():
                for digest in digests[start : start + _BATCH]:
                    rows = catalog.execute(
                        "DELETE FROM blobs WHERE digest = ?1"
                        " AND NOT EXISTS (SELECT 1 FROM links WHERE digest = ?1) RETURNING size",
                        (digest,),
                    )
                    if rows:
                        self._store.blobs.remove(digest)
                        report.blobs += 1
                        report.bytes += rows[0][0]
                        self._store.count_bytes(-rows[0][0])
