"""What a mistyped word may have meant; imported only to tell of a mistake."""

from __future__ import annotations

import difflib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def guess(word: str, known: Iterable[str], prefix: str = "") -> str:
    """` (did you mean WORD?)`, or nothing where no known word is close.

    Args:
        prefix: stands before the word that is shown.
    """
    words = list(known)
    close = difflib.get_close_matches(word, words, 1, 0.7)
    if not close and len(word) > 1:
        longer = [one for one in words if one.startswith(word)]
        close = longer if len(longer) == 1 else []
    return f" (did you mean {prefix}{close[0]}?)" if close else ""
