"""How much an archive may unfold to before it is taken for a decompression bomb."""

from __future__ import annotations

from sampan.dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that are enforced while bytes stream.

    Attributes:
        max_bytes: the most that one layer may hold, uncompressed.
        max_members: the most files that one layer may hold.
        max_ratio: the most that compression may have shrunk it, once past `ratio_from_bytes`.
        ratio_from_bytes: below this many uncompressed bytes the ratio does not matter.
        min_free_bytes: space on the file system that a layer may never eat up.
    """

    max_bytes: int = 1 << 40
    max_members: int = 20_000_000
    max_ratio: int = 250
    ratio_from_bytes: int = 2 << 30
    min_free_bytes: int = 64 << 20
