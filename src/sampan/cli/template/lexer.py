"""Template text to tokens: literal text, and the words between `{{` and `}}` (Go text/template syntax)."""

from __future__ import annotations

from sampan.cli.template.errors import TemplateError

_SPACE = " \t\r\n"
_ESCAPES = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
}


class Token:
    """One word of a template. Kinds: text, open, close, field, variable, word, string, char, number, and the
    punctuation itself: ( ) | , = := ."""

    __slots__ = ("column", "kind", "line", "spaced", "text", "value")

    def __init__(
        self, kind: str, text: str, line: int, column: int, value: object = None, spaced: bool = False
    ) -> None:
        self.kind = kind
        self.text = text
        self.line = line
        self.column = column
        self.value = value
        self.spaced = spaced  # a blank stood before it


def tokens(source: str) -> list[Token]:
    """All tokens of a template.

    Raises:
        TemplateError: unclosed action, comment, quote; unknown characters.
    """
    found: list[Token] = []
    position, trim_next = 0, False
    while position < len(source):
        start = source.find("{{", position)
        end = len(source) if start < 0 else start
        text = source[position:end]
        if trim_next:
            text = text.lstrip(_SPACE)
        trim_before = (
            start >= 0 and source.startswith("{{-", start) and source[start + 3 : start + 4] in tuple(_SPACE)
        )
        if trim_before:
            text = text.rstrip(_SPACE)
        if text:
            found.append(Token("text", text, _line(source, position), 0))
        if start < 0:
            break
        inside = start + (3 if trim_before else 2)
        position, trim_next = _action(source, start, inside, found)
    return found


def _line(source: str, position: int) -> int:
    return source.count("\n", 0, position) + 1


def _fail(source: str, position: int, message: str) -> TemplateError:
    return TemplateError(f"template: :{_line(source, position)}: {message}")


def _action(source: str, start: int, position: int, found: list[Token]) -> tuple[int, bool]:
    body = position
    while source[body : body + 1] and source[body] in _SPACE:
        body += 1
    if source.startswith("/*", body):
        end = source.find("*/", body)
        if end < 0:
            raise _fail(source, start, "unclosed comment")
        end += 2
        trim = source[end : end + 1] in tuple(_SPACE) and source.startswith("-}}", end + 1)
        if trim:
            return end + 4, True
        if not source.startswith("}}", end):
            raise _fail(source, start, "comment ends before closing delimiter")
        return end + 2, False
    found.append(Token("open", "{{", _line(source, start), start))
    spaced = False
    while True:
        if position >= len(source):
            raise _fail(source, start, "unclosed action")
        one = source[position]
        if one in _SPACE:
            if source.startswith("-}}", position + 1):
                found.append(Token("close", "}}", _line(source, position), position))
                return position + 4, True
            spaced = True
            position += 1
            continue
        if source.startswith("}}", position):
            found.append(Token("close", "}}", _line(source, position), position))
            return position + 2, False
        token, position = _word(source, position)
        token.spaced = spaced
        spaced = False
        found.append(token)


def _word(source: str, position: int) -> tuple[Token, int]:
    line, column = _line(source, position), position
    column -= source.rfind("\n", 0, position) + 1
    one = source[position]
    if source.startswith(":=", position):
        return Token(":=", ":=", line, column), position + 2
    if one in "()|,=":
        return Token(one, one, line, column), position + 1
    if one in "\"'":
        return _quoted(source, position, line, column)
    if one == "`":
        end = source.find("`", position + 1)
        if end < 0:
            raise _fail(source, position, "unterminated raw quoted string")
        text = source[position : end + 1]
        return Token("string", text, line, column, text[1:-1]), end + 1
    following = source[position + 1 : position + 2]
    if one.isdigit() or (one in "+-." and following.isdigit()):
        return _number(source, position, line, column)
    if one == "." or one == "$" or one.isalnum() or one == "_":
        end = position + 1
        while end < len(source) and (source[end].isalnum() or source[end] == "_"):
            end += 1
        text = source[position:end]
        if one == ".":
            return Token("field" if len(text) > 1 else ".", text, line, column), end
        return Token("variable" if one == "$" else "word", text, line, column), end
    if one.isprintable() and one.isascii():
        raise _fail(
            source, position, f"unexpected {_shown(one)} in {'operand' if one in '{}' else 'command'}"
        )
    raise _fail(source, position, f"unrecognized character in action: U+{ord(one):04X} {one!r}")


def _shown(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _quoted(source: str, position: int, line: int, column: int) -> tuple[Token, int]:
    quote = source[position]
    end, value = position + 1, ""
    while True:
        one = source[end : end + 1]
        if not one or one == "\n":
            kind = "quoted string" if quote == '"' else "character constant"
            raise _fail(source, position, f"unterminated {kind}")
        if one == quote:
            break
        if one == "\\":
            letter = source[end + 1 : end + 2]
            digits = {"x": 2, "u": 4, "U": 8}.get(letter, 0)
            if digits:
                value += chr(int(source[end + 2 : end + 2 + digits], 16))
                end += 2 + digits
                continue
            if letter not in _ESCAPES:
                raise _fail(source, position, f"invalid syntax in {source[position : end + 2]}")
            value += _ESCAPES[letter]
            end += 2
            continue
        value += one
        end += 1
    text = source[position : end + 1]
    if quote == "'":
        return Token("number", text, line, column, ord(value[:1] or "\0")), end + 1
    return Token("string", text, line, column, value), end + 1


def _number(source: str, position: int, line: int, column: int) -> tuple[Token, int]:
    end = position + 1
    while end < len(source) and (
        source[end].isalnum() or source[end] in "._" or (source[end] in "+-" and source[end - 1] in "eE")
    ):
        end += 1
    text = source[position:end]
    value: object
    try:
        value = int(text, 0)
    except ValueError:
        try:
            value = float(text)
        except ValueError:
            raise _fail(source, position, f"bad number syntax: {_shown(text)}") from None
    return Token("number", text, line, column, value), end
