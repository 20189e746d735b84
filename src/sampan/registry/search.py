"""`search`: Docker Hub's v1 search, and that of other registries which have kept it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter
from sampan.registry.answers import JSON_LIMIT_BYTES
from sampan.registry.client import HostClient
from sampan.registry.errors import InvalidAnswer, RegistryError
from sampan.registry.transport import shown

DEFAULT_LIMIT = 25
LARGEST_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Found:
    """One repository that fits."""

    name: str
    description: str
    star_count: int
    is_official: bool


def split_term(term: str) -> tuple[str, str]:
    """The registry and the rest of a search term: `host/term`, or `term` for the Hub.

    Raises:
        InvalidParameter: it has a scheme.
    """
    if "://" in term:
        raise InvalidParameter('invalid repository name (ex: "registry.domain.tld/myrepos")')
    first, slash, rest = term.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        return "docker.io", term.removeprefix("library/")
    if first in ("docker.io", "index.docker.io"):
        return "docker.io", rest.removeprefix("library/")
    return first, rest


def search(client: HostClient, term: str, limit: int) -> list[Found]:
    """The repositories that fit `term`, as the registry orders them.

    Raises:
        InvalidParameter: `limit` is not between 1 and 100.
        RegistryError: the registry cannot be asked, or has no search.
    """
    limit = limit or DEFAULT_LIMIT
    if not 1 <= limit <= LARGEST_LIMIT:
        raise InvalidParameter(f"limit {limit} is outside the range of [1, {LARGEST_LIMIT}]")
    path = f"/search?{urlencode({'q': term, 'n': limit})}"
    answer = client.request("GET", path, headers={"X-Docker-Token": "true"})
    if answer.status in (401, 403):
        raise client.failure(answer)
    if answer.status != 200:
        answer.close()
        raise RegistryError(f"{shown(answer.url)}: Unexpected status code {answer.status}", answer.status)
    results = answer.json(JSON_LIMIT_BYTES).get("results") or []
    if not isinstance(results, list):
        raise InvalidAnswer(f"{shown(answer.url)}: the results are no list")
    return [_found(item) for item in results[:limit] if isinstance(item, dict)]


def _found(item: dict[str, Any]) -> Found:
    stars = item.get("star_count")
    return Found(
        str(item.get("name") or ""),
        str(item.get("description") or ""),
        stars if isinstance(stars, int) else 0,
        item.get("is_official") is True,
    )
