"""The `filters` of a request, with Docker's rules for what a value means and its words for what is wrong.

moby, `api/types/filters`: values of one filter are alternatives, except labels, which must all be there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from sampan import durations
from sampan.api.shapes.times import timestamp_ns
from sampan.engine import Core
from sampan.errors import Conflict, InvalidParameter

Filters = Mapping[str, list[str]]
PRUNE = frozenset(("label", "label!", "until"))

_UNIX = re.compile(r"(-?\d{1,18})(?:\.(\d{1,9}))?")


def check(filters: Filters, known: Collection[str]) -> None:
    """Refuse a filter that is none of `known`."""
    for name in filters:
        if name not in known:
            raise InvalidParameter(f"invalid filter '{name}'")


def boolean(filters: Filters, name: str, default: bool) -> bool:
    """A filter that is true or false, and only one of them.

    Raises:
        InvalidParameter: neither, or both.
    """
    if name not in filters:
        return default
    values = filters[name]
    if not values:
        raise InvalidParameter(f"invalid filter '{name}'")
    truths = [bool({"1", "true"} & set(values)), bool({"0", "false"} & set(values))]
    if truths[0] == truths[1]:
        raise InvalidParameter(f"invalid filter '{name}=[{' '.join(values)}]'")
    return truths[0]


def matches(values: Iterable[str], text: str) -> bool:
    """Whether `text` is one of the values, or one of them is a regular expression that is found in it."""
    return any(value == text or _found(value, text) for value in values)


def _found(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False  # as in Docker


def begins(values: Iterable[str], text: str) -> bool:
    """Whether `text` begins with one of the values."""
    return any(text.startswith(value) for value in values)


def labelled(values: Iterable[str], labels: Mapping[str, str]) -> bool:
    """Whether all these labels are there: `key`, or `key=value`."""
    for wanted in values:
        key, equals, value = wanted.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def keeps_labels(filters: Filters, labels: Mapping[str, str]) -> bool:
    """Whether `label` and `label!` of a prune let an object with these labels through."""
    if not labelled(filters.get("label", ()), labels):
        return False
    unwanted = filters.get("label!", ())
    return not unwanted or not labelled(unwanted, labels)


def until_ns(filters: Filters) -> int | None:
    """The moment before which a prune's object must have been made, nanoseconds since 1970; None for any.

    Raises:
        InvalidParameter: more than one, or none that can be read.
    """
    values = filters.get("until", [])
    if not values:
        return None
    if len(values) > 1:
        raise InvalidParameter("more than one until filter specified")
    (text,) = values
    with suppress(ValueError):
        if text[-1:].isalpha():
            return time.time_ns() - durations.read(text)
    seconds = _UNIX.fullmatch(text)
    if seconds is not None:
        return int(seconds[1]) * 10**9 + int((seconds[2] or "0").ljust(9, "0"))
    moment = timestamp_ns(text)
    if not moment:
        raise InvalidParameter(f'failed to parse value as time or duration: "{text}"')
    return moment


@contextmanager
def one_prune(core: Core, kind: str) -> Iterator[None]:
    """Let one prune of a kind run at a time.

    Raises:
        Conflict: there is one already.
    """
    if kind in core.pruning:
        raise Conflict("a prune operation is already running")
    core.pruning.add(kind)
    try:
        yield
    finally:
        core.pruning.discard(kind)
