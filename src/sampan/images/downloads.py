"""Blobs on their way from a registry into the content store, each once for everybody who wants it.

A download runs in a thread of its own, at most so many at a time, into a file that is named by the digest.
Readers follow that file while it grows; they see its end only after the digest of all its bytes was right,
when the blob has its name in the store. When the last follower lets go of a download it is cancelled. What
has arrived stays for a while (`ContentStore.partial`), and the next download of the blob goes on from there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol

from sampan.errors import SampanError
from sampan.images.content import ContentStore
from sampan.images.errors import NoSpace, PullCancelled
from sampan.images.growing import PIECE_BYTES, Growing
from sampan.oci.digest import DigestMismatch
from sampan.oci.image import Descriptor

MIN_FREE_BYTES = 64 << 20

# A step of a download as Docker names it, and the bytes that have arrived where that matters.
Watcher = Callable[[str, int | None], None]
WAITING, DOWNLOADING, VERIFYING, COMPLETE = (
    "Waiting", "Downloading", "Verifying Checksum", "Download complete",
)  # fmt: skip


class Remote(Protocol):
    """What `sampan.registry.Download` is; `offset` may be set before the first `read`."""

    offset: int

    def read(self, size: int = -1, /) -> bytes: ...

    def close(self) -> None: ...


# Opens the remote blob; it is given what to call with the seconds before a further attempt.
Opener = Callable[[Callable[[float], None]], Remote]


class Cancellation:
    """Set once somebody no longer wants what a thread is doing; the thread asks between two steps."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask for the end."""
        self._event.set()

    def check(self) -> None:
        """Raise `PullCancelled` when the end was asked for."""
        if self._event.is_set():
            raise PullCancelled("context canceled")


class _Download(Growing):
    """One blob on its way."""

    def __init__(self, owner: Downloads, descriptor: Descriptor, opener: Opener) -> None:
        super().__init__(
            os.open(owner.content.partial(descriptor.digest), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        )
        self.descriptor = descriptor
        self.watchers: list[Watcher] = []
        self.last: tuple[str, int | None] | None = None
        self._owner = owner
        self._opener = opener
        self._cancelled = False

    def tell(self, status: str, count: int | None = None) -> None:
        """Let every watcher know; called with the condition held or before the thread runs."""
        self.last = (status, count)
        for watcher in self.watchers:
            watcher(status, count)

    def cancel(self) -> None:
        """Nothing more is written, although the thread may still wait for its last read."""
        with self.condition:
            self._cancelled = True
            self.condition.notify_all()

    def run(self) -> None:
        """The thread."""
        error: Exception | None = None
        try:
            self._fetch()
        except (SampanError, OSError) as problem:
            error = _telling(problem)
        except Exception as problem:  # a mistake of ours must not leave the followers waiting
            error = SampanError(f"downloading {self.descriptor.digest}: {problem!r}")
            raise
        finally:
            self._owner.ended(self)  # before anybody learns of it, and begins the next one
            self.end(error)
            os.close(self.fd)

    def _fetch(self) -> None:
        descriptor = self.descriptor
        digest = hashlib.sha256()
        offset = self._resume(digest)
        self.advance(offset)
        _check_space(self._owner.content, descriptor.size - offset)
        remote = self._opener(self._retrying)
        try:
            remote.offset = offset
            while data := remote.read(PIECE_BYTES):
                digest.update(data)
                with self.condition:
                    if self._cancelled:
                        raise PullCancelled("context canceled")
                    self.append(data)
                    self.tell(DOWNLOADING, self.received)
        except DigestMismatch:
            with self.condition:
                if not self._cancelled:
                    self._forget()
            raise
        finally:
            remote.close()
        with self.condition:
            if self._cancelled:
                raise PullCancelled("context canceled")
            self.tell(VERIFYING)
            if f"sha256:{digest.hexdigest()}" != descriptor.digest or self.received != descriptor.size:
                self._forget()
                raise DigestMismatch(f"filesystem layer verification failed for digest {descriptor.digest}")
            self._owner.content.adopt_partial(descriptor.digest, self.fd)
            self.tell(COMPLETE)

    def _resume(self, digest: hashlib._Hash) -> int:
        """Hash what an earlier download left; how much that is."""
        size = os.fstat(self.fd).st_size
        if size > self.descriptor.size:
            os.ftruncate(self.fd, 0)
            return 0
        at = 0
        while at < size and (data := os.pread(self.fd, PIECE_BYTES, at)):
            digest.update(data)
            at += len(data)
        return at

    def _forget(self) -> None:
        os.ftruncate(self.fd, 0)
        self._owner.content.drop_partial(self.descriptor.digest)

    def _retrying(self, seconds: float) -> None:
        count = max(1, round(seconds))
        with self.condition:
            self.tell(f"Retrying in {count} second{'s' if count != 1 else ''}")


class Following:
    """One user's hold on a blob that arrives or is here. As a context it lets go at the end."""

    def __init__(
        self,
        owner: Downloads,
        descriptor: Descriptor,
        download: _Download | None,
        watcher: Watcher,
        cancellation: Cancellation,
    ) -> None:
        self._owner = owner
        self._descriptor = descriptor
        self._download = download
        self._watcher = watcher
        self._cancellation = cancellation
        if download is not None:
            self._fd = os.dup(download.fd)
        else:
            self._fd = os.open(owner.content.path(descriptor.digest), os.O_RDONLY | os.O_CLOEXEC)
        self._at = 0

    @property
    def digest(self) -> str:
        """The blob's."""
        return self._descriptor.digest

    @property
    def mismatched(self) -> bool:
        """Whether the download ended with bytes that are not the blob's."""
        return self._download is not None and isinstance(self._download.error, DigestMismatch)

    @property
    def here(self) -> bool:
        """Whether the store had it before."""
        return self._download is None

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, as soon as there are some; b"" at the end of the verified blob.

        Raises:
            PullCancelled: our user wants it no more.
            SampanError, OSError: the download failed.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(PIECE_BYTES), b""))
        download = self._download
        if download is None:
            self._cancellation.check()
            data = os.pread(self._fd, size, self._at)
        else:
            data = download.read_at(self._fd, self._at, size, self._cancellation.check)
        self._at += len(data)
        return data

    def growth(self) -> tuple[int, Iterator[int]]:
        """A descriptor of the blob, which stays ours, and how much of it is there, ever more until its end.

        What the second gives raises as `read`.
        """
        if self._download is None:
            return self._fd, iter((os.fstat(self._fd).st_size,))
        return self._fd, self._download.growth(self._cancellation.check)

    def wait(self) -> None:
        """Return when the blob is in the store; raises as `read`."""
        if self._download is not None:
            self._download.wait_for_end(self._cancellation.check)

    def release(self) -> None:
        """Let go; the last one to do so cancels the download."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            if self._download is not None:
                self._owner.unfollow(self._download, self._watcher)

    def __enter__(self) -> Following:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Downloads:
    """The downloads that run and those that wait for a place.

    Args:
        content: where they go.
        limit: how many may run at a time, asked whenever a place is to be given.
    """

    def __init__(self, content: ContentStore, limit: Callable[[], int]) -> None:
        self.content = content
        self._limit = limit
        self._lock = threading.Lock()
        self._known: dict[str, _Download] = {}
        self._waiting: deque[_Download] = deque()
        self._running = 0

    def follow(
        self, descriptor: Descriptor, opener: Opener, watcher: Watcher, cancellation: Cancellation
    ) -> Following:
        """Begin to download a blob, or join whoever does; the caller holds a lease on its digest.

        Args:
            opener: used when nobody downloads it yet.
            watcher: told each step, from the download's thread.
        """
        with self._lock:
            download = self._known.get(descriptor.digest)
            if download is None:
                if self.content.exists(descriptor.digest):
                    return Following(self, descriptor, None, watcher, cancellation)
                download = _Download(self, descriptor, opener)
                self._known[descriptor.digest] = download
                download.watchers.append(watcher)
                following = Following(self, descriptor, download, watcher, cancellation)
                self._waiting.append(download)
                self._fill_places()
                if self._waiting and self._waiting[-1] is download:
                    with download.condition:
                        download.tell(WAITING)
                return following
            with download.condition:
                download.watchers.append(watcher)
                if download.last is not None:
                    watcher(*download.last)
            return Following(self, descriptor, download, watcher, cancellation)

    def _fill_places(self) -> None:
        while self._waiting and self._running < self._limit():
            download = self._waiting.popleft()
            self._running += 1
            threading.Thread(target=download.run, name="download", daemon=True).start()

    def ended(self, download: _Download) -> None:
        """A download's thread is at its end."""
        with self._lock:
            self._running -= 1
            self._drop(download)
            self._fill_places()

    def unfollow(self, download: _Download, watcher: Watcher) -> None:
        """A follower leaves."""
        with self._lock:
            with download.condition:
                download.watchers.remove(watcher)
                left = len(download.watchers)
            if left or download.done:
                return
            download.cancel()
            self._drop(download)
            if download in self._waiting:
                self._waiting.remove(download)
                os.close(download.fd)

    def _drop(self, download: _Download) -> None:
        if self._known.get(download.descriptor.digest) is download:
            del self._known[download.descriptor.digest]

    def drop_partial(self, digest: str) -> None:
        """Give up what has arrived of a blob, unless somebody downloads it now."""
        with self._lock:
            if digest not in self._known:
                self.content.drop_partial(digest)


def _check_space(content: ContentStore, size: int) -> None:
    space = os.statvfs(content.ingest)
    free = space.f_bavail * space.f_frsize
    if size + MIN_FREE_BYTES > free:
        raise NoSpace(f"no space left on device: a blob needs {size} bytes more, and {free} are free")


def _telling(error: Exception) -> Exception:
    """A full disk in words; everything else as it is."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace("no space left on device: the download does not fit on the disk")
    return error
