"""What egress policies have refused to containers: a file of JSON lines beside each one's log, and who reads.

A container can have as much refused as it likes: the file is begun anew when it has grown to a limit, with
the one before kept beside it.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from sampan.network.egress import Refusal

_NAME, _OLDER = "egress.log", "egress.log.1"
_MOST_BYTES = 1 << 20
_MOST_UNREAD = 4096  # of one who follows; older ones are dropped for newer

Wanted = Callable[[str], bool]


class Refusals:
    """The files of all containers. `note` may be called from any thread.

    Args:
        directory: of a container, by its id.
    """

    def __init__(self, directory: Callable[[str], Path]) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._followers: set[_Follower] = set()

    def note(self, refusal: Refusal) -> None:
        """Write one down, and tell who follows."""
        line = json.dumps(asdict(refusal)) + "\n"
        path = self._directory(refusal.container_id) / _NAME
        with self._lock:
            with suppress(OSError):  # the container is gone, or the disk full
                fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.write(fd, line.encode())
                    full = os.fstat(fd).st_size > _MOST_BYTES
                finally:
                    os.close(fd)
                if full:
                    path.rename(path.with_name(_OLDER))
            for follower in self._followers:
                follower.tell(refusal)

    def read(self, container_ids: Iterable[str]) -> list[Refusal]:
        """What is written down of some containers, in the order of time."""
        found = []
        for container_id in container_ids:
            for name in (_OLDER, _NAME):
                with suppress(FileNotFoundError):
                    text = (self._directory(container_id) / name).read_text()
                    for line in text.splitlines():
                        with suppress(ValueError, TypeError):  # a line that a crash cut short
                            found.append(Refusal(**json.loads(line)))
        return sorted(found, key=lambda one: one.time_ns)

    async def follow(self, wanted: Wanted, container_ids: Iterable[str]) -> AsyncGenerator[Refusal]:
        """What is written down of some containers, and then what comes, without end.

        Args:
            wanted: whether what comes of a container is to be told.
            container_ids: those whose past is told.
        """
        follower = _Follower(wanted, asyncio.get_running_loop())

        def begin() -> list[Refusal]:
            with self._lock:  # so that nothing is told twice or not at all
                self._followers.add(follower)
                return self.read(container_ids)

        try:
            for refusal in await asyncio.to_thread(begin):
                yield refusal
            while True:
                yield await follower.next()
        finally:
            with self._lock:
                self._followers.discard(follower)


class _Follower:
    def __init__(self, wanted: Wanted, loop: asyncio.AbstractEventLoop) -> None:
        self._wanted = wanted
        self._loop = loop
        self._unread: deque[Refusal] = deque(maxlen=_MOST_UNREAD)
        self._some = asyncio.Event()

    def tell(self, refusal: Refusal) -> None:
        """From any thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._take, refusal)

    def _take(self, refusal: Refusal) -> None:
        if self._wanted(refusal.container_id):
            self._unread.append(refusal)
            self._some.set()

    async def next(self) -> Refusal:
        """The next one."""
        while not self._unread:
            self._some.clear()
            await self._some.wait()
        return self._unread.popleft()
