"""Sizes as people write them: `512m`, `2g`, `1.5GiB` (Docker's units: powers of 1024 when read)."""

from __future__ import annotations

_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_size(text: str) -> int:
    """Bytes of a size such as `512m`; suffixes are powers of 1024 whatever their spelling.

    Raises:
        ValueError: not a size.
    """
    lowered = text.strip().lower()
    number = lowered.rstrip("kmgtpib ")
    unit = lowered[len(number) :].strip()
    letter = unit.removesuffix("ib").removesuffix("b") if unit not in ("b",) else ""
    try:
        value = float(number) if len(number) < 100 else -1.0
    except ValueError:
        value = -1.0
    if value < 0 or letter not in _POWERS or value != value or value == float("inf"):
        raise ValueError(f"invalid size: '{text}'")
    return int(value * 1024 ** _POWERS[letter])
