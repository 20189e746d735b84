"""Signal names and numbers as Docker's clients write them: `KILL`, `SIGKILL`, `9`, `RTMIN+3`."""

from __future__ import annotations

import signal

from sampan.errors import InvalidParameter

# The kernel's own first real-time signal is 32; glibc keeps two for itself, and Docker counts from 34 too.
_RTMIN, _RTMAX = 34, 64


def parse_signal(text: str) -> int:
    """The number of a signal.

    Raises:
        InvalidParameter: no such signal.
    """
    if text.isdecimal():
        number = int(text)
        if 0 < number <= _RTMAX:
            return number
        raise InvalidParameter(f"Invalid signal: {text}")
    name = text.upper().removeprefix("SIG")
    for base, start in (("RTMIN", _RTMIN), ("RTMAX", _RTMAX)):
        if name.startswith(base):
            offset = name.removeprefix(base) or "+0"
            try:
                number = start + int(offset)
            except ValueError:
                break
            if _RTMIN <= number <= _RTMAX:
                return number
    found = signal.Signals.__members__.get(f"SIG{name}")
    if found is None or name.startswith("RT"):
        raise InvalidParameter(f"Invalid signal: {text}")
    return found.value
