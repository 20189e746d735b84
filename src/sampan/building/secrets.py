"""Secrets of RUN as files, which are only ever in memory."""

from __future__ import annotations

import os
from pathlib import Path

from sampan.engine import Core
from sampan.engine.sources import clear_place, make_place
from sampan.linux.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount

_MODE = 0o400


class SecretFiles:
    """The files of one command: on a ramfs, which is never swapped out, below the exec-root.

    The start of the next daemon takes away what a crash has left mounted there.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._place: Path | None = None
        self._count = 0

    def add(self, content: bytes, mode: int | None, uid: int | None, gid: int | None) -> str:
        """A new file; its path.

        Raises:
            OSError: it cannot be made.
        """
        if self._place is None:
            self._place = make_place(self._core, directory=True)
            mount("ramfs", str(self._place), "ramfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700")
        self._count += 1
        file = self._place / str(self._count)
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as opened:
            opened.write(content)
            os.fchown(fd, uid or 0, gid or 0)
            os.fchmod(fd, _MODE if mode is None else mode)
        return str(file)

    def close(self) -> None:
        """Forget the files: whoever has them mounted keeps them till its end. No error the second time."""
        if self._place is not None:
            clear_place(self._place)
            self._place = None
