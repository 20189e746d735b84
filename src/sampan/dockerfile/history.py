"""Values as Docker's classic builder, which is Go, writes them into an image's history."""

from __future__ import annotations

import json
import sys

from sampan.oci.durations import shown
from sampan.oci.image import Healthcheck


def quoted(words: list[str]) -> str:
    """A list as Go's `%q` writes it."""
    return f"[{' '.join(json.dumps(word, ensure_ascii=False) for word in words)}]"


def as_go_shows(health: Healthcheck) -> str:
    """A health check as Go's `%q` writes Docker's structure: durations quoted, the number a rune."""
    durations = (health.interval, health.timeout, health.start_period, health.start_interval)
    times = " ".join(f'"{shown(one or 0)}"' for one in durations)
    return f"&{{{quoted(health.test or [])} {times} {_rune(health.retries or 0)}}}"


def _rune(number: int) -> str:
    escapes = {
        7: "\\a",
        8: "\\b",
        9: "\\t",
        10: "\\n",
        11: "\\v",
        12: "\\f",
        13: "\\r",
        39: "\\'",
        92: "\\\\",
    }
    if number in escapes:
        return f"'{escapes[number]}'"
    if number < 32 or number == 127:
        return f"'\\x{number:02x}'"
    return (
        f"'{chr(number)}'" if number < sys.maxunicode and chr(number).isprintable() else f"'\\U{number:08x}'"
    )
