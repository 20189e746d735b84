"""The functions of a template: Go's own and docker's."""

from __future__ import annotations

from sampan.cli.template.errors import TemplateError, WrongType
from sampan.cli.template.typed import Map, Struct
from sampan.cli.template.values import NO_VALUE, compare, inner, printf, text, truth, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise WrongType(f"wrong type for value; expected string; got {type_name(value)}")
    return value


def index(value: Any, *keys: Any) -> Any:
    """`index x 1 2`: x[1][2]."""
    for key in keys:
        if value is None:
            raise TemplateError("index of untyped nil")
        if isinstance(value, dict) and not isinstance(value, Struct):
            value = value.get(key, value.zero if isinstance(value, Map) else NO_VALUE)
            if value is None:
                value = NO_VALUE
            continue
        if not isinstance(value, (list, str)):
            raise TemplateError(f"can't index item of type {type_name(value)}")
        if not isinstance(key, int) or isinstance(key, bool):
            raise TemplateError(f"cannot index slice/array with type {type_name(key)}")
        if key == len(value):  # Go's own check lets it through to where it cannot be had
            kind = "string" if isinstance(value, str) else "slice"
            raise TemplateError(f"reflect: {kind} index out of range")
        if not 0 <= key < len(value):
            raise TemplateError(f"index out of range: {key}")
        value = value.encode()[key] if isinstance(value, str) else value[key]
    return value


def slice_(value: Any, *bounds: Any) -> Any:
    """`slice x 1 2`: x[1:2]."""
    if not isinstance(value, (list, str)):
        raise TemplateError(f"can't slice item of type {type_name(value)}")
    for bound in bounds:
        if not isinstance(bound, int) or not 0 <= bound <= len(value):
            raise TemplateError(f"index out of range: {bound}")
    low = bounds[0] if bounds else 0
    high = bounds[1] if len(bounds) > 1 else len(value)
    if low > high:
        raise TemplateError(f"invalid slice index: {low} > {high}")
    return value[low:high]


def length(value: Any) -> int:
    """`len x`."""
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, (list, dict)) and not isinstance(value, Struct):
        return len(value)
    raise TemplateError("len of nil pointer" if value is None else f"len of type {type_name(value)}")


def print_(*values: Any) -> str:
    """Go's Sprint: a blank between two operands of which none is a string."""
    result = ""
    for place, value in enumerate(values):
        if place and not isinstance(value, str) and not isinstance(values[place - 1], str):
            result += " "
        result += inner(value)
    return result


def println(*values: Any) -> str:
    """Go's Sprintln."""
    return " ".join(map(inner, values)) + "\n"


def equal(first: Any, *others: Any) -> bool:
    """`eq x y z`: x is y or z."""
    if not others:
        raise TemplateError("missing argument for comparison")
    return any(compare("eq", first, other) for other in others)


def json(value: Any) -> str:
    """One line of JSON."""
    from sampan.cli.jsontext import dump

    return dump(value)


def truncate(value: str, size: int) -> str:
    """At most so many characters."""
    return _string(value)[:size]


def pad(value: str, before: int, after: int) -> str:
    """Blanks around a text that is not empty."""
    return " " * before + value + " " * after if _string(value) else value


def title(value: str) -> str:
    """Each word with a capital; what is no letter, digit, quote or underline ends a word."""
    found, before = "", " "
    for one in _string(value):
        found += one if before.isalnum() or before in "_'" else one.upper()
        before = one
    return found


def js(*values: Any) -> str:
    """Text safe in a JavaScript string."""
    found = ""
    for one in print_(*values):
        if one in "\\'\"":
            found += "\\" + one
        elif one in "<>&=" or ord(one) < 32:
            found += f"\\u{ord(one):04X}"
        else:
            found += one
    return found


def call(*values: Any) -> Any:
    """`call f x`: templates have no functions as values here."""
    raise TemplateError(f"non-function of type {type_name(values[0]) if values else '<nil>'}")


def html(*values: Any) -> str:
    """Text safe in HTML."""
    found = print_(*values)
    for plain, safe in (("&", "&amp;"), ("'", "&#39;"), ('"', "&#34;"), ("<", "&lt;"), (">", "&gt;")):
        found = found.replace(plain, safe)
    return found


def urlquery(*values: Any) -> str:
    """Text safe in a query."""
    from sampan.cli.client import escape

    return escape(print_(*values)).replace("%20", "+")


def _join(values: Any, separator: str) -> str:
    if isinstance(values, str):
        raise WrongType("wrong type for value; expected []string; got string")
    return separator.join(text(value) for value in values or ())


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": truth,
    "or": truth,
    "not": lambda value: not truth(value),
    "len": length,
    "index": index,
    "slice": slice_,
    "print": print_,
    "printf": lambda form, *values: printf(_string(form), values),
    "println": println,
    "html": html,
    "js": js,
    "call": call,
    "urlquery": urlquery,
    "eq": equal,
    "ne": lambda left, right: not compare("eq", left, right),
    "lt": lambda left, right: compare("lt", left, right),
    "le": lambda left, right: compare("le", left, right),
    "gt": lambda left, right: compare("gt", left, right),
    "ge": lambda left, right: compare("ge", left, right),
    "json": json,
    "split": lambda value, separator: _string(value).split(separator) if separator else list(_string(value)),
    "join": _join,
    "lower": lambda value: _string(value).lower(),
    "upper": lambda value: _string(value).upper(),
    "title": title,
    "pad": pad,
    "truncate": truncate,
}

# In the header of a table the functions leave the titles alone.
HEADER_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **FUNCTIONS,
    "json": lambda value: value,
    "lower": lambda value: value,
    "upper": lambda value: value,
    "title": lambda value: value,
    "truncate": lambda value, size: value,
    "split": lambda value, separator: value,
    "join": lambda value, separator: value,
}
