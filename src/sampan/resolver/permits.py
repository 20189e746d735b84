"""Which names a container with an egress policy may have resolved."""

from __future__ import annotations

from collections.abc import Iterable

from sampan.resolver.wire import encode_name


class Permits:
    """Names, everything below some names, or all.

    Args:
        patterns: in lower case: `name`, `*.name` or `*`.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        given = list(patterns)
        self._all = "*" in given
        self._names = {encode_name(one) for one in given if not one.startswith("*")}
        self._above = {encode_name(one[2:]) for one in given if one.startswith("*.")}

    def allow(self, key: bytes) -> bool:
        """Whether a name is among them, given as on the wire and in lower case."""
        if self._all or key in self._names:
            return True
        at = 0
        while self._above and key[at]:
            at += key[at] + 1
            if key[at:] in self._above:
                return True
        return False
