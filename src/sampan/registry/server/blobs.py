"""Blobs in files: `<root>/blobs/<algorithm>/<hex>`, the layout of an OCI image directory.

A blob is whole or absent. Its bytes are on the disk before it gets its name, and it gets its name and its row
in the catalog under the catalog's lock, as the collector takes both away.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sampan.registry.server.names import ALGORITHMS, check_digest


class Blobs:
    """The directory of blobs.

    Args:
        root: the registry's data directory.
    """

    def __init__(self, root: Path) -> None:
        self._directory = root / "blobs"
        for algorithm in ALGORITHMS:
            (self._directory / algorithm).mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, digest: str) -> Path:
        """Where a blob is, or would be."""
        algorithm, _, digits = check_digest(digest).partition(":")
        return self._directory / algorithm / digits

    def open(self, digest: str) -> int:
        """A descriptor for reading.

        Raises:
            FileNotFoundError: it is not here.
        """
        return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def adopt(self, source: Path, digest: str) -> None:
        """Give a file that is on the disk already, and verified, the name of its digest."""
        target = self.path(digest)
        os.rename(source, target)
        directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def remove(self, digest: str) -> None:
        """Take a blob away; whoever has it open reads on."""
        self.path(digest).unlink(missing_ok=True)

    def files(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Everything that is there: digest, or a text that is none, and the directory's entry."""
        for algorithm in ALGORITHMS:
            with os.scandir(self._directory / algorithm) as entries:
                for entry in entries:
                    yield f"{algorithm}:{entry.name}", entry
