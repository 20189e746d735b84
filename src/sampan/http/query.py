"""The query part of a URL, read by Docker's rules (what counts as true, both forms of `filters`)."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl

from sampan.errors import InvalidParameter

_FALSE = frozenset(("", "0", "no", "false", "none"))


class Query:
    """Parameters of one request.

    Args:
        text: the part behind the `?`, still percent-encoded.
    """

    __slots__ = ("_values",)

    def __init__(self, text: str = "") -> None:
        self._values: dict[str, list[str]] = {}
        if text:
            try:
                pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=1000)
            except ValueError:
                raise InvalidParameter("the query has more than 1000 parameters") from None
            for name, value in pairs:
                self._values.setdefault(name, []).append(value)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def names(self) -> set[str]:
        """The names of all parameters given."""
        return set(self._values)

    def get(self, name: str, default: str = "") -> str:
        """The first value of `name`."""
        values = self._values.get(name)
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        """Every value of `name`, in order."""
        return list(self._values.get(name, ()))

    def flag(self, name: str, default: bool = False) -> bool:
        """Whether `name` is on: anything but "", 0, no, false, none is; `default` when it is not given."""
        if name not in self._values:
            return default
        return self.get(name).strip().lower() not in _FALSE

    def integer(self, name: str, default: int = 0) -> int:
        """`name` as a number, `default` when it is missing or empty.

        Raises:
            InvalidParameter: it is not a number of 64 bits.
        """
        text = self.get(name).strip()
        if not text:
            return default
        try:
            if len(text) > 20:
                raise ValueError
            number = int(text)
        except ValueError:
            raise InvalidParameter(f"{name}: {text[:40]!r} is not a number") from None
        if not -(1 << 63) <= number < 1 << 63:
            raise InvalidParameter(f"{name}: {text} is out of range")
        return number

    def filters(self, name: str = "filters") -> dict[str, list[str]]:
        """The filters, from `{"label": ["a", "b"]}` or the newer `{"label": {"a": true, "b": true}}`.

        Raises:
            InvalidParameter: it is neither of the two.
        """
        text = self.get(name)
        if not text:
            return {}
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise InvalidParameter("invalid filter: not JSON") from None
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise InvalidParameter("invalid filter: expected an object of lists")
        result: dict[str, list[str]] = {}
        for key, items in value.items():
            if not isinstance(items, (list, dict)) or not all(isinstance(item, str) for item in items):
                raise InvalidParameter(f"invalid filter: {key}: expected a list of texts")
            result[key] = list(items)
        return result
