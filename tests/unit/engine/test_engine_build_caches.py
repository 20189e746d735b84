"""Caches of builds: who gets which, who waits, and what a crash leaves."""

from __future__ import annotations

import asyncio
import json
import threading
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
        caches.give_back(one)
        assert await waits(locked) and not caches.remove(one)
        caches.give_back(one)
        assert await locked is one
        shared = asyncio.create_task(taken(caches))
        assert await waits(shared)
        caches.give_back(one)
        assert await shared is one
        apart = await taken(caches, fresh=True)
        assert apart is not one and await taken(caches, key="other") not in (one, apart)
        caches.give_back(one)
        first = await taken(caches, fresh=True)
        kept = asyncio.create_task(taken(caches))  # nobody shares what is private
        assert first is one and await waits(kept)
        caches.give_back(one)
        assert await kept is one
        caches.give_back(apart)
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


def test_who_waits_for_one_that_is_being_made(tmp_path: Path) -> None:
    """Those who want it, and nobody else; its maker may go, and what it leaves is whole or nothing."""
    go, stop = threading.Event(), threading.Event()

    def slow(directory: Path) -> None:
        directory.mkdir()
        assert go.wait(60)

    def failing(directory: Path) -> None:
        directory.mkdir()
        assert stop.wait(60)
        raise OSError(28, "No space left on device")

    async def work() -> None:
        caches = BuildCaches(tmp_path)
        making = asyncio.create_task(caches.take("k", "text", True, False, slow))
        broken = asyncio.create_task(caches.take("b", "text", False, False, failing))
        assert await waits(making) and await waits(broken) and not caches.all()
        same = [asyncio.create_task(taken(caches)) for _ in range(2)]
        after = asyncio.create_task(taken(caches, key="b"))
        other = await asyncio.wait_for(taken(caches, key="other"), 30)
        apart = await asyncio.wait_for(taken(caches, fresh=True), 30)
        caches.give_back(other)
        assert caches.all() == [other, apart] and await waits(making) and await waits(after)
        assert await waits(same[0]) and await waits(same[1])  # apart is private
        late = asyncio.create_task(taken(caches, alone=True))
        making.cancel()
        await asyncio.wait((making,))
        assert making.cancelled() and await waits(late)
        go.set()
        made, again = [await asyncio.wait_for(one, 30) for one in same]  # what was made all the same
        assert made is again and made is not apart and await waits(late)
        caches.give_back(made)
        caches.give_back(made)
        assert await asyncio.wait_for(late, 30) is made and len(caches.all()) == 3
        stop.set()
        await asyncio.wait((broken,))
        assert isinstance(broken.exception(), OSError)
        assert (await asyncio.wait_for(after, 30)).usage_count == 1  # who waited makes it
        assert len(caches.all()) == len(list(tmp_path.iterdir())) == 4

    try:
        asyncio.run(work())
    finally:
        go.set()
        stop.set()
