"""Caches of builds: who gets which, who waits, and what a crash leaves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from sampan.engine.build_caches import BuildCache, BuildCaches


async def taken(caches: BuildCaches, alone: bool = False, fresh: bool = False, key: str = "k") -> BuildCache:
    return await caches.take(key, "text", alone, fresh, Path.mkdir)


async def waits(task: asyncio.Task[BuildCache]) -> bool:
    """Whether it is still waiting when all others have had their turn."""
    for _ in range(5):
        await asyncio.sleep(0)
    return not task.done()


def test_who_waits_for_whom(tmp_path: Path) -> None:
    async def work() -> None:
        caches = BuildCaches(tmp_path / "root")
        one = await taken(caches)
        assert await taken(caches) is one  # shared
        locked = asyncio.create_task(taken(caches, alone=True))
        left = asyncio.create_task(taken(caches, alone=True))
        assert await waits(locked) and await waits(left)
        left.cancel()  # its client is gone
        await caches.give_back(one)
        assert await waits(locked) and not caches.remove(one)
        await caches.give_back(one)
        assert await locked is one
        shared = asyncio.create_task(taken(caches))
        assert await waits(shared)
        apart = await taken(caches, fresh=True)
        assert apart is not one and await taken(caches, key="other") not in (one, apart)
        await caches.give_back(one)
        assert await shared is one
        await caches.give_back(apart)
        assert await taken(caches, fresh=True) is apart
        assert len(caches.all()) == 3

    asyncio.run(work())


def test_what_a_crash_leaves(tmp_path: Path) -> None:
    async def fill() -> BuildCache:
        caches = BuildCaches(tmp_path)
        cache = await taken(caches, key="../../x")
        (caches.data(cache) / "f").write_bytes(bytes(10))
        return cache

    cache = asyncio.run(fill())
    (tmp_path / ".new-half").mkdir()
    (tmp_path / ".trash-gone").mkdir()
    (tmp_path / "broken/data").mkdir(parents=True)
    (tmp_path / "broken/cache.json").write_text("{")
    caches = BuildCaches(tmp_path)
    caches.repair()
    assert [(one.id, one.key, one.users, one.usage_count) for one in caches.all()] == [
        (cache.id, "../../x", 0, 1)
    ]
    caches.purge_trash()
    assert [one.name for one in tmp_path.iterdir()] == [cache.id]
    assert caches.size_bytes(caches.all()[0]) == 10
    assert caches.remove(caches.all()[0]) and not caches.all() and not BuildCaches(tmp_path).all()


def test_a_cache_that_cannot_be_made_is_none(tmp_path: Path) -> None:
    async def work() -> None:
        caches = BuildCaches(tmp_path)

        def full(directory: Path) -> None:
            directory.mkdir()
            raise OSError(28, "No space left on device")

        for _ in range(2):
            try:
                await caches.take("k", "text", False, False, full)
            except OSError as error:
                assert error.errno == 28
        assert not caches.all() and not list(tmp_path.iterdir())
        kept = await taken(caches)  # the lock was let go of
        assert json.loads((tmp_path / kept.id / "cache.json").read_text())["description"] == "text"

    asyncio.run(work())
