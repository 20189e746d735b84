"""The daemon's SQLite file: one connection, short transactions, each package owns its own tables.

WAL with `synchronous=NORMAL`: a crash of the process loses nothing that was committed, a power cut may lose
the last moments but never tears the file (https://www.sqlite.org/wal.html), and a commit costs no fsync.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RESERVE_BYTES = 1 << 20


class Database:
    """A SQLite file shared by the threads of one process.

    Beside the file lies a reserve of `RESERVE_BYTES`. It is given up when the disk is full, so that what
    frees space (removing a container, an image) can still be written down, and taken again later.

    Args:
        path: the file; it is created when missing, its directory must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reserve = path.with_name(path.name + "-reserve")
        self._reserved = self._reserve.exists()
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("PRAGMA foreign_keys=ON")

    def script(self, statements: str) -> None:
        """Run `CREATE TABLE IF NOT EXISTS …` statements, once, when a package opens its tables."""
        with self._lock:
            self._connection.executescript(statements)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All `execute` calls of this thread inside the block happen, or none does."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._mind_the_disk()
            with self._room():
                self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                with self._room():
                    self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has ended it already
                    self._connection.execute("ROLLBACK")
                raise

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows (empty for one that has none).

        Raises:
            sqlite3.Error: as SQLite reports it; `IntegrityError` for a broken constraint.
            OSError: ENOSPC.
        """
        with self._lock, self._room():
            if not self._connection.in_transaction and not statement.startswith("SELECT"):
                self._mind_the_disk()
            return self._connection.execute(statement, parameters).fetchall()

    def _mind_the_disk(self) -> None:
        space = os.statvfs(self.path.parent)
        free_bytes = space.f_bavail * space.f_frsize
        if self._reserved and free_bytes < RESERVE_BYTES // 4:
            self._reserve.unlink(missing_ok=True)
            self._reserved = False
        elif not self._reserved and free_bytes > 8 * RESERVE_BYTES:
            with contextlib.suppress(OSError), self._reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
                self._reserved = True

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Say of a full disk what everybody else says of it."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path)) from error
            raise

    def close(self) -> None:
        """Close the file; later calls raise `sqlite3.ProgrammingError`."""
        with self._lock:
            self._connection.close()
