"""Durations as Go's `time.Duration` writes them, which is how people see Docker's."""

from __future__ import annotations


def shown(duration_ns: int) -> str:
    """`1h0m5s`, `1.5s`, `20ms`, `0s`."""
    sign, rest = ("-", -duration_ns) if duration_ns < 0 else ("", duration_ns)
    if rest < 10**9:
        for size_ns, unit in ((10**6, "ms"), (10**3, "µs"), (1, "ns")):
            if rest >= size_ns:
                return f"{sign}{_decimal(rest, size_ns)}{unit}"
        return "0s"
    minutes, rest = divmod(rest, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    above = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{above}{_decimal(rest, 10**9)}s"


def _decimal(number: int, unit: int) -> str:
    whole, rest = divmod(number, unit)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0") if rest else str(whole)
