"""What `docker search HOST:PORT/TERM` asks: the index API of before v2 (`/v1/_ping`, `/v1/search`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sampan.http import Request, Response, json_response

if TYPE_CHECKING:
    from sampan.registry.server.catalog import Catalog
    from sampan.registry.server.routing import Target

_DESCRIPTION = "org.opencontainers.image.description"
_DEFAULT, _MOST = 25, 100
_HEADERS = {"X-Docker-Registry-Version": "0.9.1", "X-Docker-Registry-Standalone": "true"}


class Search:
    """The handlers.

    Args:
        catalog: what is searched.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def ping(self, request: Request, target: Target) -> Response:
        """That there is an index here."""
        return json_response(True, headers=_HEADERS)

    async def search(self, request: Request, target: Target) -> Response:
        """Repositories whose name contains the term."""
        term = request.query.get("q")
        size = min(max(1, request.query.integer("n", _DEFAULT)), _MOST)
        total = self._catalog.count(term)
        found = self._catalog.repositories("", size, term)
        results = [
            {
                "name": name,
                "description": self._description(name),
                "star_count": 0,
                "is_official": False,
                "is_automated": False,
                "is_trusted": False,
            }
            for name in found
        ]
        body = {
            "num_pages": max(1, -(-total // size)),
            "num_results": total,
            "page": 1,
            "page_size": size,
            "query": term,
            "results": results,
        }
        return json_response(body, headers=_HEADERS)

    def _description(self, name: str) -> str:
        for tag in ("latest", *self._catalog.tags(name, "", 1)):
            found = self._catalog.manifest(name, tag)
            if found is not None:
                annotations = json.loads(found.content).get("annotations") or {}
                return str(annotations.get(_DESCRIPTION, ""))
        return ""
