"""One repository in a registry: manifests, blobs, tags, referrers (OCI distribution spec 1.1).

Reading asks the mirrors in order and falls through to the registry itself; writing goes to the first address
that takes pushes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import quote, urljoin

from sampan.errors import SampanError, Unsupported
from sampan.oci import media_types
from sampan.oci.digest import DigestMismatch, check_digest, hex_of, is_digest, sha256
from sampan.oci.image import DOCUMENT_LIMIT_BYTES, Descriptor, load_object, parse_index
from sampan.oci.reference import Reference
from sampan.registry.answers import Answer
from sampan.registry.client import SMALL_ATTEMPTS, HostClient, OnRetry, origin_of
from sampan.registry.config import RegistryConfig
from sampan.registry.download import Download, OnProgress
from sampan.registry.errors import InvalidAnswer, NotInRegistry, RegistryError, RegistryUnreachable
from sampan.registry.transport import shown
from sampan.registry.upload import Uploads

_log = logging.getLogger("sampan.registry")

T = TypeVar("T")

ACCEPT = ", ".join(
    (
        media_types.OCI_INDEX,
        media_types.OCI_MANIFEST,
        media_types.DOCKER_INDEX,
        media_types.DOCKER_MANIFEST,
    )
)
_KNOWN = media_types.INDEXES | media_types.MANIFESTS
_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+"
_TAGS_LIMIT = 100_000
_PAGES_LIMIT = 1000
_LINK = re.compile(r'<([^>]*)>\s*;[^,]*rel="?next"?')


class Repository:
    """A repository for one client's credentials. Every call may come from any thread.

    Args:
        reference: names it; tag and digest do not matter.
        clients: its addresses, mirrors first.
        actions: "pull", and "push" to write.
    """

    def __init__(
        self,
        reference: Reference,
        clients: Sequence[HostClient],
        config: RegistryConfig,
        actions: tuple[str, ...] = ("pull",),
    ) -> None:
        self.reference = reference
        self.config = config
        self._clients = list(clients)
        self._scopes = (f"repository:{reference.path}:{','.join(actions)}",)
        self._uploads: Uploads | None = None

    # --- reading ---

    def resolve(self, tag_or_digest: str) -> Descriptor:
        """What a tag or digest names, without fetching it.

        Raises:
            NotInRegistry: there is no such manifest.
            RegistryUnauthorized, RegistryDenied, RegistryUnreachable, RegistryError: no answer is to be had.
        """
        return self._first("resolve", lambda client: self._resolve(client, tag_or_digest))

    def manifest(self, tag_or_digest: str) -> tuple[bytes, Descriptor]:
        """A manifest or index, exactly as the registry has it.

        Raises:
            DigestMismatch: it is not the one that was asked for.
            InvalidAnswer: it is larger than a manifest may be, or not of the type it claims to be.
            Unsupported: it has Docker's format of before 2016 (schema 1).
            RegistryError: as for `resolve`.
        """
        capability = "pull" if is_digest(tag_or_digest) else "resolve"
        return self._first(capability, lambda client: self._manifest(client, tag_or_digest))

    def download(
        self,
        descriptor: Descriptor,
        on_progress: OnProgress | None = None,
        on_retry: OnRetry | None = None,
        verify: bool = True,
        mirrors: bool = True,
    ) -> Download:
        """A blob as a stream; nothing is asked for before the first `read`.

        Args:
            on_progress: told the bytes read so far.
            on_retry: told the seconds until a further attempt.
            verify: whether the stream checks the digest at its end; False for a reader who hashes himself.
            mirrors: False to ask the registry itself only, after a mirror gave something wrong.
        """
        clients = [client for client in self._clients if "pull" in client.endpoint.capabilities]
        if not mirrors or not clients:
            clients = self._clients[-1:]
        return Download(
            clients,
            self._path("blobs", check_digest(descriptor.digest)),
            descriptor,
            self._scopes,
            self.config.max_download_attempts,
            on_progress,
            on_retry,
            verify,
        )

    def blob_size(self, digest: str) -> int | None:
        """The size of a blob in bytes; None when it is not there, or the registry does not tell."""
        path = self._path("blobs", check_digest(digest))
        return self._first("pull", lambda client: self._blob_size(client, path))

    def _blob_size(self, client: HostClient, path: str) -> int | None:
        answer = client.request("HEAD", path, self._scopes)
        answer.finish()
        if answer.status not in (200, 404):
            raise client.failure(answer)
        return answer.length if answer.status == 200 else None

    def tags(self) -> list[str]:
        """All tags, in the registry's order."""
        return self._first("resolve", self._tags)

    def referrers(self, digest: str, artifact_type: str = "") -> list[Descriptor]:
        """The manifests that name this one as their subject.

        Registries without the API keep them under a tag made of the digest (spec, "Referrers Tag Schema").
        """
        check_digest(digest)
        return self._first("resolve", lambda client: self._referrers(client, digest, artifact_type))

    def _first(self, capability: str, ask: Callable[[HostClient], T]) -> T:
        """The first good answer; the last address's error when there is none."""
        able = [client for client in self._clients if capability in client.endpoint.capabilities]
        clients = able or self._clients[-1:]
        for client in clients[:-1]:
            try:
                return ask(client)
            except SampanError as error:
                _log.info("mirror %s for %s: %s", client.endpoint.host, self.reference.name, error.message)
        return ask(clients[-1])

    def _path(self, kind: str, name: str) -> str:
        return f"/{self.reference.path}/{kind}/{quote(name, safe=':')}"

    def _resolve(self, client: HostClient, name: str) -> Descriptor:
        path = self._path("manifests", name)
        answer = client.request("HEAD", path, self._scopes, {"Accept": ACCEPT})
        digest = answer.header("docker-content-digest")
        kind = _media_type(answer)
        if answer.status == 200 and is_digest(digest) and answer.length and kind in _KNOWN:
            size = answer.length
            answer.finish()
            if is_digest(name) and digest != name:
                raise DigestMismatch(f"{shown(answer.url)}: the registry answers with {digest}")
            return Descriptor(kind, digest, size)
        answer.finish()
        if answer.status == 429:
            raise client.failure(answer)
        return self._manifest(client, name)[1]  # an answer to HEAD cannot tell what is wrong

    def _manifest(self, client: HostClient, name: str) -> tuple[bytes, Descriptor]:
        path = self._path("manifests", name)
        for attempt in range(1, SMALL_ATTEMPTS + 1):
            answer = client.request("GET", path, self._scopes, {"Accept": ACCEPT})
            if answer.status != 200:
                raise _failure(client, answer)
            try:
                data = answer.body(DOCUMENT_LIMIT_BYTES)
                break
            except RegistryUnreachable as error:  # it broke off in the midst
                if attempt == SMALL_ATTEMPTS:
                    raise
                client.pause(attempt, error.message, None, None)
        kind, claimed = _media_type(answer), answer.header("docker-content-digest")
        digest = sha256(data)
        expected = name if is_digest(name) else claimed if is_digest(claimed) else digest
        if digest != expected:
            raise DigestMismatch(f"{shown(answer.url)}: the manifest has the digest {digest}, not {expected}")
        return data, Descriptor(_checked_type(data, kind, shown(answer.url)), digest, len(data))

    def _tags(self, client: HostClient) -> list[str]:
        path = f"/{self.reference.path}/tags/list"
        tags: list[str] = []
        for _ in range(_PAGES_LIMIT):
            answer = client.request("GET", path, self._scopes)
            if answer.status != 200:
                raise _failure(client, answer)
            link = _LINK.search(answer.header("link"))
            found = answer.json().get("tags") or []
            if not isinstance(found, list) or not all(isinstance(tag, str) for tag in found):
                raise InvalidAnswer(f"{shown(answer.url)}: the list of tags is none")
            tags += found
            if len(tags) > _TAGS_LIMIT:
                raise InvalidAnswer(f"{shown(answer.url)}: there are more than {_TAGS_LIMIT} tags")
            if link is None or not found:
                return tags
            path = urljoin(answer.url, link[1])
            if origin_of(path) != origin_of(answer.url):
                raise InvalidAnswer(f"{shown(answer.url)}: the next page of tags is at another host")
        raise InvalidAnswer(f"{self.reference.name}: the list of tags has more than {_PAGES_LIMIT} pages")

    def _referrers(self, client: HostClient, digest: str, artifact_type: str) -> list[Descriptor]:
        path = self._path("referrers", digest)
        if artifact_type:
            path += f"?artifactType={quote(artifact_type, safe='')}"
        answer = client.request("GET", path, self._scopes, {"Accept": media_types.OCI_INDEX})
        if answer.status == 200 and _media_type(answer) == media_types.OCI_INDEX:
            return parse_index(answer.body(DOCUMENT_LIMIT_BYTES)).manifests
        answer.finish()
        if answer.status not in (200, 404):
            raise _failure(client, answer)
        try:
            data, descriptor = self._manifest(client, f"sha256-{hex_of(digest)}")
        except NotInRegistry:
            return []
        return parse_index(data).manifests if descriptor.media_type in media_types.INDEXES else []

    # --- writing ---

    @property
    def uploads(self) -> Uploads:
        """Blobs on their way to the registry."""
        if self._uploads is None:
            self._uploads = Uploads(self._writer(), self.reference, self._scopes, self.config)
        return self._uploads

    def _writer(self) -> HostClient:
        for client in self._clients:
            if "push" in client.endpoint.capabilities:
                return client
        raise Unsupported(f"{self.reference.domain}: hosts.toml has no address for pushing")

    def has_blob(self, digest: str) -> bool:
        """Whether the registry we push to has this blob in the repository."""
        client = self._writer()
        answer = client.request("HEAD", self._path("blobs", check_digest(digest)), self._scopes)
        answer.finish()
        if answer.status == 404:
            return False
        if answer.status != 200:
            raise client.failure(answer)
        return True

    def put_manifest(self, tag_or_digest: str, data: bytes, media_type: str) -> str:
        """Store a manifest or index under a tag or its digest.

        Returns:
            its digest.

        Raises:
            RegistryError: the registry does not take it, or stored something else.
        """
        client = self._writer()
        path = self._path("manifests", tag_or_digest)
        answer = client.request("PUT", path, self._scopes, {"Content-Type": media_type}, lambda: data)
        if answer.status not in (200, 201, 202):
            raise _failure(client, answer)
        answer.finish()
        digest, stored = sha256(data), answer.header("docker-content-digest")
        if is_digest(stored) and stored != digest:
            raise InvalidAnswer(f"{shown(answer.url)}: the registry stored {stored} instead of {digest}")
        return digest


def _failure(client: HostClient, answer: Answer) -> RegistryError:
    if answer.status < 400:
        answer.close()
        return InvalidAnswer(f"{shown(answer.url)}: unexpected HTTP status {answer.status}")
    error = client.failure(answer)
    answer.close()
    return error


def _media_type(answer: Answer) -> str:
    return answer.header("content-type").partition(";")[0].strip().lower()


def _checked_type(data: bytes, announced: str, where: str) -> str:
    """The media type of a manifest, when header and document agree on it.

    A document that is an image to one reader and an index to another would be two things under one digest.
    """
    document = load_object(data, "the manifest")
    own = document.get("mediaType")
    if announced.startswith(_SCHEMA1) or document.get("schemaVersion") == 1:
        raise Unsupported(
            f"{where}: the image is in Docker's manifest format of before 2016 (schema 1), which is not"
            " supported: push it again with a newer engine"
        )
    if announced not in _KNOWN:
        if not isinstance(own, str):
            own = media_types.OCI_INDEX if "manifests" in document else media_types.OCI_MANIFEST
        announced = own
    if own is not None and own != announced:
        raise InvalidAnswer(f"{where}: the registry announces {announced}, but the manifest says {own}")
    if "manifests" in document and ("layers" in document or "config" in document):
        raise InvalidAnswer(f"{where}: the manifest is an image and an index at once")
    return announced
