"""What a word that is no command may have meant: a mistyped one, or one of docker's that we do not have.

Imported only to tell of a mistake.
"""

from __future__ import annotations

import difflib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_BUILD = "BuildKit is not offered; `build` is the classic builder"
_SWARM = "Swarm is not offered: Sampan runs containers on one machine"
ABSENT = {
    **dict.fromkeys(("bake", "buildx"), _BUILD),
    **dict.fromkeys(("config", "node", "secret", "service", "stack", "swarm"), _SWARM),
    "compose": "install docker's plugin compose, or use docker-compose with DOCKER_HOST",
    "plugin": "the engine takes no plugins",
}


def missing(name: str) -> str:
    """`: why, and what to do instead`, for docker's commands that we do not have; nothing for other words."""
    return f": {ABSENT[name]}" if name in ABSENT else ""


def guess(word: str, known: Iterable[str], prefix: str = "") -> str:
    """` (did you mean WORD?)`, or nothing where no known word is close.

    Args:
        prefix: stands before the word that is shown.
    """
    words = list(known)
    close = [one for one in words if _swapped(word, one)] or difflib.get_close_matches(word, words, 1, 0.7)
    if not close and len(word) > 1:
        longer = [one for one in words if one.startswith(word)]
        close = longer if len(longer) == 1 else []
    return f" (did you mean {prefix}{close[0]}?)" if close else ""


def _swapped(word: str, meant: str) -> bool:
    """Whether two neighbouring letters have changed places, which counts as two mistakes in short words."""
    differ = [place for place, pair in enumerate(zip(word, meant, strict=False)) if pair[0] != pair[1]]
    if len(word) != len(meant) or len(differ) != 2 or differ[1] != differ[0] + 1:
        return False
    first, second = differ
    return word[first] == meant[second] and word[second] == meant[first]
