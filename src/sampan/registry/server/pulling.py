"""Reading: manifests, blobs, tags, referrers, catalog (OCI distribution spec, "Pull" and "Discovery")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode

from sampan.http import FileResponse, Request, Response, dump_json, empty, json_response
from sampan.oci import media_types
from sampan.registry.server.catalog import Manifest
from sampan.registry.server.faults import BlobUnknown, ManifestUnknown, NameUnknown, PageInvalid, RangeInvalid
from sampan.registry.server.names import check_digest, check_name, check_reference, is_digest
from sampan.registry.server.ranges import Unsatisfiable, is_unchanged, wanted_range

if TYPE_CHECKING:
    from sampan.registry.server.routing import Target
    from sampan.registry.server.store import Store

_FOREVER = "max-age=31536000"
_CATALOG_PAGE, _CATALOG_LIMIT = 100, 1000
_TAGS_LIMIT = 10_000
_REFERRERS_PAGE = 1000
BYTES = "application/octet-stream"


class Source(Protocol):
    """Where manifests and blobs come from that are not in the store: a pull-through cache's upstream."""

    async def manifest(self, name: str, reference: str) -> Manifest | None:
        """A manifest, from the store when it is fresh there."""
        ...

    async def tags(self, name: str) -> list[str] | None:
        """All tags, None when upstream cannot be asked."""
        ...

    async def referrers(self, name: str, digest: str) -> None:
        """See to it that the store has the referrers of a manifest."""
        ...

    async def blob(self, request: Request, name: str, digest: str) -> Response | None:
        """An answer with a blob that the store lacks."""
        ...


class Pulling:
    """The handlers.

    Args:
        store: what is served.
        source: asked for what the store does not have.
    """

    def __init__(self, store: Store, source: Source | None = None) -> None:
        self._store = store
        self._catalog = store.catalog
        self._source = source

    async def manifest(self, request: Request, target: Target) -> Response:
        """GET or HEAD of a manifest. It comes as it was pushed, whatever `Accept` says."""
        name, reference = check_name(target.name), check_reference(target.reference)
        if self._source is not None:
            found = await self._source.manifest(name, reference)
        else:
            found = self._catalog.manifest(name, reference)
        if found is None:
            if not self._catalog.exists(name):
                raise NameUnknown("repository name not known to registry", {"name": name})
            raise ManifestUnknown("manifest unknown", {"name": name, "reference": reference})
        etag = f'"{found.digest}"'
        headers = {"Docker-Content-Digest": found.digest, "ETag": etag}
        if found.stale:
            headers["Warning"] = '110 - "upstream is away"'
        if is_digest(reference):
            headers["Cache-Control"] = _FOREVER
        if is_unchanged(request.headers, etag):
            return empty(304, headers)
        return Response(200, found.content, found.media_type, headers)

    async def blob(self, request: Request, target: Target) -> Response:
        """GET or HEAD of a blob, whole or a range."""
        name, digest = check_name(target.name), check_digest(target.reference)
        etag = f'"{digest}"'
        headers = {
            "Docker-Content-Digest": digest, "ETag": etag, "Cache-Control": _FOREVER,
            "Accept-Ranges": "bytes",
        }  # fmt: skip
        fd, size = -1, self._store.has_blob(name, digest)
        if size is None and self._source is not None:
            answer = await self._source.blob(request, name, digest)
            if answer is not None:
                answer.headers.update(headers)
                return answer
            size = self._store.has_blob(name, digest)
        if size is None:
            raise BlobUnknown("blob unknown to registry", {"digest": digest})
        if is_unchanged(request.headers, etag):
            return empty(304, headers)
        try:
            part = wanted_range(request.headers, size, etag)
        except Unsatisfiable:
            raise RangeInvalid(
                f"the blob has {size} bytes", headers={"Content-Range": f"bytes */{size}"}
            ) from None
        if request.method == "GET":
            opened = self._store.open_blob(name, digest)
            if opened is None:
                raise BlobUnknown("blob unknown to registry", {"digest": digest})
            fd = opened[0]
        if part is None:
            return FileResponse(fd, 0, size, 200, BYTES, headers)
        headers["Content-Range"] = f"bytes {part[0]}-{part[1]}/{size}"
        return FileResponse(fd, part[0], part[1] - part[0] + 1, 206, BYTES, headers)

    async def tags(self, request: Request, target: Target) -> Response:
        """The tags of a repository in the order of their bytes, page by page when `n` says so."""
        name = check_name(target.name)
        limit, last = _page(request, _TAGS_LIMIT, _TAGS_LIMIT), request.query.get("last")
        upstream = await self._source.tags(name) if self._source is not None else None
        if upstream is not None:
            found = sorted(tag for tag in upstream if tag > last)[: limit + 1]
        else:
            if not self._catalog.exists(name):
                raise NameUnknown("repository name not known to registry", {"name": name})
            found = self._catalog.tags(name, last, limit + 1)
        headers = _next_link(f"/v2/{name}/tags/list", found, limit)
        return json_response({"name": name, "tags": found[:limit]}, headers=headers)

    async def catalog(self, request: Request, target: Target) -> Response:
        """All repositories in the order of their bytes, page by page."""
        limit = _page(request, _CATALOG_PAGE, _CATALOG_LIMIT)
        found = self._catalog.repositories(request.query.get("last"), limit + 1)
        return json_response(
            {"repositories": found[:limit]}, headers=_next_link("/v2/_catalog", found, limit)
        )

    async def referrers(self, request: Request, target: Target) -> Response:
        """The manifests about a manifest, as an index; an empty one when there are none."""
        name, digest = check_name(target.name), check_digest(target.reference)
        if self._source is not None:
            await self._source.referrers(name, digest)
        kind = request.query.get("artifactType")
        start = max(0, request.query.integer("start"))
        found = self._catalog.referrers(name, digest, kind)
        headers = {"OCI-Filters-Applied": "artifactType"} if kind else {}
        if len(found) > start + _REFERRERS_PAGE:
            following = {"artifactType": kind} if kind else {}
            query = urlencode({**following, "start": str(start + _REFERRERS_PAGE)})
            headers["Link"] = f'</v2/{name}/referrers/{digest}?{query}>; rel="next"'
        listed = []
        for one in found[start : start + _REFERRERS_PAGE]:
            entry: dict[str, Any] = {"mediaType": one.media_type, "digest": one.digest, "size": one.size}
            if one.artifact_type:
                entry["artifactType"] = one.artifact_type
            if one.annotations:
                entry["annotations"] = one.annotations
            listed.append(entry)
        index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": listed}
        return Response(200, dump_json(index), media_types.OCI_INDEX, headers)


def _page(request: Request, default: int, most: int) -> int:
    text = request.query.get("n")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()):
        raise PageInvalid(f"n: {text[:40]!r} is not a number of entries", {"n": text[:40]})
    return min(int(text[:18]), most)


def _next_link(path: str, found: list[str], limit: int) -> dict[str, str]:
    if len(found) <= limit or not limit:
        return {}
    query = urlencode({"n": limit, "last": found[limit - 1]})
    return {"Link": f'<{path}?{query}>; rel="next"'}
