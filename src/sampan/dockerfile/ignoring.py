"""`.dockerignore`: which files of a directory stay out of a build context."""

from __future__ import annotations

import posixpath
import re

from sampan.errors import InvalidParameter

_LOOSE = 1  # `**` whose first fit may not be the right one


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

    Whoever writes a pattern chooses the names that it is held against, too. So a wildcard whose first fit is
    as good as any later one is not tried again (`(?>…)`): matching takes no longer for many of them.

    Raises:
        InvalidParameter: it is malformed, or has too many `**` within names.
    """
    runs = _runs(pattern)
    found, loose = "", 0
    for number, run in enumerate(runs):
        last = number == len(runs) - 1
        everything = number == len(runs) - 2 and not runs[-1]  # "**" at the end fits whatever follows
        whole = everything or not run or run[-1] == "/"  # "**" goes on where a name begins
        if number and last:
            found += f"(?:.*/)?{_of_run(run, True)}" if run else ".*"
        elif number:
            found += f"(?>(?:.*?/)??{_of_run(run, whole)})" if whole else f"(?:.*/)?{_of_run(run, False)}"
        else:
            found += _of_run(run, last or whole)
        loose += 0 if last or whole else 1
    if loose > _LOOSE:
        raise InvalidParameter(f"a pattern has several ** within names: {pattern[:200]}")
    try:
        return re.compile(found, re.DOTALL)
    except re.error:
        raise InvalidParameter(f"syntax error in pattern of .dockerignore: {pattern}") from None


def _runs(pattern: str) -> list[list[str]]:
    """What stands between the `**` of a pattern: `*`, and expressions of one character."""
    runs: list[list[str]] = [[]]
    at = 0
    while at < len(pattern):
        one = pattern[at]
        at += 1
        if one == "*" and pattern[at : at + 1] == "*":
            at += 1
            at += pattern[at : at + 1] == "/"
            runs.append([])
        elif one == "*":
            runs[-1].append("*")
        elif one == "?":
            runs[-1].append("[^/]")
        elif one == "[" and (end := pattern.find("]", at + 1)) >= 0:
            runs[-1].append(f"[{pattern[at:end].replace(chr(92), chr(92) * 2)}]")
            at = end + 1
        elif one == "\\" and at < len(pattern):
            runs[-1].append(re.escape(pattern[at]))
            at += 1
        else:
            runs[-1].append(re.escape(one))
    return runs


def _of_run(run: list[str], free: bool) -> str:
    """The expression of what stands between two `**`; `free` when what follows takes any first fit."""
    found = ""
    stars = [at for at, one in enumerate(run) if one == "*"]
    for at, following in zip([-1, *stars], [*stars, len(run)], strict=True):
        fixed = "".join(run[at + 1 : following])
        if at < 0:
            found += fixed
        elif following < len(run) or "/" in run[at + 1 :]:
            found += f"(?>[^/]*?{fixed})"
        else:
            found += f"[^/]*{fixed}" if free else f"[^/]*?{fixed}"
    return found
