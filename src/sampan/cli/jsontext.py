"""JSON in and out without the `json` package, whose import of `re` costs more than a whole `sampan ps`.

The scanner and the string encoder are the C functions that `json` itself uses; where an interpreter lacks
them, `json` does the work.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class _Scanning:
    """What the C scanner wants to know, as `json.JSONDecoder` would answer."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012 (shared on purpose: repeated member names)

    @staticmethod
    def parse_constant(name: str) -> Any:
        raise ValueError(f"invalid JSON constant {name}")


def _scanner() -> Callable[[str, int], tuple[Any, int]]:
    try:
        from _json import make_scanner
    except ImportError:
        import json

        return json.JSONDecoder(strict=False).raw_decode
    scan: Callable[[str, int], tuple[Any, int]] = make_scanner(_Scanning)  # type: ignore[arg-type]
    return scan


def _quoter() -> Callable[[str], str]:
    try:
        from _json import encode_basestring
    except ImportError:
        from json.encoder import py_encode_basestring

        return py_encode_basestring
    return encode_basestring


_scan = _scanner()
quote = _quoter()
_SPACE = " \t\r\n"


def parse_at(text: str, start: int) -> tuple[Any, int]:
    """The value that begins at or after `start`, and where it ends; ValueError when there is none."""
    while start < len(text) and text[start] in _SPACE:
        start += 1
    try:
        return _scan(text, start)
    except StopIteration as stop:
        raise ValueError(f"unexpected end of JSON input at character {stop.value}") from None
    except SystemError:  # the scanner looks its exception up in a module that nobody has imported yet
        import json.decoder

        _ = json.decoder.JSONDecodeError
        return _scan(text, start)


def parse(text: str | bytes) -> Any:
    """The one value that `text` is."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    value, end = parse_at(text, 0)
    if text[end:].strip(_SPACE):
        raise ValueError(f"text after the JSON value at character {end}")
    return value


def dump(value: Any) -> str:
    """`value` in one line, as Go's encoder spaces it.

    An object with `json_items` tells its members itself, one with `as_text` its JSON.
    """
    return _write(value, "", "", ",", ":")


def pretty(value: Any, indent: str = "    ", prefix: str = "") -> str:
    """`value` over several lines, as Go's MarshalIndent lays it out."""
    return _write(value, indent, "\n" + prefix, ",", ": ")


def html_safe(text: str) -> str:
    """JSON as Go's encoder escapes it unless told otherwise."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def number(value: int | float) -> str:
    """A number as Go writes it: no trailing `.0`."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return repr(value)


def _write(value: Any, indent: str, line: str, comma: str, colon: str) -> str:
    if isinstance(value, str):
        return quote(value)
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, (int, float)):
        return number(value)
    inner = line + indent if line else ""
    if isinstance(value, dict) or hasattr(value, "json_items"):
        items = value.items() if type(value) is dict else value.json_items()
        if items is None:
            return "null"
        members = [quote(str(key)) + colon + _write(item, indent, inner, comma, colon) for key, item in items]
        if not members:
            return "{}"
        return "{" + inner + (comma + inner).join(members) + line + "}"
    if isinstance(value, (list, tuple)):
        if not value:
            return "null" if getattr(value, "nil", False) else "[]"
        return (
            "["
            + inner
            + (comma + inner).join(_write(item, indent, inner, comma, colon) for item in value)
            + line
            + "]"
        )
    if hasattr(value, "as_text"):
        return str(value.as_text())
    raise TypeError(f"no JSON for {type(value).__name__}")
