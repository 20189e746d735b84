"""A pull-through cache: what the store lacks is asked of another registry, and kept.

A blob is downloaded once, however many want it: each client reads the growing file, and gets its last byte
only when the digest was right. A tag is compared with upstream when it was not for a while; when upstream is
away it is served as it was (RFC 9111, 4.2.4, stale).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from sampan.errors import InvalidParameter, SampanError
from sampan.http import FileResponse, Request, Response, stream
from sampan.oci.image import Descriptor
from sampan.oci.reference import Reference
from sampan.registry.config import RegistryConfig
from sampan.registry.credentials import Credentials
from sampan.registry.errors import (
    NotInRegistry,
    RegistryDenied,
    RegistryError,
    RegistryUnauthorized,
    RegistryUnreachable,
)
from sampan.registry.hosts import HUB
from sampan.registry.registries import Registries
from sampan.registry.repository import Repository
from sampan.registry.server.catalog import Manifest
from sampan.registry.server.faults import BlobUnknown, Denied, RangeInvalid, UpstreamFailed
from sampan.registry.server.names import is_digest
from sampan.registry.server.options import ProxySettings
from sampan.registry.server.pulling import BYTES
from sampan.registry.server.ranges import Unsatisfiable, wanted_range
from sampan.registry.server.store import Store

log = logging.getLogger("sampan.registry.server")

T = TypeVar("T")

_PIECE_BYTES = 1 << 20
_QUESTIONS, _DOWNLOADS = 16, 16  # threads
_AWAY_S = 15.0  # after upstream did not answer it is not asked again for so long
_REFERRERS_LIMIT = 200
_MEMORY_LIMIT = 10_000


class Fetch:
    """One blob on its way from upstream to the store, and to whoever reads it meanwhile.

    Args:
        name, digest, size: which one.
    """

    def __init__(self, store: Store, name: str, digest: str, size: int) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._name = name
        self.digest = digest
        self.size = size
        self._upload = store.uploads.begin(name)
        self._path = self._upload.path
        self._written = 0
        self._moved = asyncio.Event()
        self._stopped = False
        self._error: BaseException | None = None
        self.done = False

    def stop(self) -> None:
        """Give up."""
        self._stopped = True

    def run(self, repository: Repository) -> None:
        """Download and commit, in a thread."""
        descriptor = Descriptor("", self.digest, self.size)
        try:
            with self._upload.held(), repository.download(descriptor, verify=False) as source:
                self._store.check_room(self._name, self.size)
                while data := source.read(_PIECE_BYTES):
                    if self._stopped:
                        raise UpstreamFailed("the registry is stopping")
                    self._upload.append([data])
                    self._loop.call_soon_threadsafe(self._advance, self._upload.size)
                self._store.commit(self._upload, self.digest)
        except BaseException as error:
            self._store.uploads.end(self._upload)
            self._loop.call_soon_threadsafe(self._end, error)
            raise
        self._loop.call_soon_threadsafe(self._end, None)

    def _advance(self, written: int) -> None:
        self._written = written
        self._wake()

    def _end(self, error: BaseException | None) -> None:
        self._error, self.done = error, error is None
        self._wake()

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def open(self) -> int:
        """A descriptor of the growing file, which the blob's final name will not change."""
        return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    async def wait(self, offset: int) -> int:
        """How many bytes there are to send from `offset` on, at least one; waits for them.

        Raises:
            BlobUnknown, UpstreamFailed: they will not come.
        """
        while True:
            if isinstance(self._error, NotInRegistry):
                raise BlobUnknown("blob unknown to upstream", {"digest": self.digest})
            if self._error is not None:
                raise UpstreamFailed(f"upstream: {self._error}")
            # The last byte is held back: a client that has it all has what the digest names.
            ready = self.size if self.done else min(self._written, self.size - 1)
            if ready > offset:
                return ready - offset
            await self._moved.wait()

    async def read(self, fd: int, first: int, last: int) -> AsyncIterator[bytes]:
        """The bytes from `first` to `last`; closes `fd`."""
        try:
            offset = first
            while offset <= last:
                count = min(await self.wait(offset), _PIECE_BYTES, last + 1 - offset)
                data = await asyncio.to_thread(os.pread, fd, count, offset)
                offset += len(data)
                yield data
        finally:
            os.close(fd)


class Mirror:
    """A `pulling.Source`: another registry, with what the store remembers of it.

    Args:
        store: where it is kept.
        settings: which registry, and how long things are good for.

    Raises:
        InvalidParameter: the password's file cannot be read.
    """

    def __init__(self, store: Store, settings: ProxySettings) -> None:
        self._store = store
        self._settings = settings
        parts = urlsplit(settings.url)
        self._domain = HUB if parts.netloc in (HUB, "registry-1.docker.io") else parts.netloc
        options: dict[str, Any] = {}
        if parts.scheme == "http":
            options["insecure"] = [parts.netloc]
        if settings.certificates:
            options["certs_directories"] = (Path(settings.certificates),)
        self._registries = Registries(RegistryConfig(connect_timeout_s=10.0, retry_delay_s=0.25, **options))
        self._credentials = _credentials(settings)
        self._questions = concurrent.futures.ThreadPoolExecutor(_QUESTIONS, "upstream")
        self._downloads = concurrent.futures.ThreadPoolExecutor(_DOWNLOADS, "download")
        self._asking: dict[tuple[str, ...], asyncio.Task[Any]] = {}
        self._fetches: dict[str, Fetch] = {}
        self._referrers_checked: dict[tuple[str, str], float] = {}
        self._away_until = 0.0
        for upload in store.uploads.all():  # nobody pushes here: downloads that a crash cut off
            store.uploads.end(upload)

    def close(self) -> None:
        """Stop downloads and let the connections go."""
        for fetch in self._fetches.values():
            fetch.stop()
        self._questions.shutdown(wait=False, cancel_futures=True)
        self._downloads.shutdown(wait=True, cancel_futures=True)
        self._registries.close()

    def _repository(self, name: str) -> Repository:
        return self._registries.repository(Reference(self._domain, name), self._credentials)

    async def _ask(self, question: Callable[[], T]) -> T:
        """The answer of upstream, asked in a thread.

        Raises:
            NotInRegistry: it has no such thing.
            UpstreamFailed: it cannot be asked, or does not answer as it should.
            Denied: it refuses.
        """
        if time.monotonic() < self._away_until:
            raise UpstreamFailed(f"{self._settings.url} does not answer")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._questions, question)
        except NotInRegistry:
            raise
        except (RegistryUnauthorized, RegistryDenied) as error:
            raise Denied(f"upstream refuses: {error.message}") from None
        except RegistryError as error:
            log.info("upstream %s: %s", self._settings.url, error.message)
            if isinstance(error, RegistryUnreachable):
                self._away_until = time.monotonic() + _AWAY_S
            raise UpstreamFailed(f"upstream: {error.message}") from None
        except SampanError as error:  # a manifest that is none, or not the one that was asked for
            raise UpstreamFailed(f"upstream: {error.message}") from None

    async def _once(self, key: tuple[str, ...], work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work`, done once for all who ask at the same time."""
        task = self._asking.get(key)
        if task is None:
            task = asyncio.ensure_future(work())
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        found: T = await asyncio.shield(task)
        return found

    # --- manifests ---

    async def manifest(self, name: str, reference: str) -> Manifest | None:
        """See `pulling.Source`."""
        local = self._store.catalog.manifest(name, reference)
        if local is not None:
            fresh = time.time() - local.checked < self._settings.ttl_s
            if fresh or is_digest(reference):
                return local
        return await self._once(("manifest", name, reference), lambda: self._look_up(name, reference, local))

    async def _look_up(self, name: str, reference: str, local: Manifest | None) -> Manifest | None:
        repository = self._repository(name)
        catalog = self._store.catalog
        try:
            if local is not None:
                found = await self._ask(lambda: repository.resolve(reference))
                if found.digest == local.digest:
                    await asyncio.to_thread(catalog.tag_checked, name, reference)
                    return local
            data, descriptor = await self._ask(lambda: repository.manifest(reference))
        except NotInRegistry:
            if local is not None:
                await asyncio.to_thread(catalog.delete_tag, name, reference)
            return None
        except UpstreamFailed:
            if local is None:
                raise
            log.info("%s:%s is served as it was: upstream is away", name, reference)
            return replace(local, stale=True)
        await asyncio.to_thread(
            self._store.put_manifest, name, reference, data, descriptor.media_type, complete=False
        )
        return catalog.manifest(name, reference)

    async def tags(self, name: str) -> list[str] | None:
        """See `pulling.Source`."""
        try:
            return await self._once(("tags", name), lambda: self._ask(self._repository(name).tags))
        except (NotInRegistry, UpstreamFailed):
            return None

    async def referrers(self, name: str, digest: str) -> None:
        """See `pulling.Source`."""
        key = (name, digest)
        if time.monotonic() - self._referrers_checked.get(key, -1e9) < self._settings.ttl_s:
            return
        try:
            await self._once(("referrers", *key), lambda: self._fetch_referrers(name, digest))
        except (NotInRegistry, UpstreamFailed) as error:
            log.info("referrers of %s@%s: %s", name, digest, error)
            return
        if len(self._referrers_checked) > _MEMORY_LIMIT:
            self._referrers_checked.clear()
        self._referrers_checked[key] = time.monotonic()

    async def _fetch_referrers(self, name: str, digest: str) -> None:
        repository = self._repository(name)
        for found in (await self._ask(lambda: repository.referrers(digest)))[:_REFERRERS_LIMIT]:
            await self.manifest(name, found.digest)

    # --- blobs ---

    async def blob(self, request: Request, name: str, digest: str) -> Response | None:
        """See `pulling.Source`."""
        size = self._store.catalog.announced_size(name, digest)
        if size is not None and await asyncio.to_thread(self._store.catalog.link_known, name, digest):
            return None  # another repository had it: the store has it now
        if not digest.startswith("sha256:"):
            return None  # what the client side can verify
        if size is None:
            try:
                size = await self._ask(lambda: self._repository(name).blob_size(digest))
            except NotInRegistry:
                return None
        if size is None:
            return None
        try:
            part = wanted_range(request.headers, size, f'"{digest}"')
        except Unsatisfiable:
            raise RangeInvalid(
                f"the blob has {size} bytes", headers={"Content-Range": f"bytes */{size}"}
            ) from None
        first, last = part or (0, size - 1)
        status = 206 if part else 200
        headers = {"Content-Range": f"bytes {first}-{last}/{size}"} if part else {}
        if request.method == "HEAD":
            return FileResponse(-1, first, last + 1 - first, status, BYTES, headers)
        fetch = self._fetches.get(digest)
        if fetch is None:
            fetch = self._start(name, digest, size)
        try:
            fd = fetch.open()
        except FileNotFoundError:  # it has become a blob in this very moment
            await asyncio.to_thread(self._store.catalog.link_known, name, digest)
            return None
        try:
            if fetch.size:
                await fetch.wait(min(first, fetch.size - 2) if fetch.size > 1 else 0)
        except BaseException:
            os.close(fd)
            raise
        return stream(fetch.read(fd, first, last), BYTES, status, headers, last + 1 - first)

    def _start(self, name: str, digest: str, size: int) -> Fetch:
        fetch = Fetch(self._store, name, digest, size)
        self._fetches[digest] = fetch
        work = asyncio.get_running_loop().run_in_executor(self._downloads, fetch.run, self._repository(name))
        work.add_done_callback(lambda done: self._ended(fetch, done))
        return fetch

    def _ended(self, fetch: Fetch, done: asyncio.Future[None]) -> None:
        self._fetches.pop(fetch.digest, None)
        if not done.cancelled() and done.exception() is not None:
            log.info("download of %s: %s", fetch.digest, done.exception())


def _credentials(settings: ProxySettings) -> Credentials:
    if not settings.user:
        return Credentials()
    try:
        password = Path(settings.password_file).read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"{settings.password_file}: {getattr(error, 'strerror', error)}") from None
    return Credentials(settings.user, password)
