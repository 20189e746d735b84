"""Conditional requests and byte ranges (RFC 9110, sections 13 and 14); an upload's own `Content-Range`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sampan.registry.server.faults import UploadInvalid

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})")
_CHUNK = re.compile(r"(?:bytes[ =])?(\d{1,18})-(\d{1,18})(?:/(?:\d{1,18}|\*))?")


class Unsatisfiable(Exception):
    """The range lies outside of what there is."""


def is_unchanged(headers: Mapping[str, str], etag: str) -> bool:
    """Whether `If-None-Match` names this entity: the client has it already."""
    given = headers.get("if-none-match")
    if given is None:
        return False
    names = [name.strip().removeprefix("W/") for name in given.split(",")]
    return "*" in names or etag in names


def wanted_range(headers: Mapping[str, str], size: int, etag: str) -> tuple[int, int] | None:
    """First and last byte that are asked for, None for all of them.

    More than one range, another unit, or an `If-Range` that does not match is answered with everything.

    Raises:
        Unsatisfiable: there is no such byte.
    """
    given = headers.get("range")
    if given is None or headers.get("if-range", etag) != etag:
        return None
    found = _RANGE.fullmatch(given.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        count = min(int(found[2]), size)
        if not count:
            raise Unsatisfiable
        return size - count, size - 1
    first = int(found[1])
    last = min(int(found[2]), size - 1) if found[2] else size - 1
    if found[2] and int(found[2]) < first:
        return None
    if first >= size:
        raise Unsatisfiable
    return first, last


def chunk_range(text: str) -> tuple[int, int]:
    """First and last byte of a chunk, from `Content-Range: <first>-<last>`.

    Raises:
        UploadInvalid: it is none.
    """
    found = _CHUNK.fullmatch(text.strip())
    if found is None or int(found[2]) < int(found[1]):
        raise UploadInvalid("invalid Content-Range: expected <first byte>-<last byte>")
    return int(found[1]), int(found[2])
