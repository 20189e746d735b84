"""JSON with the types of Go that docker's client decodes it to: structs, maps, durations, times, pointers.

What a template prints of a value, which names it has, whether it is true and what `json` makes of it depends
on these types: `{{.HostConfig.RestartPolicy}}` is `{always 0}`, a key that a map lacks is "", a time that is
not set is no null.
"""

from __future__ import annotations

from sampan.cli.template.errors import UnknownField
from sampan.cli.template.shapes import GO_EMBEDDED, GO_NAMES, STRUCTS
from sampan.cli.template.values import nested
from sampan.oci.durations import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_ZERO = {"s": "", "b": False, "i": 0, "f": 0.0, "any": None}
_UNSET = "0001-01-01T00:00:00Z"
_ABSENT = object()


class Struct(dict):  # type: ignore[type-arg]
    """A Go struct: its fields by Go's names, in order; embedded structs under the name of their type.

    Attributes:
        kind: which one of `shapes.STRUCTS`.
        pointer: it is reached by a pointer.
    """

    __slots__ = ("kind", "pointer")

    def __init__(self, kind: str, pointer: bool) -> None:
        super().__init__()
        self.kind = kind
        self.pointer = pointer

    def __bool__(self) -> bool:
        return True

    def member(self, name: str) -> Any:
        """A field, its own or an embedded struct's."""
        found = self._find(name)
        if found is _ABSENT:
            raise UnknownField(f"can't evaluate field {name} in type {GO_NAMES.get(self.kind, self.kind)}")
        return found

    def _find(self, name: str) -> Any:
        for field, _, _, kind, embedded in STRUCTS[self.kind]:
            if embedded:
                inner = self["+" + kind]
                found = inner if GO_EMBEDDED.get(kind) == name else inner._find(name)
                if found is not _ABSENT:
                    return found
            elif field == name:
                return self[field]
        return _ABSENT

    def printed(self) -> str:
        """{a b c}"""
        return "{" + " ".join(nested(value) for value in self.values()) + "}"

    def named(self) -> str:
        """{A:a B:b C:c}, as `%+v` prints it."""
        parts = []
        for field, _, _, kind, embedded in STRUCTS[self.kind]:
            value = self["+" + kind if embedded else field]
            shown = value.named() if isinstance(value, Struct) and not value.pointer else nested(value)
            parts.append(f"{GO_EMBEDDED.get(kind, kind) if embedded else field}:{shown}")
        return ("&" if self.pointer else "") + "{" + " ".join(parts) + "}"

    def json_items(self) -> Iterator[tuple[str, Any]]:
        """What the struct is in JSON."""
        for field, json, omitted, kind, embedded in STRUCTS[self.kind]:
            if embedded:
                yield from self["+" + kind].json_items()
            elif kind != "-" and not (omitted and _is_empty(self[field])):
                yield json, self[field]


class Map(dict):  # type: ignore[type-arg]
    """A Go map; `zero` is what it has for a key that is not there. A nil one is null in JSON."""

    __slots__ = ("nil", "zero")

    def __init__(self, zero: Any, nil: bool) -> None:
        super().__init__()
        self.zero = zero
        self.nil = nil

    def json_items(self) -> Iterator[tuple[str, Any]] | None:
        """What the map is in JSON: sorted by its keys, None where it is nil."""
        return None if self.nil else iter(sorted(self.items()))


class Slice(list):  # type: ignore[type-arg]
    """A Go slice; a nil one is null in JSON."""

    __slots__ = ("nil",)

    def __init__(self, nil: bool) -> None:
        super().__init__()
        self.nil = nil


class Duration(int):
    """Nanoseconds that print as 1m30s."""

    __slots__ = ()

    def __str__(self) -> str:
        return shown(int(self))

    printed = __str__


class Time(str):
    """A moment, as JSON has it, that prints as Go prints a time."""

    __slots__ = ()

    def printed(self) -> str:
        """2024-01-02 03:04:05.000000006 +0000 UTC"""
        text = str.__str__(self) or _UNSET
        moment, zone = (text[:-1], "Z") if text.endswith("Z") else (text[:-6], text[-6:])
        day, _, clock = moment.partition("T")
        whole, dot, digits = clock.partition(".")
        digits = digits.rstrip("0")
        clock = f"{whole}.{digits}" if dot and digits else whole
        return f"{day} {clock} +0000 UTC" if zone == "Z" else f"{day} {clock} {zone.replace(':', '')}"


class Nothing:
    """Go's `struct {}`."""

    def printed(self) -> str:
        """{}"""
        return "{}"

    def json_items(self) -> Iterator[tuple[str, Any]]:
        """{}"""
        return iter(())


NOTHING = Nothing()


def decode(kind: str, value: Any) -> Any:
    """A JSON value as the type `kind` (see `shapes`); of another shape it is left as it is."""
    if kind.startswith("*"):
        if value is None:
            return None
        found = decode(kind[1:], value)
        if isinstance(found, Struct):
            found.pointer = True
        return found
    if kind.startswith("[]"):
        items = Slice(value is None)
        items.extend(decode(kind[2:], item) for item in value or ())
        return items
    if kind.startswith("{}"):
        pairs = Map(zero(kind[2:]), value is None)
        pairs.update({key: decode(kind[2:], item) for key, item in (value or {}).items()})
        return pairs
    if kind == "n":
        return NOTHING
    if kind == "d":
        return Duration(value or 0)
    if kind == "t":
        return Time(_shortest(value) if isinstance(value, str) and value else _UNSET)
    if kind == "-":
        return ""
    if kind in _ZERO:
        return _ZERO[kind] if value is None else value
    return _struct(kind, value if isinstance(value, dict) else {})


def _shortest(moment: str) -> str:
    """A time as Go writes it: without zeros at the end of its fraction."""
    head, dot, rest = moment.partition(".")
    if not dot:
        return moment
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    short = digits.rstrip("0")
    return head + (f".{short}" if short else "") + rest[len(digits) :]


def _struct(kind: str, value: dict[str, Any]) -> Struct:
    made = Struct(kind, False)
    for field, json, _, inner, embedded in STRUCTS[kind]:
        if embedded:
            made["+" + inner] = _struct(inner.lstrip("*"), value)
            made["+" + inner].pointer = inner.startswith("*")
        else:
            made[field] = decode(inner, value.get(json))
    return made


def zero(kind: str) -> Any:
    """What Go has for a value that is not there."""
    return None if kind.startswith("*") else decode(kind, None)


def _is_empty(value: Any) -> bool:
    return not isinstance(value, Struct) and not value
