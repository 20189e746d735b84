"""The registry's store: catalog, blobs and uploads as one, with its limits; blocking calls, for threads.

What must hold: a blob that the catalog names is whole; what a manifest names was there when it was stored;
an acknowledged push survives a power cut. The start repairs what a crash left between two of these.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from pathlib import Path

from sampan.dataclasses import dataclass
from sampan.errors import Conflict
from sampan.registry.server.blobs import Blobs
from sampan.registry.server.catalog import Catalog
from sampan.registry.server.faults import Denied, DigestInvalid, ManifestInvalid, TooLarge
from sampan.registry.server.manifests import Document, parse
from sampan.registry.server.names import check_digest, digest_of, is_digest
from sampan.registry.server.uploads import Upload, Uploads

log = logging.getLogger("sampan.registry.server")

_TOUCHES_LIMIT = 20_000


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken; 0 is no limit.

    Attributes:
        blob_bytes: one blob.
        manifest_bytes: one manifest.
        repository_bytes: one repository, shared blobs counted in each.
        total_bytes: everything together, uploads included.
        upload_expiry_s: how long an upload may rest.
        uploads: how many may be open at a time.
        grace_s: how long the collector keeps what nothing names.
    """

    blob_bytes: int = 0
    manifest_bytes: int = 4 << 20
    repository_bytes: int = 0
    total_bytes: int = 0
    upload_expiry_s: float = 86400.0
    uploads: int = 10_000
    grace_s: float = 3600.0


class Store:
    """What a registry keeps in its data directory.

    Args:
        root: the directory; created when missing.
        limits: how much it takes.

    Raises:
        Conflict: another process serves or collects this directory.
    """

    def __init__(self, root: Path, limits: Limits | None = None) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root = root
        self.limits = limits or Limits()
        self._undo = contextlib.ExitStack()
        self._undo.callback(os.close, _lock(root))
        try:
            self.catalog = Catalog(root)
            self._undo.callback(self.catalog.close)
            self.blobs = Blobs(root)
            self.uploads = Uploads(root, self.limits.upload_expiry_s, self.limits.uploads)
            self._repair()
        except BaseException:
            self._undo.close()
            raise
        self.opened = time.time()
        self._total = self.catalog.total_bytes()
        self._total_lock = threading.Lock()
        self._touched: dict[tuple[str, str], float] = {}
        self.condemned: set[tuple[str, str]] = set()

    def close(self) -> None:
        """Let go of the directory."""
        self.flush_touches()
        self._undo.close()

    def _repair(self) -> None:
        """Make files and catalog agree.

        A file without a row was never acknowledged; a row without its file is a loss.
        """
        known = self.catalog.blob_digests()
        for digest, entry in self.blobs.files():
            size = known.pop(digest, None)
            if size is None:
                os.unlink(entry.path)
                log.info("removed %s, which a crash left unfinished", digest)
            elif entry.stat().st_size != size:
                os.unlink(entry.path)
                known[digest] = size
        for digest in known:
            if self.catalog.is_linked(digest):
                log.error("blob %s is lost: push the images that need it again", digest)
            self.catalog.forget_blob(digest)

    # --- uploads ---

    def check_room(self, repository: str, coming: int, open_size: int = 0) -> None:
        """Refuse what would go beyond a limit.

        Args:
            coming: the bytes that are about to come.
            open_size: what has come of the same blob before.

        Raises:
            TooLarge: the blob is too large.
            Denied: the repository, or the whole registry, would be.
        """
        limits = self.limits
        if limits.blob_bytes and open_size + coming > limits.blob_bytes:
            raise TooLarge(f"the blob is larger than the {limits.blob_bytes} bytes that this registry takes")
        if limits.total_bytes and self.total() + self.uploads.open_bytes() + coming > limits.total_bytes:
            raise Denied(f"quota exceeded: this registry takes {limits.total_bytes} bytes in all")
        if limits.repository_bytes:
            used = self.catalog.repository_bytes(repository) + self.uploads.open_bytes(repository)
            if used + coming > limits.repository_bytes:
                raise Denied(f"quota exceeded: {repository} may hold {limits.repository_bytes} bytes")

    def total(self) -> int:
        """The bytes of all blobs and manifests."""
        with self._total_lock:
            return self._total

    def count_bytes(self, change: int) -> None:
        """Something was stored or removed."""
        with self._total_lock:
            self._total += change

    def commit(self, upload: Upload, digest: str) -> int:
        """End an upload, within `held`: its bytes become a blob of the repository.

        Returns:
            its size in bytes.

        Raises:
            DigestInvalid: they have another digest; the upload is gone.
            Denied, TooLarge: a limit.
        """
        check_digest(digest)
        actual = upload.settle(digest)
        if actual != digest:
            self.uploads.end(upload)
            raise DigestInvalid(
                "provided digest did not match uploaded content", {"digest": digest, "actual": actual}
            )
        self.check_room(upload.repository, 0, upload.size)
        new = self.catalog.add_blob(
            upload.repository, digest, upload.size, lambda: self.blobs.adopt(upload.path, digest)
        )
        if new:
            self.count_bytes(upload.size)
        if time.time() - upload.started > self.limits.grace_s / 2:
            self.catalog.keep_fresh(upload.repository, upload.started - self.limits.grace_s)
        self.uploads.end(upload)
        return upload.size

    # --- blobs ---

    def open_blob(self, repository: str, digest: str) -> tuple[int, int] | None:
        """A descriptor of a blob of the repository and its size in bytes; None when it has no such blob."""
        self.touch(repository, digest)
        if (repository, digest) in self.condemned:
            return None
        size = self.catalog.blob_size(repository, digest)
        if size is None:
            return None
        try:
            return self.blobs.open(digest), size
        except FileNotFoundError:
            return None  # collected in between

    def has_blob(self, repository: str, digest: str) -> int | None:
        """A blob's size when the repository has it; to have asked keeps it for a while."""
        self.touch(repository, digest)
        if (repository, digest) in self.condemned:
            return None  # being collected at this very moment: to be sent again
        return self.catalog.blob_size(repository, digest)

    def touch(self, repository: str, digest: str) -> None:
        """Somebody asked for this blob and may be about to name it in a manifest."""
        self._touched[repository, digest] = time.time()

    def touched(self, repository: str, digest: str) -> float:
        """When somebody did last, as far as it is not in the catalog."""
        return self._touched.get((repository, digest), 0.0)

    def flush_touches(self) -> None:
        """Write down who asked for what."""
        touched, self._touched = self._touched, {}
        self.catalog.touch_links((*key, when) for key, when in touched.items())

    @property
    def touches_overflow(self) -> bool:
        """Whether it is time to flush."""
        return len(self._touched) > _TOUCHES_LIMIT

    # --- manifests ---

    def delete_manifest(self, repository: str, digest: str) -> bool:
        """Take a manifest and its tags away; False when there is none."""
        freed = self.catalog.delete_manifest(repository, digest)
        self.count_bytes(-(freed or 0))
        return freed is not None

    def put_manifest(
        self, repository: str, reference: str, data: bytes, content_type: str, complete: bool = True
    ) -> tuple[str, Document]:
        """Store a manifest under a tag or its digest.

        Returns:
            its digest, and what it says.

        Raises:
            ManifestInvalid: it is none, or too large.
            DigestInvalid: it is not the one that the digest names.
            ManifestBlobUnknown: it names what is not here.
            Denied: a quota.
        """
        if len(data) > self.limits.manifest_bytes:
            raise manifest_too_large(self.limits.manifest_bytes)
        document = parse(data, content_type)
        tag, digest = reference, ""
        if is_digest(reference):
            tag, digest = "", digest_of(data, reference.partition(":")[0])
            if digest != reference:
                raise DigestInvalid(
                    "provided digest did not match uploaded content", {"digest": reference, "actual": digest}
                )
        else:
            digest = digest_of(data)
        if any(child.digest == digest for child in document.children):
            raise ManifestInvalid("manifest invalid: it names itself")
        self.check_room(repository, len(data) if self.limits.repository_bytes else 0)
        if self.catalog.put_manifest(repository, tag, digest, data, document, complete):
            self.count_bytes(len(data))
        return digest, document


def manifest_too_large(limit_bytes: int) -> TooLarge:
    """The refusal."""
    return TooLarge(f"the manifest is larger than the {limit_bytes} bytes that this registry takes")


def _lock(root: Path) -> int:
    fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise Conflict(f"{root} is in use by another registry (pid {holder})") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
