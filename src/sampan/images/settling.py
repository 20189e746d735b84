"""Bringing new images to the disk after the answer, and knowing after a power cut which never got there.

Flushing what a large image wrote takes as long as unpacking it. So an image is recorded as *unsettled*, with
the id of the machine's present boot, in the transaction that adds it; a thread then flushes the file system
and takes the mark away. A crash of the daemon alone loses nothing, the kernel has the pages. After a power
cut the mark names another boot: `sampan.images.repair` then trusts nothing of that image unverified.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sampan.database import Database
from sampan.linux import syscalls

_log = logging.getLogger(__name__)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
DELAY_S = 1.0


class Settling:
    """The marks, and the thread that takes them away.

    Args:
        database: holds the table `image_unsettled`.
        flush: returns once everything written before is on disk.
    """

    def __init__(self, database: Database, flush: Callable[[], None]) -> None:
        self._database = database
        self._flush = flush
        self._boot = _BOOT_ID.read_text().strip()
        self._lock = threading.Lock()
        self._wanted = False
        self._running = False

    def mark(self, image_id: str) -> None:
        """Note that the image's files may not be on disk; to be called in the transaction that adds it."""
        self._database.execute(
            "INSERT INTO image_unsettled (image, boot) VALUES (?, ?)"
            " ON CONFLICT (image) DO UPDATE SET boot = excluded.boot",
            (image_id, self._boot),
        )
        self.begin()

    def doubtful(self) -> list[str]:
        """The images that were on their way to the disk when the machine went down."""
        rows = self._database.execute("SELECT image FROM image_unsettled WHERE boot != ?", (self._boot,))
        return [row[0] for row in rows]

    def unsettled(self) -> list[str]:
        """The images that are on their way to the disk now."""
        rows = self._database.execute("SELECT image FROM image_unsettled WHERE boot = ?", (self._boot,))
        return [row[0] for row in rows]

    def begin(self) -> None:
        """Flush in the background, soon."""
        with self._lock:
            self._wanted = True
            if self._running:
                return
            self._running = True
        threading.Thread(target=self._work, name="settle", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._running = False
                    return
                self._wanted = False
            time.sleep(DELAY_S)  # what comes in a burst is flushed at once
            try:
                self.settle()
            except OSError as error:
                _log.warning("images could not be flushed to the disk, and stay marked: %s", error)
            except sqlite3.ProgrammingError:
                return  # the daemon has closed its database and leaves; the next one sees the marks

    def settle(self) -> None:
        """Flush, and take away the marks that were there before.

        Raises:
            OSError: the disk could not be written.
        """
        before = self.unsettled()
        if not before:
            return
        self._flush()
        with self._database.transaction():
            for image_id in before:
                self._database.execute(
                    "DELETE FROM image_unsettled WHERE image = ? AND boot = ?", (image_id, self._boot)
                )


def flush_file_system(path: Path) -> None:
    """Return once everything written to the file system of this directory is on disk (syncfs(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        syscalls.syncfs(fd)
    finally:
        os.close(fd)
