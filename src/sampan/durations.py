"""Lengths of time: as Go reads them, and in the one unit that docker's tables give them."""

from __future__ import annotations

_UNITS_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_LONGEST = 100  # characters: more would be digits that say nothing


def read(text: str) -> int:
    """Nanoseconds of `1h2m3.5s`, `-20ms` or `0`; the form of Go's time.ParseDuration.

    Raises:
        ValueError: it is none, or none of 64 bits, in Go's words.
    """
    rest = text
    sign = 1
    if rest[:1] in ("-", "+"):
        sign = -1 if rest[0] == "-" else 1
        rest = rest[1:]
    if rest == "0":
        return 0
    if not rest or len(text) > _LONGEST:
        raise ValueError(f'time: invalid duration "{text[:_LONGEST]}"')
    total = 0.0
    while rest:
        digits = 0
        while digits < len(rest) and rest[digits] in "0123456789.":
            digits += 1
        numeral, rest = rest[:digits], rest[digits:]
        letters = 0
        while letters < len(rest) and rest[letters] not in "0123456789.":
            letters += 1
        unit, rest = rest[:letters], rest[letters:]
        try:
            value = float(numeral)
        except ValueError:
            raise ValueError(f'time: invalid duration "{text[:_LONGEST]}"') from None
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS_NS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        total += value * _UNITS_NS[unit]
    if total >= 1 << 63:
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * round(total)


def human_duration(seconds: float) -> str:
    """About how long, as go-units' HumanDuration: "5 minutes", "About an hour", "3 weeks"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / 3600) // 24 // 365} years"
