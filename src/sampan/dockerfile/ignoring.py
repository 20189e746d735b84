"""`.dockerignore`: which files of a directory stay out of a build context."""

from __future__ import annotations

import posixpath
import re

from sampan.errors import InvalidParameter


class Ignored:
    """The patterns of one file. The last one that matches a path, or a directory above it, decides."""

    def __init__(self, text: str) -> None:
        self._patterns: list[tuple[str, bool, re.Pattern[str]]] = []
        for line in text.removeprefix("\ufeff").splitlines():
            pattern = line.strip()
            if not pattern or line.startswith("#"):
                continue
            back = pattern.startswith("!")
            pattern = pattern[1:].strip() if back else pattern
            if not pattern:
                raise InvalidParameter('illegal exclusion pattern in .dockerignore: "!"')
            pattern = posixpath.normpath(pattern).lstrip("/") or "."
            self._patterns.append((pattern, back, path_expression(pattern)))

    def excludes(self, path: str) -> bool:
        """Whether the file at a path, relative to the context and with "/", is left out."""
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        out = False
        for _, back, expression in self._patterns:
            if out == back and any(expression.fullmatch(one) for one in above):
                out = not back
        return out

    def brings_back_below(self, directory: str) -> bool:
        """Whether something in a directory that is left out may be let in again."""
        return any(back and f"{pattern}/".startswith(f"{directory}/") for pattern, back, _ in self._patterns)


def path_expression(pattern: str) -> re.Pattern[str]:
    """A pattern of `*`, `?`, `[…]` and `**`, which alone crosses a "/", as a regular expression.

    Raises:
        InvalidParameter: it is malformed.
    """
    found, at = "", 0
    while at < len(pattern):
        one = pattern[at]
        at += 1
        if one == "*" and pattern[at : at + 1] == "*":
            at += 1
            at += pattern[at : at + 1] == "/"
            found += ".*" if at == len(pattern) else "(?:.*/)?"
        elif one == "*":
            found += "[^/]*"
        elif one == "?":
            found += "[^/]"
        elif one == "[" and (end := pattern.find("]", at + 1)) >= 0:
            found += f"[{pattern[at:end].replace(chr(92), chr(92) * 2)}]"
            at = end + 1
        elif one == "\\" and at < len(pattern):
            found += re.escape(pattern[at])
            at += 1
        else:
            found += re.escape(one)
    try:
        return re.compile(found, re.DOTALL)
    except re.error:
        raise InvalidParameter(f"syntax error in pattern of .dockerignore: {pattern}") from None
