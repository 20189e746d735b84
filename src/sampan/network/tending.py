"""Looks every few seconds whether what bridge networks stand on is still there, and has it put back.

A start looks anyway (`grounds`). But containers that run are to reach the world again without one when
somebody has flushed all rules, and to be kept from the host's 127.0.0.0/8 again. Nobody tells of a flush in a
way that costs nothing while nothing is flushed; a look costs some tens of microseconds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sampan.errors import SampanError

log = logging.getLogger("sampan.network")
EVERY_S = 2.0
_OBSTACLES_EVERY = 5  # looks


class Tending:
    """The looks of one daemon.

    Args:
        put_back: puts back what is missing.
        obstacles: tells of firewalls of others that are in the way.
    """

    def __init__(self, put_back: Callable[[], None], obstacles: Callable[[], list[str]]) -> None:
        self._put_back = put_back
        self._obstacles = obstacles
        self._told: set[str] = set()
        self._trouble = ""
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Look from now on; what is in the way already is told at once."""
        self._end.clear()
        self._look(obstacles=True)
        self._thread = threading.Thread(target=self._run, name="network-tending", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        looks = 0
        while not self._end.wait(EVERY_S):
            looks += 1
            self._look(obstacles=looks % _OBSTACLES_EVERY == 0)

    def _look(self, *, obstacles: bool) -> None:
        try:
            self._put_back()
            self._trouble = ""
        except (SampanError, OSError) as error:
            if str(error) != self._trouble:
                log.error("%s", error)
            self._trouble = str(error)
        if obstacles:
            found = set(self._obstacles())
            for line in found - self._told:
                log.warning("%s", line)
            self._told = found
