"""Sizes, durations and times as people read them, in docker's words and rounding."""

from __future__ import annotations

import time

from sampan.durations import human_duration

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
_DAYS_BEFORE = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)


def _scaled(size: float, base: float, units: tuple[str, ...]) -> tuple[float, str]:
    index = 0
    while size >= base and index < len(units) - 1:
        size /= base
        index += 1
    return size, units[index]


def significant(value: float, digits: int) -> str:
    """A number with so many significant digits, as Go's `%.Ng` prints it."""
    return f"{value:.{digits}g}"


def size(count: float, digits: int = 3) -> str:
    """Bytes in decimal units with so many significant digits: 4.43MB."""
    value, unit = _scaled(float(count), 1000.0, _DECIMAL)
    return f"{significant(value, digits)}{unit}"


def exact_size(count: float) -> str:
    """Bytes in decimal units with four digits: 1.984MB."""
    return size(count, 4)


def binary_size(count: float) -> str:
    """Bytes in binary units with four digits: 23.43GiB."""
    value, unit = _scaled(float(count), 1024.0, _BINARY)
    return f"{significant(value, 4)}{unit}"


NO_TIME = -62_135_596_800  # Go's zero time, the year 1, in seconds since 1970


def ago(seconds: float) -> str:
    """How long ago a moment (seconds since 1970) was."""
    return f"{human_duration(time.time() - seconds)} ago"


def epoch(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time; ValueError for anything else."""
    year, month, day = int(text[0:4]), int(text[5:7]), int(text[8:10])
    hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:19])
    if not 1 <= month <= 12:
        raise ValueError(f"month out of range in {text!r}")
    rest = text[19:]
    fraction = 0.0
    if rest[:1] == ".":
        digits = len(rest) - 1 - len(rest[1:].lstrip("0123456789"))
        fraction = float(f"0.{rest[1 : 1 + digits]}")
        rest = rest[1 + digits :]
    offset = 0
    if rest[:1] in ("+", "-"):
        offset = (int(rest[1:3]) * 60 + int(rest[4:6])) * (60 if rest[0] == "+" else -60)
    elif rest not in ("Z", ""):
        raise ValueError(f"unknown zone in {text!r}")
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 - 719162
    leap = month > 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days += _DAYS_BEFORE[month - 1] + leap + day - 1
    return days * 86400 + hour * 3600 + minute * 60 + second - offset + fraction


def local_time(seconds: float) -> str:
    """A moment as Go prints a time: 2024-01-02 03:04:05 +0000 UTC, in the local zone."""
    moment = time.localtime(seconds)
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", moment)


def rfc3339(seconds: float) -> str:
    """A moment in RFC 3339 with whole seconds, in the local zone."""
    moment = time.localtime(seconds)
    zone = time.strftime("%z", moment)
    return time.strftime("%Y-%m-%dT%H:%M:%S", moment) + ("Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}")


def width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(one) else 2 if east_asian_width(one) in "WF" else 1 for one in text)


def ellipsis(text: str, most: int) -> str:
    """The text, cut to `most` columns with an ellipsis at the end."""
    if width(text) <= most:
        return text
    if most <= 1:
        return text[:most]
    cut, used = [], 0
    for one in text:
        used += width(one)
        if used > most - 1:
            break
        cut.append(one)
    return "".join(cut) + "…"


def natural(text: str) -> list[tuple[bool, int, str]]:
    """Numbers by their value, the rest as text."""
    parts: list[tuple[bool, int, str]] = []
    at = 0
    while at < len(text):
        end = at + 1
        while end < len(text) and text[end].isdecimal() == text[at].isdecimal():
            end += 1
        piece = text[at:end]
        parts.append((not piece.isdecimal(), int(piece) if piece.isdecimal() else 0, piece))
        at = end
    return parts


def short_id(identifier: str) -> str:
    """The twelve characters that stand for an id."""
    return identifier.removeprefix("sha256:")[:12]
