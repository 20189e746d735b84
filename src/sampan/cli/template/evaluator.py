"""A parsed template and data to text."""

from __future__ import annotations

from sampan.cli.template.errors import TemplateError, UnknownField, WrongType
from sampan.cli.template.typed import Map, Struct
from sampan.cli.template.values import NO_VALUE, text, truth, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from sampan.cli.template.parser import Node

_DEEPEST = 100
_COUNTS = {
    **dict.fromkeys(("len", "not", "json", "lower", "upper", "title"), 1),
    **dict.fromkeys(("ne", "lt", "le", "gt", "ge", "split", "join", "truncate"), 2),
    "pad": 3,
}


class Break(Exception):
    """{{break}}"""


class Continue(Exception):
    """{{continue}}"""


class Evaluator:
    """Renders one template.

    Args:
        nodes: what the parser made.
        functions: by name; called with evaluated arguments.
        fields: looks a name up in an object that is no JSON value; raises UnknownField.
        strict: the data is plain JSON, and a member that is not there is a mistake.
        templates: those that `define` and `block` have named.
        name: of the template, as errors tell it.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        functions: Mapping[str, Callable[..., Any]],
        fields: Callable[[Any, str], Any] | None = None,
        strict: bool = True,
        templates: Mapping[str, Sequence[Node]] | None = None,
        name: str = "",
    ) -> None:
        self._nodes = nodes
        self._functions = functions
        self._fields = fields
        self._strict = strict
        self._templates = templates or {}
        self._name = name
        self._depth = 0
        self._out: list[str] = []

    @property
    def partial(self) -> str:
        """What was rendered before a failure."""
        return "".join(self._out)

    def render(self, data: Any) -> str:
        """The text for `data`.

        Raises:
            TemplateError: in Go's words, with the place.
        """
        self._out = []
        self._walk(self._nodes, data, [("$", data)])
        return "".join(self._out)

    def _walk(self, nodes: Sequence[Node], dot: Any, scope: list[tuple[str, Any]]) -> None:
        for node in nodes:
            kind = node.kind
            if kind == "text":
                self._out.append(node.text)
            elif kind == "pipe":
                value = self._pipe(node, dot, scope)
                if not node.declared:
                    self._out.append(text(value))
            elif kind == "template":
                self._named(node, dot, scope)
            elif kind == "break":
                raise Break
            elif kind == "continue":
                raise Continue
            else:
                self._block(node, dot, scope)

    def _named(self, node: Node, dot: Any, scope: list[tuple[str, Any]]) -> None:
        """{{template "name" value}}"""
        body = self._templates.get(node.text)
        if body is None:
            raise self._error(node, f'template "{node.text}" not defined', node.source)
        value = self._pipe(node.pipe, dot, scope) if node.pipe is not None else None
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error(node, f"exceeded maximum template depth ({_DEEPEST})", node.source)
        self._walk(body, value, [("$", value)])
        self._depth -= 1

    def _block(self, node: Node, dot: Any, scope: list[tuple[str, Any]]) -> None:
        depth = len(scope)
        assert node.pipe is not None
        value = self._pipe(node.pipe, dot, scope, looping=node.kind == "range")
        if node.kind == "range":
            self._range(node, value, dot, scope)
        elif truth(value):
            self._walk(node.body, value if node.kind == "with" else dot, scope)
        else:
            self._walk(node.other, dot, scope)
        del scope[depth:]

    def _range(self, node: Node, value: Any, dot: Any, scope: list[tuple[str, Any]]) -> None:
        pairs: list[tuple[Any, Any]]
        if isinstance(value, dict) and not isinstance(value, Struct):
            pairs = [(key, value[key]) for key in sorted(value)]
        elif isinstance(value, (list, tuple)):
            pairs = list(enumerate(value))
        elif isinstance(value, int) and not isinstance(value, bool):
            pairs = [(index, index) for index in range(value)]
        elif value is None or value is NO_VALUE:
            pairs = []
        else:
            assert node.pipe is not None
            raise self._error(node.pipe, f"range can't iterate over {text(value)}", _source(node.pipe))
        if not pairs:
            self._walk(node.other, dot, scope)
            return
        assert node.pipe is not None
        names = node.pipe.declared
        for key, item in pairs:
            depth = len(scope)
            if len(names) == 1:
                scope.append((names[0], item))
            elif len(names) == 2:
                scope += [(names[0], key), (names[1], item)]
            try:
                self._walk(node.body, item, scope)
            except Break:
                del scope[depth:]
                return
            except Continue:
                pass
            del scope[depth:]

    def _pipe(self, node: Node, dot: Any, scope: list[tuple[str, Any]], looping: bool = False) -> Any:
        value: Any = None
        for index, operands in enumerate(node.operands):
            final = [value] if index else []
            value = self._command(operands, dot, scope, final)
        if node.declared and not looping:
            if node.assign:
                for place in range(len(scope) - 1, -1, -1):
                    if scope[place][0] == node.declared[0]:
                        scope[place] = (node.declared[0], value)
                        break
            else:
                scope.append((node.declared[0], value))
        return value

    def _command(self, operands: list[Node], dot: Any, scope: list[tuple[str, Any]], final: list[Any]) -> Any:
        first = operands[0]
        if first.kind == "call":
            return self._call(first, operands, dot, scope, final)
        if first.kind == "nil":
            raise self._error(first, "nil is not a command", "nil")
        if first.kind == "field" and len(first.names) == 1 and hasattr(dot, "methods"):
            method = dot.methods.get(first.names[0])
            if method is not None:
                arguments = [self._operand(one, dot, scope) for one in operands[1:]] + final
                if len(arguments) != 1:
                    name = first.names[0]
                    message = f"wrong number of args for {name}: want 1 got {len(arguments)}"
                    raise self._error(first, message, first.source)
                return method(*arguments)
        value = self._operand(first, dot, scope)
        if len(operands) > 1 or final:
            if first.kind == "field" and self._fields is not None:
                count = len(operands) - 1 + len(final)
                text_ = f"wrong number of args for {first.names[-1]}: want 0 got {count}"
                raise self._error(first, text_, first.source)
            if first.kind in ("field", "variable", "chain") and first.names:
                raise self._error(
                    first, f"{first.names[-1]} has arguments but cannot be invoked as function", first.source
                )
            raise self._error(first, f"can't give argument to non-function {first.source}", first.source)
        return value

    def _call(
        self, first: Node, operands: list[Node], dot: Any, scope: list[tuple[str, Any]], final: list[Any]
    ) -> Any:
        name = first.text
        source = " ".join(_source(one) for one in operands)
        if name in ("and", "or"):
            value: Any = None
            count = len(operands) - 1 + len(final)
            if not count:
                raise self._error(first, f"wrong number of args for {name}: want at least 1 got 0", name)
            for one in operands[1:]:
                value = self._operand(one, dot, scope)
                if truth(value) == (name == "or"):
                    return value
            return final[0] if final else value
        arguments = [self._operand(one, dot, scope) for one in operands[1:]] + final
        try:
            return self._functions[name](*arguments)
        except WrongType as error:
            where = operands[1] if len(operands) > 1 else first
            raise self._error(where, str(error), _source(where)) from None
        except TemplateError as error:
            raise self._error(first, f"error calling {name}: {error}", source) from None
        except (TypeError, AttributeError):
            wanted = _COUNTS.get(name)
            if wanted is not None and wanted != len(arguments):
                message = f"wrong number of args for {name}: want {wanted} got {len(arguments)}"
            else:
                message = f"wrong type of args for {name}"
            raise self._error(first, message, name) from None

    def _operand(self, node: Node, dot: Any, scope: list[tuple[str, Any]]) -> Any:
        kind = node.kind
        if kind == "literal":
            return node.value
        if kind == "dot":
            return dot
        if kind == "field":
            return self._path(node, dot, node.names)
        if kind == "variable":
            for name, value in reversed(scope):
                if name == node.text:
                    return self._path(node, value, node.names)
            raise self._error(node, f"undefined variable: {node.text}", node.source)
        if kind == "chain":
            assert node.pipe is not None
            return self._path(node, self._operand(node.pipe, dot, scope), node.names)
        if kind == "pipe":
            return self._pipe(node, dot, scope)
        if kind == "nil":
            return None
        return self._call(node, [node], dot, scope, [])

    def _path(self, node: Node, value: Any, names: Sequence[str]) -> Any:
        for name in names:
            try:
                value = self._member(value, name)
            except UnknownField as error:
                raise self._error(node, str(error), node.source) from None
        return value

    def _member(self, value: Any, name: str) -> Any:
        if isinstance(value, Struct):
            return value.member(name)
        if isinstance(value, Map) or (isinstance(value, dict) and not self._strict):
            return value.get(name, NO_VALUE)
        if isinstance(value, dict):
            if name in value:
                return value[name]
            raise UnknownField(f'map has no entry for key "{name}"')
        if value is None or value is NO_VALUE:
            raise UnknownField(f"nil pointer evaluating interface {{}}.{name}")
        if self._fields is not None:
            return self._fields(value, name)
        kind = "interface {}" if self._strict else type_name(value)
        raise UnknownField(f"can't evaluate field {name} in type {kind}")

    def _error(self, node: Node, message: str, source: str) -> TemplateError:
        where = f"template: {self._name}:{node.line}:{node.column}"
        return TemplateError(f'{where}: executing "{self._name}" at <{source}>: {message}')


def _source(node: Node) -> str:
    if node.kind == "pipe" and node.source != "(...)":
        return " | ".join(" ".join(_source(one) for one in command) for command in node.operands)
    if node.kind == "pipe":
        return "(" + " | ".join(" ".join(_source(one) for one in command) for command in node.operands) + ")"
    return node.source or node.text
