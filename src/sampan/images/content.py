"""The content store: blobs by digest, exactly the bytes that arrived.

    <root>/blobs/sha256/<hex>
    <root>/ingest/…              blobs on their way in; partial-<hex> grows by downloads

A blob is whole or absent: it gets its name by a rename, after its digest was computed from what was written.
A `Lease` keeps blobs and layers that no record names yet from being collected.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from sampan.images.errors import BrokenContent
from sampan.oci.digest import DigestMismatch, check_digest, hex_of, is_digest, sha256
from sampan.storage.base import remove_tree


class BlobWriter:
    """A blob on its way in. As a context it discards itself unless it was committed."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store
        fd, name = tempfile.mkstemp(dir=store.ingest)
        self._fd = fd
        self.path = Path(name)
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Append `data`."""
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self.size += len(data)
        return len(data)

    @property
    def digest(self) -> str:
        """The digest of what was written so far."""
        return "sha256:" + self._hash.hexdigest()

    def commit(self, expected: str | None = None, size: int | None = None) -> str:
        """Put the blob into the store, idempotently.

        Args:
            expected: the digest that the bytes must have.
            size: how many bytes there must be.

        Returns:
            the digest.

        Raises:
            DigestMismatch: they do not; nothing is left.
        """
        digest = self.digest
        if expected is not None and digest != expected:
            raise DigestMismatch(f"the content of {expected} has the digest {digest}")
        if size is not None and self.size != size:
            raise DigestMismatch(f"{digest} has {self.size} bytes, not the {size} that were announced")
        os.fchmod(self._fd, 0o644)
        self.path.rename(self._store.path(digest))
        return digest

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
        self.path.unlink(missing_ok=True)


class Lease:
    """Digests and layers that must stay while somebody works with them, though no record names them yet."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store
        self.held: set[str] = set()

    def add(self, *names: str) -> None:
        """Keep these from now on, whether they exist yet or not."""
        with self._store.lock:
            for name in names:
                if name not in self.held:
                    self.held.add(name)
                    self._store.leased[name] += 1

    def release(self) -> None:
        """Let go of all."""
        with self._store.lock:
            for name in self.held:
                self._store.leased[name] -= 1
                if not self._store.leased[name]:
                    del self._store.leased[name]


class ContentStore:
    """Blobs in a directory.

    Args:
        root: the directory; created when missing, and cleaned of what a crash left on its way in.
    """

    def __init__(self, root: Path) -> None:
        self.blobs = root / "blobs" / "sha256"
        self.ingest = root / "ingest"
        self.blobs.mkdir(parents=True, exist_ok=True)
        if self.ingest.exists():
            remove_tree(self.ingest)
        self.ingest.mkdir(mode=0o700)
        self.lock = threading.RLock()
        self.leased: Counter[str] = Counter()

    def path(self, digest: str) -> Path:
        """Where a blob is, or would be."""
        return self.blobs / hex_of(check_digest(digest))

    def exists(self, digest: str) -> bool:
        """Whether the blob is here."""
        return self.path(digest).exists()

    def size(self, digest: str) -> int:
        """The blob's size in bytes.

        Raises:
            BrokenContent: it is not here.
        """
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise _missing(digest) from None

    def open(self, digest: str) -> BinaryIO:
        """The blob for reading, unbuffered.

        Raises:
            BrokenContent: it is not here.
        """
        try:
            return self.path(digest).open("rb", buffering=0)
        except FileNotFoundError:
            raise _missing(digest) from None

    def read(self, digest: str, limit_bytes: int) -> bytes:
        """A small blob whole.

        Raises:
            BrokenContent: it is not here.
            DigestMismatch: it has more than `limit_bytes`.
        """
        if self.size(digest) > limit_bytes:
            raise DigestMismatch(f"{digest} has more than {limit_bytes} bytes")
        with self.open(digest) as file:
            return file.read()

    def checked(self, digest: str, limit_bytes: int) -> bytes:
        """A small blob whole, whose bytes still have the digest that they came with.

        Raises:
            BrokenContent: it is not here, too large, or no longer what it was.
        """
        try:
            data = self.read(digest, limit_bytes)
        except DigestMismatch as error:
            raise BrokenContent(digest, error.message) from None
        found = sha256(data)
        if found != digest:
            raise BrokenContent(digest, f"its bytes have the digest {found}")
        return data

    def writer(self) -> BlobWriter:
        """A new blob to write."""
        return BlobWriter(self)

    def put(self, data: bytes) -> str:
        """Store a small blob and return its digest."""
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()

    def digests(self) -> Iterator[str]:
        """Every blob that is here."""
        for entry in os.scandir(self.blobs):
            if is_digest("sha256:" + entry.name):
                yield "sha256:" + entry.name

    def delete(self, digest: str) -> None:
        """Take a blob away; no error when it is gone. Whoever has it open reads on."""
        self.path(digest).unlink(missing_ok=True)

    def partial(self, digest: str) -> Path:
        """Where a blob grows that is being downloaded, and what came of it stays when that breaks off."""
        return self.ingest / f"partial-{hex_of(check_digest(digest))}"

    def adopt_partial(self, digest: str, fd: int) -> None:
        """Give a downloaded blob, whose digest the caller has checked, its place; `fd` is open on it."""
        os.fchmod(fd, 0o644)
        self.partial(digest).rename(self.path(digest))

    def drop_partial(self, digest: str) -> None:
        """Give up what has arrived of a blob."""
        self.partial(digest).unlink(missing_ok=True)

    @contextlib.contextmanager
    def lease(self, collect: Callable[[Iterable[str]], object]) -> Iterator[Lease]:
        """A lease for the block; at its end `collect` is told what was held, to drop what stayed unused."""
        lease = Lease(self)
        try:
            yield lease
        finally:
            lease.release()
            collect(lease.held)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A directory for the block, on the same file system, gone afterwards."""
        path = Path(tempfile.mkdtemp(dir=self.ingest))
        try:
            yield path
        finally:
            remove_tree(path)


def _missing(digest: str) -> BrokenContent:
    return BrokenContent(digest, "it is missing from the store")
