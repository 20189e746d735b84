"""Which function answers which path: a small table.

A part of the table may be left to be made when a request comes that the rest does not answer.

Patterns are those of the Engine API's description, with one parameter at most: `/containers/{id}/json`.
`{name:path}` takes slashes too, as image names have them; a container may also be called `PARENT/ALIAS`, by a
link. The version prefix (`/v1.41`) is gone before a path gets here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from sampan.dataclasses import dataclass

if TYPE_CHECKING:
    from sampan.http.request import Request
    from sampan.http.response import Response

Handler = Callable[["Request"], Awaitable["Response | None"]]
H = TypeVar("H", bound=Callable[..., object])


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


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A path with a parameter in it.

    Attributes:
        before, after: what is around the parameter.
        names: of how many names, with slashes between them, it may consist; None when it may be anything.
    """

    before: str
    parameter: str
    after: str
    names: int | None

    def value_in(self, path: str) -> str | None:
        """The parameter's value in a path, None when the path is another."""
        if not (path.startswith(self.before) and path.endswith(self.after)):
            return None
        value = path[len(self.before) : len(path) - len(self.after)]
        if self.names is not None:
            names = value.split("/")
            if len(names) > self.names or "" in names:
                return None
        return value or None


def _parsed(pattern: str) -> _Pattern:
    before, _, rest = pattern.partition("{")
    parameter, _, after = rest.partition("}")
    name, _, kind = parameter.partition(":")
    if "{" in after or kind not in ("", "path"):
        raise ValueError(f"{pattern}: one parameter, of the kind path or of none")
    return _Pattern(before, name, after, None if kind else 2 if before == "/containers/" else 1)


class Router:
    """All routes, found by method and first segment, then by pattern in the order of registration.

    Args:
        tables: the routes.
        rest: gives those that come behind them, and is called once: when none of `tables` answers.

    Raises:
        ValueError: two handlers for the same method and pattern, or a pattern that is none.
    """

    def __init__(self, tables: Iterable[Routes], rest: Callable[[], Iterable[Routes]] | None = None) -> None:
        self._fixed: dict[tuple[str, str], Handler] = {}
        self._patterns: dict[tuple[str, str], list[tuple[_Pattern, Handler]]] = {}
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
        key = (entry.method, "" if first.startswith("{") else first)
        self._patterns.setdefault(key, []).append((_parsed(entry.pattern), entry.handler))

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
                value = pattern.value_in(path)
                if value is not None:
                    return handler, {pattern.parameter: value}
        return None
