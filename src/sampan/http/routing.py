"""Which function answers which path: a small table, compiled once.

A part of the table may be left to be made when a request comes that the rest does not answer.

Patterns are those of the Engine API's description: `/containers/{id}/json`. `{name:path}` takes slashes too,
as image names have them; a container may also be called `PARENT/ALIAS`, by a link. The version prefix
(`/v1.41`) is gone before a path gets here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from sampan.dataclasses import dataclass

if TYPE_CHECKING:
    from sampan.http.request import Request
    from sampan.http.response import Response

Handler = Callable[["Request"], Awaitable["Response | None"]]
H = TypeVar("H", bound=Callable[..., object])

_PARAMETER = re.compile(r"\{(\w+)(:path)?\}")
_CONTAINER = "[^/]+(?:/[^/]+)?"


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the table."""

    method: str
    pattern: str
    handler: Handler


class Routes:
    """What one module of routes offers; its decorators leave the function as it is."""

    def __init__(self) -> None:
        self.entries: list[Route] = []

    def route(self, method: str, pattern: str) -> Callable[[H], H]:
        """Register the decorated handler for `method` on `pattern`."""

        def register(handler: H) -> H:
            self.entries.append(Route(method, pattern, handler))  # type: ignore[arg-type]
            return handler

        return register

    def get(self, pattern: str) -> Callable[[H], H]:
        """Register for GET."""
        return self.route("GET", pattern)

    def head(self, pattern: str) -> Callable[[H], H]:
        """Register for HEAD; nothing answers HEAD that does not say so, as in Docker."""
        return self.route("HEAD", pattern)

    def post(self, pattern: str) -> Callable[[H], H]:
        """Register for POST."""
        return self.route("POST", pattern)

    def put(self, pattern: str) -> Callable[[H], H]:
        """Register for PUT."""
        return self.route("PUT", pattern)

    def delete(self, pattern: str) -> Callable[[H], H]:
        """Register for DELETE."""
        return self.route("DELETE", pattern)


class Router:
    """All routes, found by method and first segment, then by pattern in the order of registration.

    Args:
        tables: the routes.
        rest: gives those that come behind them, and is called once: when none of `tables` answers.

    Raises:
        ValueError: two handlers for the same method and pattern.
    """

    def __init__(self, tables: Iterable[Routes], rest: Callable[[], Iterable[Routes]] | None = None) -> None:
        self._fixed: dict[tuple[str, str], Handler] = {}
        self._patterns: dict[tuple[str, str], list[tuple[re.Pattern[str], Handler]]] = {}
        self._seen: set[tuple[str, str]] = set()
        self._rest = rest
        self._take(tables)

    def _take(self, tables: Iterable[Routes]) -> None:
        for table in tables:
            for entry in table.entries:
                if (entry.method, entry.pattern) in self._seen:
                    raise ValueError(f"{entry.method} {entry.pattern} is registered twice")
                self._seen.add((entry.method, entry.pattern))
                self._add(entry)

    def _add(self, entry: Route) -> None:
        if "{" not in entry.pattern:
            self._fixed[entry.method, entry.pattern] = entry.handler
            return
        first = entry.pattern.split("/", 2)[1]
        parts: list[str] = []
        end = 0
        for found in _PARAMETER.finditer(entry.pattern):
            parts.append(re.escape(entry.pattern[end : found.start()]))
            kind = ".+" if found[2] else _CONTAINER if entry.pattern.startswith("/containers/{") else "[^/]+"
            parts.append(f"(?P<{found[1]}>{kind})")
            end = found.end()
        parts.append(re.escape(entry.pattern[end:]))
        compiled = re.compile("".join(parts), re.DOTALL)
        key = (entry.method, "" if first.startswith("{") else first)
        self._patterns.setdefault(key, []).append((compiled, entry.handler))

    def match(self, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
        """The handler of a decoded path and the values of its parameters, or None when there is none."""
        found = self._find(method, path)
        if found is None and self._rest is not None:
            rest, self._rest = self._rest, None
            self._take(rest())
            found = self._find(method, path)
        return found

    def _find(self, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
        handler = self._fixed.get((method, path))
        if handler is not None:
            return handler, {}
        segments = path.split("/", 2)
        if len(segments) < 2:
            return None
        for key in (segments[1], ""):
            for pattern, handler in self._patterns.get((method, key), ()):
                found = pattern.fullmatch(path)
                if found is not None:
                    return handler, found.groupdict()
        return None
