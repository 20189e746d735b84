"""Pages for people who would rather look: `/` and `/repository/<name>`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.http import Request, Response, text
from sampan.registry.server.names import check_name

if TYPE_CHECKING:
    from sampan.registry.server.routing import Target
    from sampan.registry.server.store import Store


class Page:
    """The handlers.

    Args:
        store: what they show.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def front(self, request: Request, target: Target) -> Response:
        """The repositories."""
        return text("".join(f"{name}\n" for name in self._store.catalog.repositories("", 1000)))

    async def repository(self, request: Request, target: Target) -> Response:
        """The tags of one."""
        return text(
            "".join(f"{tag}\n" for tag in self._store.catalog.tags(check_name(target.name), "", 1000))
        )
