"""Figures as a line of blocks, an eighth of a cell a step."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_BLOCKS = " ▁▂▃▄▅▆▇█"


def graph(values: Sequence[float], width: int, top: float | None = None) -> str:
    """The last `width` values, the newest at the right.

    Args:
        top: what fills a cell; the largest value shown when it is not given.
    """
    shown = list(values)[-width:]
    high = top if top is not None else max(shown, default=0.0)
    steps = len(_BLOCKS) - 1
    cells = []
    for value in shown:
        share = min(max(value / high, 0.0), 1.0) if high > 0 else 0.0
        # What is there at all is seen: only nothing is an empty cell.
        cells.append(_BLOCKS[max(round(share * steps), 1 if value > 0 else 0)])
    return "".join(cells).rjust(width)
