"""Tokens to a tree: text, pipelines, if/range/with, define and template are Go's; nodes are small objects."""

from __future__ import annotations

from sampan.cli.template.errors import TemplateError
from sampan.cli.template.lexer import Token, tokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container


class Node:
    """One piece of a template.

    kind and what it holds:
        text        text
        pipe        commands (each a list of operands), declared variables, whether they are assigned
        field       names after the dot
        variable    name, then fields
        chain       operand, then fields
        call        a function's name
        dot, nil, literal
        if, range, with     pipe, body, other
        break, continue
    """

    __slots__ = (
        "assign",
        "body",
        "column",
        "declared",
        "kind",
        "line",
        "names",
        "operands",
        "other",
        "pipe",
        "source",
        "text",
        "value",
    )

    def __init__(self, kind: str, token: Token, text: str = "") -> None:
        self.kind = kind
        self.line = token.line
        self.column = token.column
        self.text = text
        self.source = text
        self.value: object = None
        self.names: list[str] = []
        self.operands: list[list[Node]] = []
        self.declared: list[str] = []
        self.assign = False
        self.pipe: Node | None = None
        self.body: list[Node] = []
        self.other: list[Node] = []


_BLOCKS = ("if", "range", "with")


class Parser:
    """Parses one template."""

    def __init__(self, source: str, functions: Container[str], name: str = "") -> None:
        self.name = name
        self.templates: dict[str, list[Node]] = {}  # those that `define` and `block` name
        try:
            self._tokens = tokens(source)
        except TemplateError as error:
            raise TemplateError(str(error).replace("template: :", f"template: {name}:", 1)) from None
        self._at = 0
        self._functions = functions
        self._variables = ["$"]
        self._loops = 0

    def parse(self) -> list[Node]:
        """The whole template."""
        body, end = self._list()
        if end is not None:
            raise self._fail(end, f"unexpected {{{{{end.text}}}}}")
        return body

    def _fail(self, token: Token | None, message: str) -> TemplateError:
        line = token.line if token else (self._tokens[-1].line if self._tokens else 1)
        return TemplateError(f"template: {self.name}:{line}: {message}")

    def _peek(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _list(self) -> tuple[list[Node], Token | None]:
        """Nodes until `end` or `else`, and that word."""
        nodes: list[Node] = []
        while True:
            token = self._peek()
            if token is None:
                return nodes, None
            self._next()
            if token.kind == "text":
                nodes.append(Node("text", token, token.text))
                continue
            word = self._peek()
            assert word is not None
            if word.kind == "word" and word.text in ("end", "else"):
                self._next()
                return nodes, word
            if word.kind == "word" and word.text in _BLOCKS:
                self._next()
                nodes.append(self._block(word))
            elif word.kind == "word" and word.text == "define":
                self._next()
                self._define(word)
            elif word.kind == "word" and word.text in ("template", "block"):
                self._next()
                nodes.append(self._template(word))
            elif word.kind == "word" and word.text in ("break", "continue"):
                self._next()
                if not self._loops:
                    raise self._fail(word, f"{{{{{word.text}}}}} outside {{{{range}}}}")
                self._close(word.text)
                nodes.append(Node(word.text, word))
            elif word.kind == "close":
                raise self._fail(word, "missing value for command")
            else:
                nodes.append(self._pipeline("command", "close"))

    def _title(self, word: Token) -> str:
        """The name of a template, in quotes."""
        token = self._next()
        if token.kind != "string":
            raise self._fail(token, f"unexpected {_name(token)} in {word.text} clause")
        return str(token.value)

    def _body(self, name: str) -> None:
        """The nodes up to `end`, as a template of that name; it knows no variables of the outside."""
        variables, self._variables = self._variables, ["$"]
        loops, self._loops = self._loops, 0
        body, end = self._list()
        if end is None:
            raise self._fail(None, "unexpected EOF")
        if end.text != "end":
            raise self._fail(end, "unexpected {{else}}")
        self._close("end")
        self._variables, self._loops = variables, loops
        self.templates[name] = body

    def _define(self, word: Token) -> None:
        name = self._title(word)
        self._close("define clause")
        self._body(name)

    def _template(self, word: Token) -> Node:
        node = Node("template", self._peek() or word)
        node.text = self._title(word)
        following = self._peek()
        if following is not None and following.kind != "close":
            node.pipe = self._pipeline(f"{word.text} clause", "close")
        else:
            self._close(f"{word.text} clause")
        node.source = f'{{{{template "{node.text}"}}}}'
        if word.text == "block":
            self._body(node.text)
        return node

    def _close(self, context: str) -> None:
        token = self._next()
        if token.kind != "close":
            raise self._fail(token, f"unexpected {_name(token)} in {context}")

    def _block(self, word: Token) -> Node:
        node = Node(word.text, word)
        depth = len(self._variables)
        node.pipe = self._pipeline(word.text, "close")
        self._loops += word.text == "range"
        node.body, end = self._list()
        self._loops -= word.text == "range"
        if end is None:
            raise self._fail(None, "unexpected EOF")
        if end.text == "else":
            following = self._peek()
            if following is not None and following.kind == "word" and following.text in ("if", "with"):
                self._next()
                node.other = [self._block(following)]
                del self._variables[depth:]
                return node
            self._close("else")
            node.other, end = self._list()
            if end is None:
                raise self._fail(None, "unexpected EOF")
            if end.text == "else":
                raise self._fail(end, "expected end; found {{else}}")
        self._close("end")
        del self._variables[depth:]
        return node

    def _pipeline(self, context: str, closing: str) -> Node:
        first = self._peek()
        assert first is not None
        pipe = Node("pipe", first)
        self._declarations(pipe, context)
        while True:
            operands = self._command(context, closing)
            pipe.operands.append(operands)
            token = self._next()
            if token.kind == closing:
                break
            if token.kind != "|":
                raise self._fail(token, f"unexpected {_name(token)} in {context}")
        for operands in pipe.operands[1:]:
            if operands[0].kind in ("literal", "dot", "nil"):
                position = pipe.operands.index(operands) + 1
                raise self._fail(first, f"non executable command in pipeline stage {position}")
        return pipe

    def _declarations(self, pipe: Node, context: str) -> None:
        start = self._at
        names = []
        while True:
            token = self._peek()
            if token is None or token.kind != "variable":
                break
            names.append(token.text)
            self._next()
            mark = self._peek()
            if mark is not None and mark.kind in (":=", "="):
                self._next()
                pipe.declared, pipe.assign = names, mark.kind == "="
                if not pipe.assign:
                    self._variables += names
                return
            if mark is None or mark.kind != "," or context != "range":
                break
            self._next()
        self._at = start

    def _command(self, context: str, closing: str) -> list[Node]:
        operands: list[Node] = []
        while True:
            token = self._peek()
            if token is None or token.kind in ("|", closing):
                break
            if token.kind in ("close", ")"):
                raise self._fail(
                    token, "unclosed left paren" if token.kind == "close" else "unexpected right paren"
                )
            operands.append(self._operand(context))
        if not operands:
            raise self._fail(self._peek(), f"missing value for {context}")
        return operands

    def _operand(self, context: str) -> Node:
        token = self._next()
        node = self._term(token, context)
        names: list[str] = []
        source = ""
        while True:
            following = self._peek()
            if following is None or following.kind != "field" or following.spaced:
                break
            if not names and node.kind in ("field", "variable"):
                node.column = following.column  # where Go says that such an error is
            names.append(following.text[1:])
            source += following.text
            self._next()
        if not names:
            return node
        if node.kind in ("field", "variable", "chain"):
            node.names += names
            node.source += source
            return node
        if node.kind in ("literal", "nil", "dot"):
            raise self._fail(token, f"unexpected . after term {_quote(node.source)}")
        chain = Node("chain", token)
        chain.pipe, chain.names, chain.source = node, names, node.source + source
        return chain

    def _term(self, token: Token, context: str) -> Node:
        node = Node("literal", token)
        node.source, node.value = token.text, token.value
        if token.kind in ("string", "number"):
            return node
        if token.kind == ".":
            node.kind = "dot"
        elif token.kind == "field":
            node.kind, node.names = "field", [token.text[1:]]
        elif token.kind == "variable":
            if token.text not in self._variables:
                raise self._fail(token, f"undefined variable {_quote(token.text)}")
            node.kind, node.text = "variable", token.text
        elif token.kind == "(":
            node = self._pipeline("parenthesized pipeline", ")")
            node.source = "(...)"
        elif token.kind == "word":
            if token.text in ("true", "false"):
                node.value = token.text == "true"
            elif token.text == "nil":
                node.kind = "nil"
            elif token.text in self._functions:
                node.kind, node.text = "call", token.text
            else:
                raise self._fail(token, f"function {_quote(token.text)} not defined")
        else:
            raise self._fail(token, f"unexpected {_name(token)} in {context}")
        return node


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _name(token: Token) -> str:
    return (
        f"<{token.text}>"
        if token.kind == "word" and token.text in (*_BLOCKS, "end", "else")
        else _quote(token.text)
    )
