"""Writing: uploads in one piece or many, mounts, manifests, deletion (OCI distribution spec, "Push", "Content
Management")."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sampan.http import Request, Response, empty
from sampan.registry.server.access import Access, Wanted
from sampan.registry.server.bodies import announced, pieces, whole
from sampan.registry.server.faults import (
    BlobUnknown,
    Denied,
    DigestInvalid,
    ManifestUnknown,
    NameUnknown,
    RangeInvalid,
    SizeInvalid,
    TooLarge,
)
from sampan.registry.server.names import check_digest, check_name, check_reference, is_digest
from sampan.registry.server.ranges import chunk_range
from sampan.registry.server.store import manifest_too_large

if TYPE_CHECKING:
    from sampan.registry.server.routing import Target
    from sampan.registry.server.store import Store
    from sampan.registry.server.uploads import Upload

_LOOK_EVERY_BYTES = 4 << 20


class Pushing:
    """The handlers.

    Args:
        store: where it goes.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    # --- blobs ---

    async def begin(self, request: Request, target: Target, access: Access) -> Response:
        """POST: mount a blob, take a whole one, or begin an upload."""
        name = check_name(target.name)
        digest = request.query.get("mount")
        if digest:
            source = request.query.get("from")
            check_digest(digest)
            allowed = bool(source) and access.allows(Wanted("repository", check_name(source), "pull"))
            if allowed and await asyncio.to_thread(self._store.catalog.mount, name, digest, source):
                return _created(name, digest)
        digest = request.query.get("digest")
        if digest:
            check_digest(digest)
        await asyncio.to_thread(self._store.check_room, name, announced(request) or 0)
        upload = await asyncio.to_thread(self._store.uploads.begin, name)
        if digest:
            try:
                return await self._finish(request, upload, digest)
            finally:
                self._store.uploads.end(upload)
        return empty(202, _progress(upload))

    async def status(self, request: Request, target: Target) -> Response:
        """GET: how far an upload has come."""
        return empty(204, _progress(self._upload(target)))

    async def patch(self, request: Request, target: Target) -> Response:
        """PATCH: the next chunk, or with no `Content-Range` all that there is."""
        upload = self._upload(target)
        with upload.held():
            await self._receive(request, upload)
        return empty(202, _progress(upload))

    async def put(self, request: Request, target: Target) -> Response:
        """PUT: the last chunk, or none, and the digest of the whole."""
        upload = self._upload(target)
        digest = request.query.get("digest")
        if not digest:
            raise DigestInvalid("the digest parameter is missing")
        return await self._finish(request, upload, check_digest(digest))

    async def cancel(self, request: Request, target: Target) -> Response:
        """DELETE: forget an upload."""
        upload = self._upload(target)
        with upload.held():
            await asyncio.to_thread(self._store.uploads.end, upload)
        return empty(204)

    def _upload(self, target: Target) -> Upload:
        return self._store.uploads.get(check_name(target.name), target.reference)

    async def _finish(self, request: Request, upload: Upload, digest: str) -> Response:
        with upload.held():
            await self._receive(request, upload)
            try:
                await asyncio.to_thread(self._store.commit, upload, digest)
            except (TooLarge, Denied):
                self._store.uploads.end(upload)
                raise
        return _created(upload.repository, digest)

    async def _receive(self, request: Request, upload: Upload) -> None:
        """Append the request's body; a part of it that came before an error stays, as the status tells."""
        length = announced(request)
        begin = upload.size
        if "content-range" in request.headers:
            first, last = chunk_range(request.headers["content-range"])
            if first != upload.size:
                raise RangeInvalid(
                    f"the upload has {upload.size} bytes: the chunk cannot begin at {first}",
                    headers=_progress(upload),
                )
            if length is not None and length != last - first + 1:
                raise SizeInvalid(f"Content-Range tells {last - first + 1} bytes, Content-Length {length}")
            length = last - first + 1
        elif length == 0:
            return
        try:
            await asyncio.to_thread(self._store.check_room, upload.repository, length or 0, upload.size)
            unseen = 0
            async for some in pieces(request):
                count = sum(map(len, some))
                if length is not None and upload.size + count > begin + length:
                    await asyncio.to_thread(upload.cut, begin)
                    raise SizeInvalid(f"more than the {length} bytes of the chunk were received")
                unseen += count
                if unseen > _LOOK_EVERY_BYTES:
                    unseen = 0
                    await asyncio.to_thread(self._store.check_room, upload.repository, count, upload.size)
                await asyncio.to_thread(upload.append, some)
        except (TooLarge, Denied):
            self._store.uploads.end(upload)
            raise
        if length is not None and upload.size != begin + length:
            raise SizeInvalid(f"{length} bytes were announced, {upload.size - begin} were received")

    async def delete_blob(self, request: Request, target: Target) -> Response:
        """DELETE: the repository has this blob no more."""
        name, digest = check_name(target.name), check_digest(target.reference)
        if not await asyncio.to_thread(self._store.catalog.delete_link, name, digest):
            raise BlobUnknown("blob unknown to registry", {"digest": digest})
        return empty(202, {"Docker-Content-Digest": digest})

    # --- manifests ---

    async def put_manifest(self, request: Request, target: Target) -> Response:
        """PUT: a manifest, under a tag or its digest."""
        name, reference = check_name(target.name), check_reference(target.reference)
        limit = self._store.limits.manifest_bytes
        data = await whole(request, limit, manifest_too_large(limit))
        kind = request.headers.get("content-type", "")
        digest, document = await asyncio.to_thread(self._store.put_manifest, name, reference, data, kind)
        headers = {"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest}
        if document.subject:
            headers["OCI-Subject"] = document.subject
        return empty(201, headers)

    async def delete_manifest(self, request: Request, target: Target) -> Response:
        """DELETE: a tag alone, or a manifest with its tags."""
        name, reference = check_name(target.name), check_reference(target.reference)
        if is_digest(reference):
            gone = await asyncio.to_thread(self._store.delete_manifest, name, reference)
        else:
            gone = await asyncio.to_thread(self._store.catalog.delete_tag, name, reference)
        if not gone:
            if not self._store.catalog.exists(name):
                raise NameUnknown("repository name not known to registry", {"name": name})
            raise ManifestUnknown("manifest unknown", {"name": name, "reference": reference})
        return empty(202)


def _progress(upload: Upload) -> Mapping[str, str]:
    return {
        "Location": f"/v2/{upload.repository}/blobs/uploads/{upload.id}",
        "Range": f"0-{max(0, upload.size - 1)}",
        "Docker-Upload-UUID": upload.id,
    }


def _created(name: str, digest: str) -> Response:
    return empty(201, {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})
