"""Detach keys: `ctrl-p,ctrl-q` and the like as the bytes a terminal sends."""

from __future__ import annotations

from sampan.errors import InvalidParameter

DEFAULT = bytes([16, 17])  # ctrl-p, ctrl-q


def parse_detach_keys(text: str) -> bytes:
    """The bytes of a comma-separated sequence: single characters, or `ctrl-` and a letter or one of @[]\\^_.

    Raises:
        InvalidParameter: a part is neither.
    """
    if not text:
        return DEFAULT
    keys = bytearray()
    for part in text.split(","):
        if len(part) == 1 and ord(part) < 128:
            keys.append(ord(part))
            continue
        letter = part.removeprefix("ctrl-")
        if (
            letter == part
            or len(letter) != 1
            or not (letter.isascii() and (letter.isalpha() or letter in "@[\\]^_"))
        ):
            raise InvalidParameter(f"Invalid detach keys ({text}) provided: Unknown character: '{part}'")
        keys.append(ord(letter.upper()) & 0x1F)
    return bytes(keys)
