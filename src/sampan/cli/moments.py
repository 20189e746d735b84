"""`--since` and `--until`: a time, a date, a Unix time or a duration ago, as the API's seconds."""

from __future__ import annotations

import time

from sampan.cli.human import epoch


def timestamp(text: str, flag: str = "") -> str:
    """Seconds since 1970 with nanoseconds, as text; `flag` is named in the error where docker names it.

    Raises:
        ValueError: not a moment, in docker's words.
    """
    from sampan.cli.values import duration

    try:
        nanoseconds = time.time_ns() - duration(text)
        return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"
    except ValueError:
        pass
    plain = text.replace(".", "", 1)
    if plain.isdigit():
        return text
    try:
        return _moment(text)
    except (ValueError, IndexError):
        of = f'invalid value for "{flag}": ' if flag else ""
        raise ValueError(f'{of}failed to parse value as time or duration: "{text}"') from None


def _moment(text: str) -> str:
    date, separator, rest = text.partition("T")
    if len(date) != 10 or date[4] != "-" or date[7] != "-":
        raise ValueError(text)
    zone = ""
    for mark in ("Z", "+", "-"):
        if mark in rest:
            position = rest.index(mark)
            rest, zone = rest[:position], rest[position:]
    if not separator and not zone and date.endswith("Z"):
        zone = "Z"
    clock, _, fraction = rest.partition(".")
    parts = [part for part in clock.split(":") if part]
    clock = ":".join([*parts, "00", "00", "00"][:3])
    whole = epoch(f"{date}T{clock}{zone or 'Z'}")
    if not zone:
        whole += time.timezone if not time.localtime(whole).tm_isdst else time.altzone
    return f"{int(whole)}.{(fraction + '0' * 9)[:9]}"
