"""Dataclasses to JSON objects and back, checked: the one place where field names meet their JSON spelling.

A field `cpuset_cpus` is `CpusetCpus` on the wire unless its metadata says `{"json": "…"}`. Decoding is
strict: a value of the wrong type, or a member that no field takes, is refused by name; members that are null,
false, 0, "" or empty say nothing and are let pass, as Docker's clients send every field they know.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from functools import cache
from typing import Any, TypeVar

from sampan.errors import InvalidParameter

T = TypeVar("T")


def json_name(field: dataclasses.Field[Any]) -> str:
    """The JSON member of a dataclass field."""
    given: str | None = field.metadata.get("json")
    return given or "".join(word.capitalize() for word in field.name.split("_"))


@cache
def _layout(cls: type) -> tuple[tuple[str, str, Any], ...]:
    hints = typing.get_type_hints(cls)
    return tuple((field.name, json_name(field), hints[field.name]) for field in dataclasses.fields(cls))


_SCALARS = frozenset((str, int, bool, float, type(None)))


def encode(record: Any) -> Any:
    """A value made of dataclasses, lists, dicts and scalars as plain JSON values."""
    if type(record) in _SCALARS:  # most are, and each inspect has a hundred of them
        return record
    if isinstance(record, dict):
        return {key: encode(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [encode(value) for value in record]
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        shown = {}
        for attribute, name, _ in _layout(type(record)):
            value = getattr(record, attribute)
            shown[name] = value if type(value) in _SCALARS else encode(value)
        return shown
    return record


def decode(cls: type[T], value: Any, where: str = "") -> T:
    """A `cls` from a JSON object.

    Args:
        cls: the dataclass.
        value: what `json.loads` gave.
        where: the path of `value` in the request, for messages.

    Raises:
        InvalidParameter: for a wrong type or a member that means something and has no field.
    """
    if not isinstance(value, dict):
        raise InvalidParameter(f"{where or cls.__name__}: expected an object, not {_describe(value)}")
    arguments: dict[str, Any] = {}
    known = set()
    folded = {key.lower(): key for key in value}  # Go matches members without regard to case
    for attribute, name, hint in _layout(typing.cast("Any", cls)):
        key = name if name in value else folded.get(name.lower())
        if key is None:
            continue
        known.add(key)
        item = value[key]
        if item is None:
            continue
        arguments[attribute] = _convert(hint, item, f"{where}.{name}" if where else name)
    for key, item in value.items():
        if key not in known and item not in (None, False, 0, "", [], {}):
            raise InvalidParameter(f"{where + '.' if where else ''}{key}: unknown field")
    return cls(**arguments)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if type(value) is hint:
        return value
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert(next(arm for arm in typing.get_args(hint) if arm is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return decode(typing.cast("type[Any]", hint), value, where)
    if origin is list:
        if not isinstance(value, list):
            raise InvalidParameter(f"{where}: expected a list, not {_describe(value)}")
        (inner,) = typing.get_args(hint)
        return [_convert(inner, item, f"{where}[{index}]") for index, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise InvalidParameter(f"{where}: expected an object, not {_describe(value)}")
        _, inner = typing.get_args(hint)
        return {
            key: None if item is None else _convert(inner, item, f"{where}.{key}")
            for key, item in value.items()
        }
    if hint is Any:
        return value
    if hint is float and isinstance(value, int):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise InvalidParameter(f"{where}: expected {_NAMES.get(hint, hint.__name__)}, not {_describe(value)}")
    return value


_NAMES = {str: "a text", int: "a number", bool: "true or false", float: "a number"}


def _describe(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return kinds[type(value)]
