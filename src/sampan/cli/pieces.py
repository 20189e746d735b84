"""A file or our standard input as pieces for a request's body."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = 256 * 1024


def pieces_of(fd: int) -> Iterator[bytes]:
    """What can be read from a descriptor, until its end."""
    while True:
        piece = os.read(fd, PIECE)
        if not piece:
            return
        yield piece
