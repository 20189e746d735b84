"""Descriptors and who sees to them: the monitor's event loop (epoll(7))."""

from __future__ import annotations

import select
from collections.abc import Callable


class Loop:
    """Calls a handler for each watched descriptor that has something to say."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._masks: dict[int, int] = {}
        self._fresh: set[int] = set()

    def __contains__(self, fd: int) -> bool:
        return fd in self._handlers

    def watch(self, fd: int, mask: int, handler: Callable[[int], None]) -> None:
        """Call `handler` with the events of `fd`.

        Args:
            mask: `EPOLL…` flags.
        """
        self._handlers[fd] = handler
        self._masks[fd] = mask
        self._fresh.add(fd)
        self._epoll.register(fd, mask)

    def set_mask(self, fd: int, mask: int) -> None:
        """Wait for other events of a descriptor; one that is not watched is left alone."""
        if self._masks.get(fd, mask) != mask:
            self._masks[fd] = mask
            self._epoll.modify(fd, mask)

    def unwatch(self, fd: int) -> None:
        """Forget a descriptor, before it is closed."""
        if self._handlers.pop(fd, None) is not None:
            del self._masks[fd]
            self._epoll.unregister(fd)

    def turn(self, timeout: float) -> None:
        """Wait for events and handle them.

        An event of a descriptor that was closed meanwhile, and its number given to another, is not for that.

        Args:
            timeout: seconds; negative for ever.
        """
        ready = self._epoll.poll(timeout)
        self._fresh.clear()
        for fd, events in ready:
            handler = self._handlers.get(fd)
            if handler is not None and fd not in self._fresh:
                handler(events)
