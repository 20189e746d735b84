"""`--env-file` and `--label-file`: one NAME=VALUE a line, `#` comments, NAME alone from our environment."""

from __future__ import annotations

import os


def read_pairs(path: str, from_environment: bool) -> list[str]:
    """The entries of a file, in order.

    Args:
        from_environment: a NAME alone takes its value from our environment, and is left out without one
            (`--env-file`); else it stands as it is (`--label-file`).

    Raises:
        ValueError: a line that is no entry, in docker's words.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read()
    found = []
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{path}: invalid utf8 bytes at line {number}: {list(raw)}") from None
        text = text.removesuffix("\r").lstrip(" \t\r\v\f\u00a0\u2000")
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        name = name.lstrip()
        if not name:
            raise ValueError(f"{path}: no variable name on line '{text}'")
        if any(character.isspace() for character in name):
            raise ValueError(f"{path}: variable '{name}' contains whitespaces")
        if equals:
            found.append(f"{name}={value}")
        elif not from_environment:
            found.append(name)
        elif name in os.environ:
            found.append(f"{name}={os.environ[name]}")
    return found
