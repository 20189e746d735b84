"""Docker's filters for lists of volumes: `name`, `label`, `driver`, `dangling`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sampan.errors import InvalidParameter
from sampan.volumes.volume import Volume


def matches(volume: Volume, filters: Mapping[str, Sequence[str]], dangling: bool) -> bool:
    """Whether a volume passes.

    Args:
        filters: `name` (a part of it), `label` (`key` or `key=value`, all must match), `driver`, `dangling`;
            several values of another filter are alternatives.
        dangling: whether no container refers to it.

    Raises:
        InvalidParameter: for a filter that does not exist, or a `dangling` that is neither true nor false.
    """
    for name, values in filters.items():
        if name == "name":
            passed = any(value == volume.name or _found(value, volume.name) for value in values)
        elif name == "driver":
            passed = volume.driver in values
        elif name == "label":
            passed = all(_has_label(volume, value) for value in values)
        elif name == "label!":
            passed = not all(_has_label(volume, value) for value in values)
        elif name == "dangling":
            passed = dangling == _boolean(name, values)
        else:
            raise InvalidParameter(f"invalid filter '{name}'")
        if not passed:
            return False
    return True


def _has_label(volume: Volume, wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in volume.labels and (not equals or volume.labels[key] == value)


def _found(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False  # as in Docker


def _boolean(name: str, values: Sequence[str]) -> bool:
    truths = [bool({"1", "true"} & set(values)), bool({"0", "false"} & set(values))]
    if truths[0] == truths[1]:
        raise InvalidParameter(f"invalid filter '{name}=[{' '.join(values)}]'")
    return truths[0]
