"""Quotes and variables in a Dockerfile's words (Dockerfile reference, "Environment replacement").

Known are `$name`, `${name}`, and in braces `:-` `-` `:+` `+` `:?` `?` as in sh(1), and the patterns
`#` `##` `%` `%%` `/` `//`. Quotes are taken away; single ones keep variables as they are.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping

from sampan.dockerfile.parsing import LIMIT_BYTES
from sampan.errors import InvalidParameter

_SPECIAL = "@*#?-$!0"
_DEEPEST = 50
_LONGEST_MATCHED = 8192  # matching takes time by the square of it


class Words:
    """What words of a Dockerfile come to.

    Args:
        environment: the variables that they may name.
        escape: the Dockerfile's escape character.
    """

    def __init__(self, environment: Mapping[str, str], escape: str = "\\") -> None:
        self._environment = environment
        self.escape = escape

    def one(self, text: str) -> str:
        """One word: its variables replaced and its quotes taken away.

        Raises:
            InvalidParameter: a quote or brace without its end, an unknown modifier, what `:?` asks for, or
                more than `LIMIT_BYTES` characters, which variables in variables soon come to.
        """
        return "".join(part for part, _ in self._parts(text))

    def content(self, text: str) -> str:
        """A here-document of COPY or ADD: its variables replaced, quotes left, `\\` taken away."""
        scanner = _Scanner(text, self._environment, "\\", quotes=False)
        return "".join(part for part, _ in scanner.parts())

    def several(self, text: str) -> list[str]:
        """As `one`, but split at blanks outside of quotes; those in the values of variables split as well."""
        words: list[str] = []
        current: str | None = None
        for part, quoted in self._parts(text):
            if quoted:
                current = (current or "") + part
                continue
            for piece in re.split(r"(\s+)", part):
                if piece.isspace():
                    words += [] if current is None else [current]
                    current = None
                elif piece:
                    current = (current or "") + piece
        return words if current is None else [*words, current]

    def _parts(self, text: str) -> list[tuple[str, bool]]:
        return _Scanner(text, self._environment, self.escape).parts()


class _Scanner:
    def __init__(self, text: str, environment: Mapping[str, str], escape: str, quotes: bool = True) -> None:
        self._text = text
        self._quotes = quotes
        self._at = 0
        self._environment = environment
        self._escape = escape
        self._depth = 0
        self._made = 0  # characters

    def parts(self, stop: str = "", raw: bool = False) -> list[tuple[str, bool]]:
        """Pieces of the text, each with whether it was quoted, up to `stop` or to the end.

        Args:
            raw: leave escapes as they are, for a pattern.
        """
        found: list[tuple[str, bool]] = []
        while self._at < len(self._text):
            one = self._text[self._at]
            if one == stop:
                self._at += 1
                return found
            if one == "'" and self._quotes:
                found.append((self._single(), True))
            elif one == '"' and self._quotes:
                found.append((self._double(), True))
            elif one == "$":
                found.append((self._dollar(), False))
            elif one == self._escape:
                following = self._text[self._at + 1 : self._at + 2]
                self._at += 2
                found.append((one + following if raw else following, True))
            else:
                self._at += 1
                found.append((one, False))
        if stop:
            raise self._wrong(f'syntax error: missing "{stop}"')
        return found

    def _single(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise self._unfinished("single-quote")
        found, self._at = self._text[self._at + 1 : end], end + 1
        return found

    def _double(self) -> str:
        found: list[str] = []
        self._at += 1
        while self._at < len(self._text):
            one = self._text[self._at]
            if one == '"':
                self._at += 1
                return "".join(found)
            if one == "$":
                found.append(self._dollar())
                continue
            following = self._text[self._at + 1 : self._at + 2]
            if one == self._escape and following and following in ('"', "$", self._escape):
                one = following
                self._at += 1
            found.append(one)
            self._at += 1
        raise self._unfinished("double-quote")

    def _unfinished(self, what: str) -> InvalidParameter:
        return InvalidParameter(f"unexpected end of statement while looking for matching {what}")

    def _wrong(self, message: str) -> InvalidParameter:
        return InvalidParameter(f'failed to process "{self._text}": {message}')

    def _grown(self, text: str) -> str:
        """The text, which becomes a part of the word."""
        self._made += len(text)
        if self._made > LIMIT_BYTES:
            raise InvalidParameter(f"variables make a word of more than {LIMIT_BYTES} characters")
        return text

    def _dollar(self) -> str:
        return self._grown(self._variable())

    def _variable(self) -> str:
        self._at += 1
        if self._text[self._at : self._at + 1] != "{":
            name = self._name()
            return self._environment.get(name, "") if name else "$"
        self._at += 1
        name = self._name()
        if not name:
            raise self._wrong("bad substitution")
        self._depth += 1
        if self._depth > _DEEPEST:
            raise InvalidParameter(f"more than {_DEEPEST} substitutions within one another")
        try:
            return self._modified(name)
        finally:
            self._depth -= 1

    def _name(self) -> str:
        match = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+").match(self._text, self._at)
        if match is not None:
            self._at = match.end()
            return match[0]
        one = self._text[self._at : self._at + 1]
        if one and one in _SPECIAL:
            self._at += 1
            return one
        return ""

    def _modified(self, name: str) -> str:
        match = re.compile(r":[-+?]|[-+?]|##|#|%%|%|//|/|\}").match(self._text, self._at)
        if match is None:
            shown = self._text[self._at : self._at + 2] if self._at < len(self._text) else ""
            if not shown:
                raise self._wrong('syntax error: missing "}"')
            raise self._wrong(f"unsupported modifier ({shown}) in substitution")
        self._at = match.end()
        modifier = match[0]
        value = self._environment.get(name)
        if modifier == "}":
            return value or ""
        if modifier != "}" and modifier[0] in "#%/" and len(value or "") > _LONGEST_MATCHED:
            raise InvalidParameter(f"{name}: more than {_LONGEST_MATCHED} characters for a pattern")
        if modifier in ("/", "//"):
            pattern = "".join(part for part, _ in self.parts("/", raw=True))
            by = "".join(part for part, _ in self.parts("}"))
            count = 0 if modifier == "//" else 1
            return re.sub(_regex(pattern), lambda _: self._grown(by), value or "", count=count)
        word = "".join(part for part, _ in self.parts("}", raw=modifier[0] in "#%"))
        if modifier[0] in "#%":
            return _trimmed(value or "", word, modifier)
        there = value is not None and (bool(value) or modifier[0] != ":")
        if modifier[-1] == "+":
            return word if there else ""
        if modifier[-1] == "?" and not there:
            why = word or f"is not allowed to be {'empty' if value is not None else 'unset'}"
            raise InvalidParameter(f"{name}: {why}")
        return (value or "") if there else word


def _regex(pattern: str) -> str:
    """A shell pattern of `*`, `?`, `[…]` and escaped characters as a regular expression."""
    plain = re.sub(r"\\(.)", lambda match: f"[{match[1]}]" if match[1] in "*?[" else match[1], pattern)
    return fnmatch.translate(plain).removesuffix(r"\Z").removesuffix(r"\z")


def _trimmed(value: str, pattern: str, modifier: str) -> str:
    """The value without the shortest (`#`, `%`) or longest part at its beginning or end that matches."""
    expression = re.compile(_regex(pattern))
    lengths = range(len(value) + 1) if len(modifier) == 1 else range(len(value), -1, -1)
    for length in lengths:
        part = value[:length] if modifier[0] == "#" else value[len(value) - length :]
        if expression.fullmatch(part):
            return value[length:] if modifier[0] == "#" else value[: len(value) - length]
    return value
