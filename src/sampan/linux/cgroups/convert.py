"""v1 numbers, in which OCI and Docker speak, to v2's."""

from __future__ import annotations

import math

from sampan.errors import InvalidParameter


def cpu_weight(shares: int) -> int:
    """`cpu.weight` (1 to 10000) for `cpu.shares` (2 to 262144).

    A curve through the two ends and the two defaults, 1024 and 100, so that a container that asks for the
    default weighs the same as a process outside; a straight line would give it 39.
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    power = math.log2(shares)
    return math.ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """`io.weight` (1 to 10000) for `blkio.weight` (10 to 1000)."""
    return 1 + (weight - 10) * 9999 // 990


def swap_maximum(limit: int, swap: int) -> str:
    """`memory.swap.max`, swap alone, for v1's limit of memory and swap together.

    Args:
        limit: of memory, in bytes; 0 when not set, -1 for none.
        swap: memory and swap; -1 for none.

    Raises:
        InvalidParameter: the sum is below its part, or there is no part to subtract.
    """
    if swap < 0 or limit < 0:
        return "max"
    if limit == 0:
        raise InvalidParameter("a limit on memory and swap together needs a memory limit")
    if swap < limit:
        raise InvalidParameter("the limit on memory and swap together must not be below the memory limit")
    return str(swap - limit)
