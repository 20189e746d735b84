"""How Go sees and prints values: truth, comparison, `%v`, printf."""

from __future__ import annotations

from sampan.cli.template.errors import TemplateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class NoValue:
    """What a map has for a key that is not there."""

    def __bool__(self) -> bool:
        return False


NO_VALUE = NoValue()


def truth(value: Any) -> bool:
    """False, 0, nil and anything empty are not true."""
    return bool(value)


def text(value: Any) -> str:
    """A value as `%v` prints it."""
    return "<no value>" if value is NO_VALUE else inner(value)


def inner(value: Any) -> str:
    """A value inside another one."""
    printed = getattr(value, "printed", None)
    if printed is not None:
        return str(printed())
    if value is None:
        return "<nil>"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{nested(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(map(nested, value)) + "]"
    return str(value)


def nested(value: Any) -> str:
    """A value within a struct, a map or a slice: of a pointer, Go shows the address, which tells nothing."""
    return "0xc000000000" if getattr(value, "pointer", False) else inner(value)


def _float(value: float) -> str:
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    shown = repr(value)
    mantissa, e, exponent = shown.partition("e")
    return (
        f"{mantissa}e{exponent[0] if exponent[0] in '+-' else '+'}{exponent.lstrip('+-'):0>2}" if e else shown
    )


def type_name(value: Any) -> str:
    """Go's name for the type of a value that came from JSON."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, str):
        return "string"
    if isinstance(value, dict):
        return "map[string]interface {}"
    return "[]interface {}"


def printf(form: str, arguments: Sequence[Any]) -> str:
    """Go's Sprintf for the verbs that templates use."""
    result, index, position = [], 0, 0
    while position < len(form):
        start = form.find("%", position)
        if start < 0:
            result.append(form[position:])
            break
        result.append(form[position:start])
        end = start + 1
        while end < len(form) and form[end] in "+-# 0123456789.*":
            end += 1
        verb = form[end : end + 1]
        spec = form[start + 1 : end]
        position = end + 1
        if verb == "%":
            result.append("%")
            continue
        if not verb:
            result.append("%!(NOVERB)")
            break
        while "*" in spec:
            spec = spec.replace("*", str(arguments[index] if index < len(arguments) else 0), 1)
            index += 1
        if index >= len(arguments):
            result.append(f"%!{verb}(MISSING)")
            continue
        result.append(_verb(verb, spec, arguments[index]))
        index += 1
    if index < len(arguments):
        rest = ", ".join(f"{type_name(one)}={inner(one)}" for one in arguments[index:])
        result.append(f"%!(EXTRA {rest})")
    return "".join(result)


def _verb(verb: str, spec: str, value: Any) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if verb == "v" and "+" in spec and hasattr(value, "named"):
        return str(value.named())
    if verb == "v" and getattr(value, "pointer", False):
        return "&" + inner(value)
    if verb in "vs" and not (verb == "s" and (number or isinstance(value, bool))):
        shown = inner(value)
        plain = spec.lstrip("+#")
        if number:
            return f"%{plain}s" % shown
        return f"%{plain.lstrip('0') if not plain.startswith('0.') else plain}s" % shown
    if verb == "q" and isinstance(value, str):
        from sampan.cli.jsontext import quote

        return f"%{spec}s" % quote(value)
    if verb == "t" and isinstance(value, bool):
        return f"%{spec}s" % inner(value)
    if verb == "T":
        return f"%{spec}s" % type_name(value)
    if verb in "dxXoc" and isinstance(value, int) and not isinstance(value, bool):
        return f"%{spec}{verb}" % value
    if verb == "b" and isinstance(value, int) and not isinstance(value, bool):
        return f"%{spec}s" % f"{value:b}"
    if verb in "xX" and isinstance(value, str):
        return f"%{spec}s" % value.encode().hex()
    if verb in "feEgG" and isinstance(value, float):
        return f"%{spec}{verb}" % value
    return f"%!{verb}({type_name(value)}={inner(value)})"


def compare(name: str, left: Any, right: Any) -> bool:
    """`lt`, `le`, `gt`, `ge`, and one step of `eq`."""
    kinds = (_kind(left), _kind(right))
    if name == "eq" and (left is None or right is None):
        return left is right
    if kinds[0] != kinds[1]:
        raise TemplateError("incompatible types for comparison")
    if kinds[0] == "":
        raise TemplateError(
            "non-comparable type " + type_name(left) if name == "eq" else "invalid type for comparison"
        )
    if name == "eq":
        return bool(left == right)
    if kinds[0] == "bool":
        raise TemplateError("invalid type for comparison")
    return bool(
        left < right
        if name == "lt"
        else left <= right
        if name == "le"
        else left > right
        if name == "gt"
        else left >= right
    )


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "int" if isinstance(value, int) else "float"
    return "string" if isinstance(value, str) else ""
