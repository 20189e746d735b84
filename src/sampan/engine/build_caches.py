"""The cache mounts of builds (`RUN --mount=type=cache`): directories that outlive the builds that fill them.

Each is `<root>/<random>/` with `data`, which is mounted, and `cache.json`, which says what it is. One gets
its name when it is all there, and another one when it is removed, so that a crash leaves nothing half. Names
that Dockerfiles give are only ever data of that file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, field
from pathlib import Path

from sampan.dataclasses import dataclass
from sampan.linux import trees
from sampan.volumes import size_bytes

_RECORD = "cache.json"
_NEW, _TRASH = ".new-", ".trash-"


@dataclass(slots=True)
class BuildCache:
    """One cache.

    Attributes:
        id: random.
        key: what a build asks for; several caches may have the same, see `BuildCaches.take`.
        description: for people.
        users: how many commands have it mounted now.
        exclusive: whether one of these wants it alone.
    """

    id: str
    key: str
    description: str
    created_at_ns: int
    last_used_at_ns: int
    usage_count: int = 0
    users: int = field(default=0, compare=False)
    exclusive: bool = field(default=False, compare=False)


class BuildCaches:
    """All caches of a daemon. Nothing is read before somebody asks."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, BuildCache] | None = None
        self._making: list[str] = []
        self._changed = asyncio.Event()

    # --- for builds, on the event loop ---

    async def take(
        self, key: str, description: str, alone: bool, fresh: bool, fill: Callable[[Path], None]
    ) -> BuildCache:
        """A cache for one command; wants `give_back`.

        Whoever asks for one that is being made waits for it, and nobody else does. When its maker no longer
        waits, it is made all the same, for the next.

        Args:
            key: what names it, with everything that a new one is made of.
            alone: wait until nobody else has it.
            fresh: never wait: one that nobody has, or else a new one; nobody else gets it meanwhile.
            fill: makes the directory of a new one; in a thread.

        Raises:
            OSError: the disk is full or broken.
        """
        while True:
            there = [one for one in self.all() if one.key == key]
            for one in there:
                if not one.users or not (alone or fresh or one.exclusive):
                    return self._use(one, alone or fresh)
            if fresh or not (there or key in self._making):
                break
            await self._changed.wait()
        self._making.append(key)
        making = asyncio.create_task(self._new(key, description, alone or fresh, fill))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(self._abandoned)
            raise

    def give_back(self, cache: BuildCache) -> None:
        """The command has ended."""
        cache.users -= 1
        cache.exclusive = False
        cache.last_used_at_ns = time.time_ns()
        with contextlib.suppress(OSError):  # a full disk; it is only for the order of pruning
            self._write(cache)
        self._wake()

    async def _new(self, key: str, description: str, alone: bool, fill: Callable[[Path], None]) -> BuildCache:
        try:
            made = await asyncio.to_thread(self._make, key, description, fill)
            self._index()[made.id] = made
            return self._use(made, alone)
        finally:
            self._making.remove(key)
            self._wake()

    def _use(self, cache: BuildCache, alone: bool) -> BuildCache:
        cache.usage_count += 1
        cache.last_used_at_ns = time.time_ns()
        self._write(cache)
        cache.users += 1
        cache.exclusive = alone
        return cache

    def _abandoned(self, making: asyncio.Task[BuildCache]) -> None:
        if not making.cancelled() and making.exception() is None:
            self.give_back(making.result())

    def _wake(self) -> None:
        """Let all who wait look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def data(self, cache: BuildCache) -> Path:
        """The directory to mount."""
        return self._root / cache.id / "data"

    # --- for everybody ---

    def all(self) -> list[BuildCache]:
        """The caches, by age."""
        return sorted(self._index().values(), key=lambda one: one.created_at_ns)

    def _index(self) -> dict[str, BuildCache]:
        if self._known is None:
            self._known = {one.id: one for one in self._found()}
        return self._known

    def size_bytes(self, cache: BuildCache) -> int:
        """The disk that one takes."""
        return size_bytes(self.data(cache))

    def remove(self, cache: BuildCache) -> bool:
        """Forget one that nobody has mounted; its files go with `purge_trash`.

        Returns:
            whether it is gone; False when it is in use.
        """
        if cache.users or cache.id not in self._index():
            return False
        self._drop(self._root / cache.id)
        del self._index()[cache.id]
        return True

    def repair(self) -> None:
        """At start: drop what a crash has left half-made."""
        if self._root.is_dir():
            for directory in self._root.glob(f"{_NEW}*"):
                self._drop(directory)

    def purge_trash(self) -> None:
        """Delete the files of what was dropped."""
        if self._root.is_dir():
            for directory in self._root.glob(f"{_TRASH}*"):
                trees.remove(directory)

    # --- on the disk ---

    def _found(self) -> Iterator[BuildCache]:
        if not self._root.is_dir():
            return
        for directory in self._root.iterdir():
            if directory.name.startswith("."):
                continue
            try:
                yield BuildCache(directory.name, **json.loads((directory / _RECORD).read_bytes()))
            except (OSError, ValueError, TypeError):  # a disk's fault: nobody can use it
                self._drop(directory)

    def _drop(self, directory: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.rename(directory, self._root / f"{_TRASH}{secrets.token_hex(8)}")

    def _make(self, key: str, description: str, fill: Callable[[Path], None]) -> BuildCache:
        now = time.time_ns()
        cache = BuildCache(secrets.token_hex(12), key, description, now, now)
        directory = self._root / f"{_NEW}{cache.id}"
        directory.mkdir(mode=0o700, parents=True)
        try:
            fill(directory / "data")
            self._write(cache, directory)
            os.rename(directory, self._root / cache.id)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return cache

    def _write(self, cache: BuildCache, directory: Path | None = None) -> None:
        known = asdict(cache)
        for name in ("id", "users", "exclusive"):
            del known[name]
        place = (directory or self._root / cache.id) / _RECORD
        new = place.with_suffix(".new")
        new.write_text(json.dumps(known))
        os.replace(new, place)
