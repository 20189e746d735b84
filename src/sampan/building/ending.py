"""The wish to end a build early: when its client leaves, or the daemon does."""

from __future__ import annotations

import asyncio
import threading

from sampan.building.errors import BuildCancelled
from sampan.images import Cancellation


class Ending:
    """Set once, on the event loop; asked by the build's coroutine and by its threads.

    Attributes:
        pulls: is set with it.
    """

    def __init__(self) -> None:
        self.pulls = Cancellation()
        self._told = asyncio.Event()
        self._flag = threading.Event()

    def set(self) -> None:
        """Ask for the end."""
        self._flag.set()
        self._told.set()
        self.pulls.set()

    def check(self) -> None:
        """Raise `BuildCancelled` when the end was asked for."""
        if self._flag.is_set():
            raise BuildCancelled

    @property
    def is_set(self) -> bool:
        """Whether it was."""
        return self._flag.is_set()

    async def wait(self) -> None:
        """Return when the end is asked for."""
        await self._told.wait()
