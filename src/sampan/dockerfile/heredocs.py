"""Here-documents of RUN, COPY and ADD (Dockerfile reference, "Here-Documents")."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter

_WORD = re.compile(r"""(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|[^\s'"\\]|['"\\])+""")
_OPENING = re.compile(r"\d*<<(-?)([^<]+)")


@dataclass(frozen=True, slots=True)
class Heredoc:
    """One here-document.

    Attributes:
        name: what ends it, without quotes.
        expand: whether its variables are replaced: the name was not quoted.
        tabs_off: whether tabs at the beginnings of its lines are taken away: it was begun by `<<-`.
        text: its lines, as they stand in the Dockerfile.
    """

    name: str
    expand: bool
    tabs_off: bool
    text: str = ""

    @property
    def content(self) -> str:
        """The text, without tabs where they are to go."""
        return re.sub(r"^\t+", "", self.text, flags=re.MULTILINE) if self.tabs_off else self.text

    @property
    def rest(self) -> str:
        """The text and the line that ends it, as a shell wants them after the line that begins it."""
        return f"\n{self.text}{self.name}"


def opening(word: str) -> Heredoc | None:
    """The here-document that a word begins; None when it begins none."""
    match = _OPENING.fullmatch(word)
    if match is None or len(_WORD.findall(match[2])) != 1:
        return None
    name = re.sub(r"""\\(.)|['"]""", lambda part: part[1] or "", match[2])
    return Heredoc(name, name == match[2], match[1] == "-")


def script_of(rest: str, heredocs: Sequence[Heredoc]) -> Heredoc | None:
    """The here-document that is all of a RUN, and so what it runs; None for one that goes to a command."""
    return heredocs[0] if len(heredocs) == 1 and opening(rest) is not None else None


def openings(text: str) -> list[Heredoc]:
    """The here-documents that an instruction's line begins, in their order."""
    if "<<" not in text:
        return []
    return [one for word in _WORD.findall(text) if (one := opening(word)) is not None]


def take(begun: Heredoc, lines: list[str], at: int) -> tuple[Heredoc, int]:
    """A here-document with its text.

    Args:
        lines: the Dockerfile's.
        at: where the text begins.

    Returns:
        it, and where the line after it is.

    Raises:
        InvalidParameter: nothing ends it.
    """
    start = at
    while at < len(lines):
        line = lines[at].lstrip("\t") if begun.tabs_off else lines[at]
        if line == begun.name:
            text = "".join(f"{one}\n" for one in lines[start:at])
            return Heredoc(begun.name, begun.expand, begun.tabs_off, text), at + 1
        at += 1
    raise InvalidParameter(f"unterminated heredoc: no line is {begun.name}")
