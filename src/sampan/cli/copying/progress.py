"""What `cp` tells on a terminal while bytes pass, and what it says at the end: docker's own lines."""

from __future__ import annotations

import os
import sys
import time

from sampan.cli.human import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_EVERY_S = 0.075
_ERASE_LINE, _ERASE_REST = "\x1b[2K", "\x1b[0K"
_SAVE, _RESTORE, _HIDE, _SHOW = "\x1b7", "\x1b8", "\x1b[?25l", "\x1b[?25h"


class Progress:
    """Counts the bytes of a copy. Use as a context around it.

    Args:
        header: what stands before the number: "Copying to container - ".
        quiet: whether nothing is shown.
    """

    def __init__(self, header: str, quiet: bool) -> None:
        self.total = 0
        self._header = header
        self._quiet = quiet
        self._shown = not quiet and os.isatty(2)
        self._last = 0.0

    def __enter__(self) -> Progress:
        if self._shown:
            self._say(f"{_SAVE}Preparing to copy...{_HIDE}{_RESTORE}{_ERASE_LINE}{self._header}{size(0)}")
        return self

    def __exit__(self, *error: object) -> None:
        if self._shown:
            self._say(f"{_SHOW}{_RESTORE}{_ERASE_LINE}")

    def count(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The pieces, counted on their way."""
        for piece in pieces:
            self.total += len(piece)
            if self._shown and (now := time.monotonic()) - self._last >= _EVERY_S:
                self._last = now
                self._say(f"\x1b[{len(self._header) + 1}G{_ERASE_REST}{size(self.total)}")
            yield piece

    def done(self, where: str) -> None:
        """The last line."""
        if not self._quiet:
            self._say(f"Successfully copied {size(self.total)} to {where}\n")

    @staticmethod
    def _say(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
