"""Looks whether what bridge networks stand on is still there, and has it put back.

A start looks anyway (`grounds`). But containers that run are to reach the world again without one when
somebody has flushed all rules, and to be kept from the host's 127.0.0.0/8 again, that at once: nf_tables
tells when a table of ours is changed. Of the rest nobody tells; a look every few seconds costs some tens of
microseconds.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable

from sampan.errors import SampanError
from sampan.linux.nftnews import TableNews

log = logging.getLogger("sampan.network")
EVERY_S = 2.0
_OBSTACLES_EVERY = 5  # looks


class Tending:
    """The looks of one daemon.

    Args:
        table: the name of our tables.
        put_back: puts back what is missing.
        obstacles: tells of firewalls of others that are in the way.
    """

    def __init__(self, table: str, put_back: Callable[[], None], obstacles: Callable[[], list[str]]) -> None:
        self._table = table
        self._put_back = put_back
        self._obstacles = obstacles
        self._told: set[str] = set()
        self._trouble = ""
        self._end = -1
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Look from now on; what is in the way already is told at once."""
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            news = TableNews(self._table, (socket.AF_INET, socket.AF_INET6, socket.AF_BRIDGE), elements=False)
        except OSError:
            news = None  # there is no nf_tables, and so no table of ours
        self._look(obstacles=True)
        self._thread = threading.Thread(target=self._run, args=(news,), name="network-tending", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        if self._thread is not None:
            os.eventfd_write(self._end, 1)
            self._thread.join()
            os.close(self._end)
            self._thread = None

    def _run(self, news: TableNews | None) -> None:
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        if news is not None:
            poll.register(news, select.POLLIN)
        looks, due = 0, time.monotonic() + EVERY_S
        while True:
            ready = {fd for fd, _ in poll.poll(max(0.0, due - time.monotonic()) * 1000)}
            if self._end in ready:
                break
            if not ready:
                looks, due = looks + 1, time.monotonic() + EVERY_S
                self._look(obstacles=looks % _OBSTACLES_EVERY == 0)
            elif news is not None and news.changed():
                self._look(obstacles=False)
        if news is not None:
            news.close()

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
