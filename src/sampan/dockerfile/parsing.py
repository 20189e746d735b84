"""A Dockerfile's text to its instructions: directives, comments, continued lines, flags, here-documents."""

from __future__ import annotations

import json
import re
from dataclasses import field, replace

from sampan.dataclasses import dataclass
from sampan.dockerfile.flags import take_flags
from sampan.dockerfile.heredocs import Heredoc, openings, take
from sampan.errors import InvalidParameter

LIMIT_BYTES = 2 << 20
_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*")
_DIRECTIVES = ("escape", "syntax", "check")
KEYWORDS = frozenset(
    "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL"
    " USER VOLUME WORKDIR".split()
)
_WITH_HEREDOCS = ("ADD", "COPY", "RUN")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    Attributes:
        keyword: in capitals.
        rest: what follows the keyword and its flags, continued lines joined.
        flags: the values of its `--name=value`; `true` or `false` for those that want none.
        lists: the values of those that may stand several times.
        heredocs: the here-documents that follow it.
        text: the whole, as progress messages show it.
        line: where it begins, from 1.
    """

    keyword: str
    rest: str
    flags: dict[str, str]
    text: str
    line: int = 1
    lists: dict[str, list[str]] = field(default_factory=dict)
    heredocs: tuple[Heredoc, ...] = ()

    def words(self) -> list[str]:
        """The texts of a JSON list, or else the words between blanks."""
        listed = json_list(self.rest)
        return self.rest.split() if listed is None else listed


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """What a Dockerfile says; `escape` is the character that continues lines and escapes others."""

    instructions: list[Instruction]
    escape: str = "\\"


def parse(data: bytes | str) -> Dockerfile:
    """Read a Dockerfile.

    Raises:
        InvalidParameter: it is malformed, or says what only BuildKit can do; the line is told.
    """
    if isinstance(data, bytes):
        if len(data) > LIMIT_BYTES:
            raise InvalidParameter(f"the Dockerfile has more than {LIMIT_BYTES} bytes")
        data = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    lines = [line.removesuffix("\r") for line in data.split("\n")]
    escape, at = _directives(lines)
    continued = re.compile(rf"(?:^|(?<!{re.escape(escape)})){re.escape(escape)}[ \t]*$")
    found = []
    while at < len(lines):
        start, line = at + 1, lines[at].lstrip()
        at += 1
        if not line or line.startswith("#"):
            continue
        whole, goes_on = _without_end(line, continued)
        while goes_on and at < len(lines):
            line = lines[at]
            at += 1
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            part, goes_on = _without_end(line, continued)
            whole += part
        if not whole.strip():
            continue
        instruction = read(whole, start)
        heredocs = []
        try:
            for begun in _heredocs(instruction):
                heredoc, at = take(begun, lines, at)
                heredocs.append(heredoc)
        except InvalidParameter as error:
            raise wrong(start, error.message) from None
        found.append(_with(instruction, heredocs) if heredocs else instruction)
    if not found:
        raise InvalidParameter("file with no instructions")
    return Dockerfile(found, escape)


def _heredocs(instruction: Instruction) -> list[Heredoc]:
    """The here-documents that an instruction begins, or the one that ONBUILD keeps."""
    if instruction.keyword == "ONBUILD":
        instruction = read(instruction.rest)
    if instruction.keyword not in _WITH_HEREDOCS or json_list(instruction.rest) is not None:
        return []
    return openings(instruction.rest)


def _with(instruction: Instruction, heredocs: list[Heredoc]) -> Instruction:
    """The instruction with its here-documents; ONBUILD keeps them as text."""
    if instruction.keyword == "ONBUILD":
        return replace(instruction, rest=instruction.rest + "".join(one.rest for one in heredocs))
    return replace(instruction, heredocs=tuple(heredocs))


def _without_end(line: str, continued: re.Pattern[str]) -> tuple[str, bool]:
    match = continued.search(line)
    return (line, False) if match is None else (line[: match.start()], True)


def _directives(lines: list[str]) -> tuple[str, int]:
    """The escape character, and how many lines the directives take."""
    seen: dict[str, str] = {}
    for at, line in enumerate(lines):
        match = _DIRECTIVE.fullmatch(line.strip())
        name = match[1].lower() if match else ""
        if match is None or name not in _DIRECTIVES:
            break
        if name in seen:
            raise wrong(at + 1, f"only one {name} parser directive can be used")
        seen[name] = match[2]
    escape = seen.get("escape", "\\")
    if escape not in ("\\", "`"):
        raise wrong(len(seen), f"invalid escape token '{escape}' does not match ` or \\")
    return escape, len(seen)


def read(text: str, line: int = 1) -> Instruction:
    """One instruction of its own, such as what ONBUILD keeps.

    Raises:
        InvalidParameter: as `parse`.
    """
    text = text.strip()
    if "\0" in text:
        raise wrong(line, "a NUL character")
    parts = text.split(None, 1)
    keyword, rest = parts[0].upper(), parts[1].strip() if len(parts) > 1 else ""
    if keyword not in KEYWORDS:
        raise wrong(line, f"unknown instruction: {parts[0]}")
    try:
        flags, lists, rest = take_flags(keyword, rest)
    except InvalidParameter as error:
        raise wrong(line, f"{keyword}: {error.message}") from None
    if keyword == "ONBUILD" and rest:
        if rest.split(None, 1)[0].upper() == "ONBUILD":
            raise wrong(line, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
        read(rest, line)
    if not rest and keyword not in ("CMD", "ENTRYPOINT"):
        raise wrong(line, f"{keyword} requires {_WANTED.get(keyword, 'at least one argument')}")
    return Instruction(keyword, rest, flags, text, line, lists)


_WANTED = {
    "ADD": "at least two arguments",
    "COPY": "at least two arguments",
    "FROM": "either one or three arguments",
    "MAINTAINER": "exactly one argument",
    "STOPSIGNAL": "exactly one argument",
    "USER": "exactly one argument",
    "WORKDIR": "exactly one argument",
}


def wrong(line: int, message: str) -> InvalidParameter:
    """The error of a line."""
    return InvalidParameter(f"dockerfile parse error on line {line}: {message}")


def json_list(text: str) -> list[str] | None:
    """The texts of a JSON list; None when it is none, which makes it a command for the shell."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else None
