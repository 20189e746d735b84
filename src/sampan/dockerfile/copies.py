"""What COPY and ADD say: their words, flags and here-documents, with variables replaced."""

from __future__ import annotations

import re

from sampan.dataclasses import dataclass
from sampan.dockerfile.heredocs import opening
from sampan.dockerfile.modes import ModeChange, mode_change
from sampan.dockerfile.parsing import Instruction
from sampan.dockerfile.substitution import Words
from sampan.errors import InvalidParameter


@dataclass(frozen=True, slots=True)
class Copied:
    """What a COPY or ADD says, variables replaced.

    Attributes:
        sources: the words that name files.
        files: names and texts of its here-documents.
        origin: the stage or image that the files are of; empty for the context.
        chown: user and group of what is copied; empty for root's, or those that they have.
        mode: what becomes of its permissions; None for nothing.
        keep_git: whether repositories come with `.git`.
        options: its flags, as history tells them.
    """

    keyword: str
    sources: list[str]
    files: list[tuple[str, str]]
    target: str
    origin: str
    chown: str
    mode: ModeChange | None
    checksum: str
    parents: bool
    keep_git: bool
    exclude: list[str]
    options: str


def words_of(instruction: Instruction) -> tuple[list[str], str]:
    """The words of a COPY or ADD that name sources, and the one that names the target, as written.

    Raises:
        InvalidParameter: they are too few.
    """
    *sources, target = instruction.words() or [""]
    if not sources:
        raise InvalidParameter(
            f"{instruction.keyword} requires at least two arguments, but only one was provided."
            " Destination could not be determined"
        )
    return sources, target


def copied(instruction: Instruction, words: Words) -> Copied:
    """What a COPY or ADD says.

    Raises:
        InvalidParameter: it is malformed.
    """
    keyword = instruction.keyword
    flags = {name: words.one(value) for name, value in instruction.flags.items()}
    exclude = [words.one(one) for one in instruction.lists.get("exclude", ())]
    heredocs = {one.name: one for one in instruction.heredocs}
    given, target = words_of(instruction)
    sources: list[str] = []
    files: list[tuple[str, str]] = []
    for word in given:
        begun = opening(word) if heredocs else None
        if begun is None:
            sources.append(words.one(word))
            continue
        if "/" in begun.name or begun.name in (".", ".."):
            raise InvalidParameter(
                f"{keyword}: a here-document cannot be named {begun.name!r}: it names a file"
            )
        content = heredocs[begun.name].content
        files.append((begun.name, words.content(content) if begun.expand else content))
    if heredocs and opening(target) is not None:
        raise InvalidParameter(f"{keyword} cannot accept a here-document as a destination")
    target = words.one(target)
    if not target:
        raise InvalidParameter(f"{keyword} requires a destination")
    checksum = flags.get("checksum", "")
    if checksum and not re.fullmatch(
        "sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}", checksum
    ):
        raise InvalidParameter(f"invalid checksum {checksum!r}: a digest such as sha256:… is wanted")
    if checksum and len(given) > 1:
        raise InvalidParameter("checksum can't be specified for multiple sources")
    told = [f"--{name}={flags[name]} " for name in ("chown", "chmod") if flags.get(name)]
    parents = flags.get("parents") == "true"
    told += ["--parents "] * parents + [f"--exclude={one} " for one in exclude]
    return Copied(
        keyword,
        sources,
        files,
        target,
        flags.get("from", ""),
        flags.get("chown", ""),
        mode_change(flags["chmod"]) if flags.get("chmod") else None,
        checksum,
        parents,
        flags.get("keep-git-dir") == "true",
        exclude,
        "".join(told),
    )
