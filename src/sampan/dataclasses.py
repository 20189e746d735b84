"""Dataclasses that are made quickly: the daemon has two hundred, and whoever starts it waits for them.

For the type checker `dataclass` is the standard library's. At run time it differs in two things:

- Only `__init__` is written out and compiled for each class. Python 3.11 and 3.12 do so with up to six,
  one by one and with annotations; here the others are functions over the fields' names.
- `frozen` makes hashable, and is otherwise the type checker's to hold. Python would have the fields of each
  instance set in a roundabout way that takes twice the time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(*, eq: bool = True, frozen: bool = False, slots: bool = False) -> Callable[[type], type]:
        """As `dataclasses.dataclass`, but for what the module says."""

        def made(described: type) -> type:
            cls = dataclasses.dataclass(described, init=False, repr=False, eq=False, slots=slots)
            methods = {"__init__": _initializer(cls), "__repr__": _represent}
            if eq:
                methods |= _comparing(cls, frozen)
            for name, method in methods.items():
                if name not in vars(described):
                    setattr(cls, name, method)
            return cls

        return made


def _initializer(cls: Any) -> Callable[..., None]:
    """`__init__`, which sets the fields in their order and calls `__post_init__` if there is one.

    Raises:
        TypeError, SyntaxError: a field is to be left out of it, or one without a default follows one with.
    """
    known: dict[str, Any] = {"_ABSENT": object()}
    parameters, lines = ["self"], []
    for field in dataclasses.fields(cls):
        name = value = field.name
        if not field.init or field.kw_only:
            raise TypeError(f"{cls.__qualname__}.{name}: only ordinary parameters are made here")
        if field.default_factory is not dataclasses.MISSING:
            known[f"_make_{name}"] = field.default_factory
            value = f"_make_{name}() if {name} is _ABSENT else {name}"
            parameters.append(f"{name}=_ABSENT")
        elif field.default is not dataclasses.MISSING:
            known[f"_default_{name}"] = field.default
            parameters.append(f"{name}=_default_{name}")
        else:
            parameters.append(name)
        lines.append(f" self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append(" self.__post_init__()")
    exec("\n".join([f"def __init__({', '.join(parameters)}):", *(lines or [" pass"])]), known)
    made: Callable[..., None] = known["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


@recursive_repr()
def _represent(self: Any) -> str:
    shown = (
        f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr
    )
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _comparing(cls: Any, hashable: bool) -> dict[str, Callable[..., Any] | None]:
    """`__eq__` and `__hash__` by what the fields hold."""
    names = [field.name for field in dataclasses.fields(cls) if field.compare]
    values: Callable[[Any], object] = attrgetter(*names) if names else lambda _: ()

    def equal(self: Any, other: Any) -> bool:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def hashed(self: Any) -> int:
        return hash(values(self))

    return {"__eq__": equal, "__hash__": hashed if hashable else None}


__all__ = ["dataclass"]
