"""Times and durations as Docker's API and tables spell them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

_FRACTION = re.compile(r"\.(\d+)")
ZERO = "0001-01-01T00:00:00Z"  # Go's zero time: never


def rfc3339(at_ns: int) -> str:
    """RFC 3339 with nanoseconds, trailing zeros cut, as Go prints it; 0 is never."""
    if at_ns == 0:
        return ZERO
    seconds, fraction = divmod(at_ns, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def timestamp_ns(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time, or of a date alone; 0 for an empty or broken one."""
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    fraction = _FRACTION.search(text)  # datetime keeps six digits of nine
    digits = fraction[1][:9].ljust(9, "0") if fraction else "0"
    return int(moment.replace(microsecond=0).timestamp()) * 1_000_000_000 + int(digits)
