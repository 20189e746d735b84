"""Pages for people who would rather look: `/` and `/repository/<name>`.

Plain HTML without scripts or anything from elsewhere, which the content security policy says too. What images
carry (names, annotations, history) is text from strangers: the templates escape all of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from sampan.dataclasses import dataclass
from sampan.http import Request, Response
from sampan.oci import media_types
from sampan.registry.server.catalog import Manifest, Referrer
from sampan.registry.server.faults import NameUnknown
from sampan.registry.server.names import check_name

if TYPE_CHECKING:
    from jinja2 import Environment

    from sampan.registry.server.routing import Target
    from sampan.registry.server.store import Store

_REPOSITORIES, _TAGS = 200, 50  # on a page
_CONFIG_LIMIT_BYTES = 1 << 20
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self';"
        " frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_KINDS = {
    media_types.OCI_MANIFEST: "OCI image",
    media_types.OCI_INDEX: "OCI index",
    media_types.DOCKER_MANIFEST: "Docker image",
    media_types.DOCKER_INDEX: "Docker manifest list",
}


@dataclass(slots=True)
class Image:
    """One image manifest as the page shows it."""

    digest: str
    platform: str = ""
    size_bytes: int = 0
    created: str = ""
    layers: list[tuple[str, int, str]] = field(default_factory=list)  # digest, bytes, how it came about
    missing: bool = False


@dataclass(slots=True)
class Tag:
    """One tag as the page shows it."""

    name: str
    digest: str
    kind: str
    size_bytes: int
    annotations: list[tuple[str, str]]
    images: list[Image]
    referrers: list[Referrer]

    @property
    def platforms(self) -> str:
        """Of all its images."""
        return ", ".join(dict.fromkeys(one.platform for one in self.images if one.platform))


class Page:
    """The handlers.

    Args:
        store: what they show.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._catalog = store.catalog
        self._environment: Environment | None = None

    async def front(self, request: Request, target: Target) -> Response:
        """The repositories, with what they hold."""
        return await asyncio.to_thread(self._front, request.query.get("q")[:255], request.query.get("last"))

    def _front(self, term: str, last: str) -> Response:
        names = self._catalog.repositories(last, _REPOSITORIES + 1, term)
        query = urlencode({"q": term, "last": names[_REPOSITORIES - 1]}) if len(names) > _REPOSITORIES else ""
        return self._render(
            "front.html",
            repositories=[self._catalog.summary(name) for name in names[:_REPOSITORIES]],
            term=term,
            count=self._catalog.count(term),
            total_bytes=self._store.total(),
            following=query,
        )

    async def repository(self, request: Request, target: Target) -> Response:
        """The tags of one repository, with layers, sizes, annotations and referrers."""
        name = check_name(target.name)
        host = request.headers.get("host", "localhost")
        return await asyncio.to_thread(self._repository, name, host, request.query.get("last"))

    def _repository(self, name: str, host: str, last: str) -> Response:
        if not self._catalog.exists(name):
            raise NameUnknown("repository name not known to registry", {"name": name})
        names = self._catalog.tags(name, last, _TAGS + 1)
        return self._render(
            "repository.html",
            name=name,
            host=host,
            summary=self._catalog.summary(name),
            tags=[tag for tag in (self._tag(name, one) for one in names[:_TAGS]) if tag is not None],
            following=urlencode({"last": names[_TAGS - 1]}) if len(names) > _TAGS else "",
        )

    def _tag(self, name: str, tag: str) -> Tag | None:
        found = self._catalog.manifest(name, tag)
        if found is None:
            return None  # deleted in between
        document = json.loads(found.content)
        if found.media_type in media_types.INDEXES:
            images = [self._child(name, entry) for entry in document["manifests"]]
        else:
            images = [self._image(name, found, "")]
        annotations = document.get("annotations") or {}
        return Tag(
            name=tag,
            digest=found.digest,
            kind=_KINDS.get(found.media_type, found.media_type),
            size_bytes=sum(image.size_bytes for image in images),
            annotations=sorted(annotations.items()),
            images=images,
            referrers=self._catalog.referrers(name, found.digest),
        )

    def _child(self, name: str, entry: dict[str, Any]) -> Image:
        digest = str(entry["digest"])
        platform = _platform(entry.get("platform"))
        found = self._catalog.manifest(name, digest)
        if found is None or found.media_type in media_types.INDEXES:
            return Image(digest, platform, missing=found is None)
        return self._image(name, found, platform)

    def _image(self, name: str, found: Manifest, platform: str) -> Image:
        document = json.loads(found.content)
        config = self._config(name, document["config"])
        steps = [step for step in config.get("history") or [] if isinstance(step, dict)]
        made = [str(step.get("created_by") or "") for step in steps if not step.get("empty_layer")]
        layers = document.get("layers") or []
        if len(made) != len(layers):
            made = [""] * len(layers)
        sizes = [int(layer["size"]) for layer in layers]
        return Image(
            digest=found.digest,
            platform=platform or _platform(config),
            size_bytes=sum(sizes) + int(document["config"]["size"]),
            created=str(config.get("created") or "")[:19].replace("T", " "),
            layers=[
                (str(layer["digest"]), size, step[:500])
                for layer, size, step in zip(layers, sizes, made, strict=True)
            ],
        )

    def _config(self, name: str, descriptor: dict[str, Any]) -> dict[str, Any]:
        """The image's config document; empty when it is none, or not here."""
        if descriptor.get("mediaType") not in media_types.CONFIGS:
            return {}
        digest = str(descriptor["digest"])
        size = self._catalog.blob_size(name, digest)
        if size is None or size > _CONFIG_LIMIT_BYTES:
            return {}
        try:
            fd = self._store.blobs.open(digest)
            with os.fdopen(fd, "rb") as file:
                value = json.load(file)
        except (OSError, ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) and isinstance(value.get("history") or [], list) else {}

    # --- templates ---

    def _render(self, template: str, **values: Any) -> Response:
        if self._environment is None:
            self._environment = _environment()
        text = self._environment.get_template(template).render(**values)
        return Response(200, text.encode("utf-8", "replace"), "text/html; charset=utf-8", _HEADERS)


def _environment() -> Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(size=size_text, moment=_moment, path=quote, short=_short)
    return environment


def size_text(count: int) -> str:
    """Bytes as people read them, in powers of 1000 as docker writes them."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}" if unit != "B" else f"{count} B"
        value /= 1000
    return f"{value:.4g} TB"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)) if seconds else ""


def _short(digest: str) -> str:
    algorithm, _, digits = digest.partition(":")
    return f"{algorithm}:{digits[:12]}"


def _platform(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    parts = [str(value.get(key) or "") for key in ("os", "architecture", "variant")]
    return "/".join(part for part in parts if part)
