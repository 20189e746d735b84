"""`docker pull`: from a registry's manifest to an image in the store (OCI distribution spec, Pulling).

Layers are downloaded side by side, and the lowest that is missing is unpacked while it still arrives. Nothing
is recorded before the digest of every blob and the diff id of every layer were right. What a pull brought
before it failed or was cancelled stays for `KEEP_S` seconds, so that trying again goes on from there; a full
disk and content that is wrong give it up at once.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import field
from typing import Protocol

from sampan.dataclasses import dataclass
from sampan.errors import NotFound
from sampan.images.apart import Helper
from sampan.images.content import Lease
from sampan.images.downloads import COMPLETE, Cancellation, Downloads, Following, Opener, Remote
from sampan.images.errors import NoSuchImage, PullCancelled
from sampan.images.pull_progress import LayerProgress
from sampan.images.records import ImageRecords
from sampan.images.selection import best_for, is_attestation
from sampan.images.unpacking import Progress
from sampan.oci import media_types
from sampan.oci.digest import DigestMismatch, hex_of, sha256
from sampan.oci.image import (
    DOCUMENT_LIMIT_BYTES,
    Descriptor,
    ImageDocument,
    InvalidImage,
    Manifest,
    Platform,
    local_architecture,
    parse_image,
    parse_index,
    parse_manifest,
)
from sampan.oci.platforms import normal, shown
from sampan.oci.reference import Reference
from sampan.registry import (
    InvalidAnswer,
    NotInRegistry,
    RegistryDenied,
    RegistryError,
    RegistryUnauthorized,
)
from sampan.storage import InvalidLayer
from sampan.storage.compression import Hashing, ReadAhead, decompressed
from sampan.storage.tar_reader import Readable

KEEP_S = 600.0
_INDEX_DEPTH = 8
_LAYERS_LIMIT = 500
# Older registries and tools are known to give configs these types (docker/distribution issue 1621).
_CONFIG_TYPES = media_types.CONFIGS | {"", "application/octet-stream", "application/json", "text/html"}
_LAYER_TYPES = frozenset(
    (
        "",
        media_types.OCI_LAYER,
        media_types.OCI_LAYER_GZIP,
        media_types.OCI_LAYER_ZSTD,
        media_types.DOCKER_LAYER,
        media_types.DOCKER_LAYER_GZIP,
        media_types.DOCKER_LAYER_ZSTD,
        media_types.DOCKER_LAYER_FOREIGN,
        media_types.OCI_LAYER_NONDISTRIBUTABLE,
        media_types.OCI_LAYER_NONDISTRIBUTABLE + "+gzip",
        media_types.OCI_LAYER_NONDISTRIBUTABLE + "+zstd",
        "application/octet-stream",
    )
)


class Source(Protocol):
    """A repository to pull from (`sampan.registry.Repository`)."""

    def manifest(self, tag_or_digest: str) -> tuple[bytes, Descriptor]: ...

    def download(
        self,
        descriptor: Descriptor,
        on_progress: Callable[[int], None] | None = None,
        on_retry: Callable[[float], None] | None = None,
        verify: bool = True,
        mirrors: bool = True,
    ) -> Remote: ...

    def tags(self) -> list[str]: ...


@dataclass(slots=True)
class _Wanted:
    """What a reference turned out to be."""

    root: Descriptor  # what the tag or digest names: an index, or the manifest itself
    descriptor: Descriptor
    manifest: Manifest
    documents: dict[str, bytes] = field(default_factory=dict)


class Pull:
    """One pull.

    Args:
        downloads: the daemon's, shared by all pulls.
        platform: what to take of an index; this machine's when not given.
        tell: receives Docker's messages.
        cancellation: asked between steps.
    """

    def __init__(
        self,
        records: ImageRecords,
        downloads: Downloads,
        source: Source,
        platform: Platform | None,
        tell: Progress,
        cancellation: Cancellation,
    ) -> None:
        self._records = records
        self._downloads = downloads
        self._source = source
        self._platform = platform or normal(Platform("linux", local_architecture()))
        self._tell = tell
        self._cancellation = cancellation

    def run(self, reference: Reference) -> tuple[str, bool]:
        """Pull what a tag or a digest names; with both, the digest counts.

        Returns:
            the image's id, and whether the name is new or names another image than before.

        Raises:
            NotFound: there is no such repository, tag, or manifest for the platform.
            RegistryError: the registry does not answer as it should.
            DigestMismatch, InvalidImage, InvalidLayer: what it has is not what it says.
            NoSpace: the disk is full.
            PullCancelled: nobody waits any more.
        """
        asked = reference.digest or reference.tag or ""
        if reference.digest:
            reference = reference.with_digest(reference.digest)
        with _translated(reference):
            data, root = self._source.manifest(asked)
        self._tell({"status": f"Pulling from {reference.path}", "id": asked})
        self._cancellation.check()
        wanted = self._resolve(data, root)
        self._check_config_type(wanted.manifest)
        with self._lease() as lease:
            lease.add(*wanted.documents, wanted.manifest.config.digest)
            image_id = self._image(lease, wanted)
            blobs = [layer.digest for layer in wanted.manifest.layers]
            self._records.sources.saw(reference, wanted.manifest.config.digest, *blobs)
            self._tell({"status": f"Digest: {wanted.root.digest}"})
            return image_id, self._name(reference, wanted.root.digest, image_id)

    def all_of(self, reference: Reference) -> str:
        """Pull what a reference names, every tag of a repository when it names none, and tell the outcome.

        Returns:
            the image's id; "" for a repository's tags.
        """
        every = reference.tag is None and reference.digest is None
        if every:
            with _translated(reference):
                names = [reference.with_tag(tag) for tag in self._source.tags()]
        else:
            names = [reference]
        done = [self.run(name) for name in names]
        news = any(new for _, new in done)
        verb = "Downloaded newer image" if news else "Image is up to date"
        self._tell({"status": f"Status: {verb} for {reference.familiar}"})
        return "" if every else done[0][0]

    # --- documents ---

    def _resolve(self, data: bytes, root: Descriptor) -> _Wanted:
        documents = {root.digest: data}
        descriptor = root
        for _ in range(_INDEX_DEPTH):
            if descriptor.media_type not in media_types.INDEXES:
                manifest = parse_manifest(data, descriptor.media_type)
                return _Wanted(root, descriptor, manifest, documents)
            entries = [item for item in parse_index(data).manifests if not is_attestation(item)]
            best = best_for(entries, self._platform)
            if best is None:
                raise NoSuchImage(
                    f"no matching manifest for {shown(self._platform)} in the manifest list entries"
                )
            data, descriptor = self._source.manifest(best.digest)
            if best.size and best.size != len(data):
                raise DigestMismatch(
                    f"{best.digest} has {len(data)} bytes, not the {best.size} that the index announces"
                )
            documents[descriptor.digest] = data
        raise InvalidImage(f"the indexes of {root.digest} are nested more than {_INDEX_DEPTH} deep")

    def _check_config_type(self, manifest: Manifest) -> None:
        kind = manifest.config.media_type
        if kind not in _CONFIG_TYPES:
            known = "plugin" if kind == "application/vnd.docker.plugin.v1+json" else "unknown"
            raise InvalidImage(f'Encountered remote "{kind}"({known}) when fetching')
        if len(manifest.layers) > _LAYERS_LIMIT:
            raise InvalidImage(f"the image has {len(manifest.layers)} layers, more than {_LAYERS_LIMIT}")
        for layer in manifest.layers:
            if layer.media_type not in _LAYER_TYPES:
                raise InvalidImage(f"layer {layer.digest} has the unsupported media type {layer.media_type}")

    def _config(self, descriptor: Descriptor) -> ImageDocument:
        if descriptor.size > DOCUMENT_LIMIT_BYTES:
            raise InvalidImage(
                f"the image's config has {descriptor.size} bytes, more than the limit of"
                f" {DOCUMENT_LIMIT_BYTES}"
            )
        content = self._records.content
        if content.exists(descriptor.digest):
            data = content.checked(descriptor.digest, DOCUMENT_LIMIT_BYTES)
        else:
            remote = self._source.download(descriptor)
            try:
                data = remote.read()
            finally:
                remote.close()
            if sha256(data) != descriptor.digest:
                raise DigestMismatch(f"image config verification failed for digest {descriptor.digest}")
        document = parse_image(data)
        if document.os not in ("", "linux"):
            raise InvalidImage(
                f'cannot download image with operating system "{document.os}" when requesting "linux"'
            )
        content.put(data)
        return document

    # --- the image ---

    def _image(self, lease: Lease, wanted: _Wanted) -> str:
        records, image_id = self._records, wanted.manifest.config.digest
        for data in wanted.documents.values():
            records.content.put(data)
        if self._keep_known(image_id, wanted):
            return image_id
        document = self._config(wanted.manifest.config)
        layers = wanted.manifest.layers
        if len(layers) != len(document.diff_ids):
            raise InvalidImage("layers from manifest don't match image configuration")
        self._layers(lease, layers, document)
        with records.database.transaction():
            records.add(image_id, document, wanted.descriptor.digest, [layer.digest for layer in layers])
            records.keep(image_id, wanted.documents)
        return image_id

    def _keep_known(self, image_id: str, wanted: _Wanted) -> bool:
        with self._records.content.lock:  # against a removal at this moment
            if self._records.get(image_id) is None or self._records.missing(image_id):
                return False
            self._records.keep(image_id, wanted.documents)
        return True

    def _name(self, reference: Reference, digest: str, image_id: str) -> bool:
        records = self._records
        with records.database.transaction():
            if records.get(image_id) is None:
                raise NoSuchImage(f"image {image_id} was removed while it was being pulled")
            new = records.named(reference) != image_id
            if new:
                records.name(reference, image_id)
            by_digest = reference.with_digest(digest)
            if records.named(by_digest) != image_id:
                records.name(by_digest, image_id)
        return new

    # --- layers ---

    def _layers(self, lease: Lease, layers: list[Descriptor], document: ImageDocument) -> None:
        chain = document.chain_ids
        lease.add(*(layer.digest for layer in layers), *(f"layer:{one}" for one in chain))
        with Helper(self._records.driver) as helper, contextlib.ExitStack() as followings:

            def follow(layer: Descriptor, progress: LayerProgress, mirrors: bool = True) -> Following:
                opener = self._opener(layer, mirrors)
                following = self._downloads.follow(layer, opener, progress.download, self._cancellation)
                followings.callback(following.release)
                return following

            wanted: list[LayerProgress | None] = []  # all are told of before the first says how far it is
            for layer, chain_id in zip(layers, chain, strict=True):
                progress = LayerProgress(hex_of(layer.digest)[:12], layer.size, self._tell)
                present = self._records.content.exists(layer.digest)
                here = present and self._records.driver.has_layer(chain_id)
                progress.status("Already exists" if here else "Pulling fs layer")
                wanted.append(None if here else progress)
            steps: list[tuple[Following, LayerProgress] | None] = []
            for layer, told in zip(layers, wanted, strict=True):
                if told is None:
                    steps.append(None)
                    continue
                following = follow(layer, told)
                if following.here:
                    told.download(COMPLETE, None)
                steps.append((following, told))
            below: str | None = None
            for layer, step, chain_id, diff_id in zip(layers, steps, chain, document.diff_ids, strict=True):
                if step is not None:
                    following, progress = step
                    try:
                        self._layer(helper, following, progress, chain_id, diff_id, below)
                    except DigestMismatch:
                        if not following.mismatched:
                            raise
                        # A mirror may have sent it, or an earlier pull left it: once more, from the source.
                        again = follow(layer, progress, False)
                        self._layer(helper, again, progress, chain_id, diff_id, below)
                below = chain_id

    def _opener(self, layer: Descriptor, mirrors: bool) -> Opener:
        def open_remote(on_retry: Callable[[float], None]) -> Remote:
            return _Layer(self._source, layer, on_retry, mirrors)

        return open_remote

    def _layer(
        self,
        helper: Helper,
        following: Following,
        progress: LayerProgress,
        chain_id: str,
        diff_id: str,
        below: str | None,
    ) -> None:
        with following:
            with self._records.unpacking(chain_id):
                if not self._records.driver.has_layer(chain_id):
                    try:
                        if not self._unpack_apart(helper, following, progress, chain_id, diff_id, below):
                            self._unpack(following, progress, chain_id, diff_id, below)
                    except InvalidLayer:
                        following.wait()  # bytes that are not the layer's are the better explanation
                        raise
            following.wait()
        progress.extracted()

    def _unpack_apart(
        self,
        helper: Helper,
        following: Following,
        progress: LayerProgress,
        chain_id: str,
        diff_id: str,
        below: str | None,
    ) -> bool:
        """`_unpack` by another process; whether it could."""
        found = helper.prepare(following, progress.size, progress.extract)
        if found is None:
            return False
        prepared, its_diff_id = found
        with prepared:
            following.wait()
            self._check_diff_id(following, its_diff_id, diff_id)
            prepared.stand_on(below)
            prepared.commit(chain_id)
        return True

    def _check_diff_id(self, following: Following, found: str, diff_id: str) -> None:
        if found != diff_id:
            raise DigestMismatch(f"layer {following.digest} unpacks to {found}, but the image says {diff_id}")

    def _unpack(
        self, following: Following, progress: LayerProgress, chain_id: str, diff_id: str, below: str | None
    ) -> None:
        blob = _Counting(following, progress.extract)
        kind, plain = decompressed(blob)
        hashing = Hashing(plain) if kind or following.digest != diff_id else None
        with (
            ReadAhead(hashing or plain) as stream,
            self._records.driver.prepare_layer(below, stream) as prepared,
        ):
            following.wait()
            if hashing is not None:
                self._check_diff_id(following, hashing.digest, diff_id)
            prepared.commit(chain_id)

    # --- what stays when it fails ---

    @contextlib.contextmanager
    def _lease(self) -> Iterator[Lease]:
        records = self._records
        lease = Lease(records.content)
        keep = False
        try:
            yield lease
        except (PullCancelled, RegistryError) as error:
            keep = not isinstance(error, (InvalidAnswer, NotInRegistry))
            raise
        finally:
            if keep:
                timer = threading.Timer(KEEP_S, self._let_go_late, (lease,))
                timer.daemon = True
                timer.start()
            else:
                self._let_go(lease)

    def _let_go_late(self, lease: Lease) -> None:
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed meanwhile: the next start clears up
            self._let_go(lease)

    def _let_go(self, lease: Lease) -> None:
        lease.release()
        for name in lease.held:
            if not name.startswith("layer:"):
                self._downloads.drop_partial(name)
        self._records.collect(lease.held)


class _Layer:
    """A layer at the registry; foreign ones, which lie elsewhere, are explained."""

    def __init__(
        self, source: Source, layer: Descriptor, on_retry: Callable[[float], None], mirrors: bool
    ) -> None:
        self._layer = layer
        self._remote = source.download(layer, on_retry=on_retry, verify=False, mirrors=mirrors)

    @property
    def offset(self) -> int:
        return self._remote.offset

    @offset.setter
    def offset(self, value: int) -> None:
        self._remote.offset = value

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._remote.read(size)
        except NotInRegistry:
            if "foreign" in self._layer.media_type or "nondistributable" in self._layer.media_type:
                raise InvalidImage(
                    f"layer {self._layer.digest} is not in the registry, only at an address of its own (a"
                    " foreign layer), from where layers are not fetched"
                ) from None
            raise

    def close(self) -> None:
        self._remote.close()


class _Counting:
    """Tells how far a blob has been read."""

    def __init__(self, stream: Readable, tell: Callable[[int], None]) -> None:
        self._stream = stream
        self._tell = tell
        self._count = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._count += len(data)
        self._tell(self._count)
        return data


@contextlib.contextmanager
def _translated(reference: Reference) -> Iterator[None]:
    """The registry's refusals in Docker's words."""
    try:
        yield
    except RegistryError as error:
        if isinstance(error, RegistryDenied) or error.code == "DENIED":
            raise NotFound(
                f"pull access denied for {reference.familiar_name}, repository does not exist or may require"
                f" 'docker login': {error.message}"
            ) from None
        if error.code == "NAME_UNKNOWN":
            raise NotFound(f"repository {reference.familiar_name} not found: {error.message}") from None
        if isinstance(error, NotInRegistry):
            raise NotFound(f"manifest for {reference.familiar} not found: {error.message}") from None
        if isinstance(error, RegistryUnauthorized):
            # 500 as from Docker: at a 401 its client would ask the user for a password.
            raise RegistryError(error.message, error.http_status, error.code, error.detail) from None
        raise
