"""`--chmod`: permissions as a number, or as chmod(1) has them in letters (`u=rwX,go-w`)."""

from __future__ import annotations

import re
from collections.abc import Callable

from sampan.errors import InvalidParameter

# Permissions before, and whether it is a directory, to those afterwards.
ModeChange = Callable[[int, bool], int]

_CLAUSE = re.compile(r"(?P<who>[ugoa]*)(?P<changes>(?:[-+=][rwxXst]*)+)")
_CHANGE = re.compile(r"([-+=])([rwxXst]*)")
_BITS = {"u": 0o700, "g": 0o070, "o": 0o007, "a": 0o777}
_LETTERS = {"r": 0o444, "w": 0o222, "x": 0o111}
_SET_ID = {"u": 0o4000, "g": 0o2000, "o": 0, "a": 0o6000}


def mode_change(text: str) -> ModeChange:
    """What a value of `--chmod` does.

    Raises:
        InvalidParameter: it is none.
    """
    if re.fullmatch("[0-7]+", text) and int(text, 8) <= 0o7777:
        number = int(text, 8)
        return lambda _mode, _directory: number
    clauses = [_CLAUSE.fullmatch(one) for one in text.split(",")]
    if not all(clauses):
        raise InvalidParameter(
            f"invalid chmod parameter: '{text}': an octal number up to 7777, or letters such as u=rwX,go-w"
        )
    changes = [
        (one["who"] or "a", sign, letters)
        for one in clauses
        if one is not None
        for sign, letters in _CHANGE.findall(one["changes"])
    ]

    def change(mode: int, directory: bool) -> int:
        for who, sign, letters in changes:
            mode = _changed(mode, directory, who, sign, letters)
        return mode

    return change


def _changed(mode: int, directory: bool, who: str, sign: str, letters: str) -> int:
    mask = set_id = 0
    for one in who:
        mask |= _BITS[one]
        set_id |= _SET_ID[one]
    bits = 0
    for letter in letters:
        if letter == "s":
            bits |= set_id
        elif letter == "t":
            bits |= 0o1000
        elif letter == "X":
            bits |= 0o111 & mask if directory or mode & 0o111 else 0
        else:
            bits |= _LETTERS[letter] & mask
    if sign == "+":
        return mode | bits
    if sign == "-":
        return mode & ~bits
    return mode & ~(mask | set_id | (0o1000 if "o" in who or "a" in who else 0)) | bits
