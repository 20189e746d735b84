"""Resource limits by their OCI names (getrlimit(2); runtime spec, config.md, "POSIX process")."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterable, Mapping
from typing import Any

INFINITY = resource.RLIM_INFINITY
_UNLIMITED = 2**64 - 1  # how JSON spells it

# Linux include/uapi/asm-generic/resource.h; x86 and ARM use these numbers.
NUMBERS: dict[str, int] = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}


def apply(rlimits: Iterable[Mapping[str, Any]], pid: int = 0) -> None:
    """Set limits.

    Args:
        rlimits: OCI objects `{"type": "RLIMIT_NOFILE", "soft": …, "hard": …}`.
        pid: whose; 0 is the calling process.

    Raises:
        ValueError: an unknown type.
        OSError: the kernel refuses, naming the limit and saying what it needs.
    """
    for entry in rlimits:
        number, *wanted = numbers(entry)
        try:
            resource.prlimit(pid, number, (wanted[0], wanted[1]))
        except (OSError, ValueError) as error:
            code = error.errno if isinstance(error, OSError) else None
            raise refusal(entry, code or errno.EINVAL, pid) from None


def numbers(entry: Mapping[str, Any]) -> tuple[int, int, int]:
    """The kernel's number of a limit, its soft and its hard value.

    Raises:
        ValueError: an unknown type.
    """
    name = entry["type"]
    if name not in NUMBERS:
        raise ValueError(f"unknown resource limit {name!r}")
    return NUMBERS[name], _number(entry["soft"]), _number(entry["hard"])


def _number(value: int) -> int:
    return INFINITY if value < 0 or value >= _UNLIMITED else value


def refusal(entry: Mapping[str, Any], code: int, pid: int = 0) -> OSError:
    """The kernel's refusal of a limit, an errno, in words."""
    number, soft, hard = numbers(entry)
    reason = os.strerror(code)
    if code == errno.EPERM:
        _, present = resource.prlimit(pid, number)
        reason = f"raising it above {_text(present)} needs CAP_SYS_RESOURCE, which this machine does not give"
    elif code == errno.EINVAL and (hard != INFINITY and (soft == INFINITY or soft > hard)):
        reason = "the soft limit is above the hard limit"
    return OSError(code, f"error setting rlimit {entry['type']} to {_text(soft)}:{_text(hard)}: {reason}")


def _text(value: int) -> str:
    return "unlimited" if value == INFINITY else str(value)
