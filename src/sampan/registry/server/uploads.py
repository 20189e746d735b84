"""Blobs on their way in: `<root>/uploads/<id>/data`, and beside it the name of the repository.

An upload outlives its requests and the registry's process, so that a client can go on where it was cut off.
What a crash left is taken up again with the size that the file has; the digest at the end tells the truth.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.registry.server.faults import TooManyRequests, UploadBusy, UploadUnknown
from sampan.registry.server.names import check_name, hash_for

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_READ_BYTES = 1 << 20


class Upload:
    """One blob that is being sent.

    Attributes:
        size: the bytes received so far.
        started, touched: when it began, and when the last bytes came (seconds since the epoch).
    """

    def __init__(self, directory: Path, repository: str, size: int = 0, started: float | None = None) -> None:
        self.directory = directory
        self.id = directory.name
        self.repository = repository
        self.path = directory / "data"
        self.size = size
        self.started = time.time() if started is None else started
        self.touched = time.time()
        self.gone = False
        self._fd = -1
        # None once the bytes did not all pass through here: then the file is read again at the end.
        self._hash: Hash | None = hashlib.sha256() if not size else None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Write to it within the block.

        Raises:
            UploadBusy: another request does.
            UploadUnknown: it has ended meanwhile.
        """
        if self._fd >= 0:
            raise UploadBusy("another request is writing to this upload: wait for its end")
        if self.gone:
            raise UploadUnknown("blob upload unknown to registry")
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise UploadUnknown("blob upload unknown to registry") from None
        try:
            yield
        finally:
            os.close(self._fd)
            self._fd = -1
            self.touched = time.time()

    @property
    def busy(self) -> bool:
        """Whether a request is writing to it."""
        return self._fd >= 0

    def append(self, pieces: list[bytes]) -> None:
        """Add bytes at the end, within `held`."""
        offset = self.size
        try:
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    count = os.pwrite(self._fd, view, offset)
                    offset += count
                    view = view[count:]
                if self._hash is not None:
                    self._hash.update(piece)
        except OSError:
            self.cut(self.size)  # as if these had not come
            raise
        self.size = offset
        self.touched = time.time()

    def cut(self, size: int) -> None:
        """Go back to `size` bytes, within `held`."""
        self._hash = None if size else hashlib.sha256()
        self.size = size
        os.ftruncate(self._fd, size)

    def settle(self, digest: str) -> str:
        """Bring the bytes to the disk and tell their digest in the algorithm of `digest`, within `held`."""
        os.fsync(self._fd)
        os.fchmod(self._fd, 0o600)
        if self._hash is not None and digest.startswith("sha256:"):
            return f"sha256:{self._hash.hexdigest()}"
        running = hash_for(digest)
        offset = 0
        while data := os.pread(self._fd, _READ_BYTES, offset):
            running.update(data)
            offset += len(data)
        return f"{running.name}:{running.hexdigest()}"


class Uploads:
    """All uploads of the registry.

    Args:
        root: the registry's data directory.
        expiry_s: how long an upload may rest.
        limit: how many there may be at a time.
    """

    def __init__(self, root: Path, expiry_s: float, limit: int) -> None:
        self._directory = root / "uploads"
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._expiry_s = expiry_s
        self._limit = limit
        self._lock = threading.Lock()
        self._uploads: dict[str, Upload] = {}
        for entry in list(self._directory.iterdir()):
            upload = self._restored(entry)
            if upload is None:
                shutil.rmtree(entry, ignore_errors=True)
            else:
                self._uploads[upload.id] = upload

    def _restored(self, directory: Path) -> Upload | None:
        try:
            name = check_name((directory / "repository").read_text())
            found = (directory / "data").stat()
            began = (directory / "repository").stat().st_mtime
        except Exception:  # whatever a crash left there, it is nothing to go on with
            return None
        if time.time() - found.st_mtime > self._expiry_s:
            return None
        upload = Upload(directory, name, found.st_size, began)
        upload.touched = found.st_mtime
        return upload

    def begin(self, repository: str) -> Upload:
        """A new upload.

        Raises:
            TooManyRequests: there are as many as this registry takes.
        """
        with self._lock:
            if len(self._uploads) >= self._limit:
                raise TooManyRequests(f"{self._limit} uploads are open: finish or cancel some, or try later")
            directory = self._directory / str(uuid.uuid4())
            upload = Upload(directory, repository)
            self._uploads[upload.id] = upload
        try:
            directory.mkdir(mode=0o700)
            os.close(os.open(upload.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            (directory / "repository").write_text(repository)
        except BaseException:
            self.end(upload)
            raise
        return upload

    def get(self, repository: str, upload_id: str) -> Upload:
        """An upload of a repository.

        Raises:
            UploadUnknown: there is none of this id.
        """
        upload = self._uploads.get(upload_id)
        if upload is None or upload.repository != repository:
            raise UploadUnknown("blob upload unknown to registry", {"id": upload_id[:100]})
        return upload

    def end(self, upload: Upload) -> None:
        """Forget an upload and what is left of its files."""
        with self._lock:
            upload.gone = True
            self._uploads.pop(upload.id, None)
        shutil.rmtree(upload.directory, ignore_errors=True)

    def expire(self) -> int:
        """End those that rested too long; how many."""
        old = time.time() - self._expiry_s
        stale = [upload for upload in self.all() if upload.touched < old and not upload.busy]
        for upload in stale:
            self.end(upload)
        return len(stale)

    def all(self) -> list[Upload]:
        """Every upload."""
        with self._lock:
            return list(self._uploads.values())

    def open_bytes(self, repository: str = "") -> int:
        """What has been received of all, or of a repository's, so far."""
        return sum(one.size for one in self.all() if not repository or one.repository == repository)
