"""Notices what the rules refuse, and at once when somebody else changes them.

A thread that begins with the first policy. Refused packets come from the rules by nfnetlink_log; changes of
any table are told by nf_tables (`nft monitor` shows the same), with the port of the netlink socket that asked
for them, by which our own are known.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack

from sampan.linux.nflog import Logged, LogGroup
from sampan.linux.nftnews import TableNews
from sampan.network.egress.rules import SNAP_BYTES

log = logging.getLogger("sampan.network")
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_BRIDGE)


class Watching:
    """The thread.

    Args:
        table: the name of the tables.
        group: which the rules log to.
        ours: the port of the netlink socket that our changes are asked for by.
        refused: takes each refused packet.
        changed: is called after somebody else has changed the tables; it raises nothing.

    Raises:
        OSError: the kernel has no such notices.
    """

    def __init__(
        self,
        table: str,
        group: int,
        ours: int,
        refused: Callable[[Logged], None],
        changed: Callable[[], None],
    ) -> None:
        self._ours = ours
        self._refused, self._changed = refused, changed
        self._stack = ExitStack()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._stack.callback(os.close, self._wake)
        try:
            self._news = TableNews(table, _FAMILIES)
            self._stack.callback(self._news.close)
            self._log = self._listen(group)
        except BaseException:
            self._stack.close()
            raise
        self._thread = threading.Thread(target=self._run, name="egress", daemon=True)
        self._thread.start()

    def _listen(self, group: int) -> LogGroup | None:
        try:
            found = LogGroup(group, SNAP_BYTES)
        except OSError as error:
            log.warning("refused packets are not logged (nfnetlink_log, group %d): %s", group, error)
            return None
        self._stack.callback(found.close)
        return found

    def close(self) -> None:
        """End it; not from within `changed` or `refused`."""
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._stack.close()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._news, select.POLLIN)
        if self._log is not None:
            poll.register(self._log, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._wake in ready:
                return
            try:
                if self._news.fileno() in ready and self._news.changed(self._ours):
                    self._changed()
                if self._log is not None and self._log.fileno() in ready:
                    for one in self._log.read():
                        self._refused(one)
            except Exception:  # what one packet or message causes is not to end the watch over all
                log.exception("the watch over egress policies stumbled, and goes on")
