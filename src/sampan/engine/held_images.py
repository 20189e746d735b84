"""The images that builds stand on, or containers are made of just now: no removal takes them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class HeldImages:
    """Ids with how often they are held. Builds hold from threads of theirs, and removals ask from others.

    Who finds or makes an image must hold it before anybody can remove it (`ImageService.lock`), or look
    afterwards whether it is still there (`ImageService.check_here`).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._counts

    def hold(self, image_id: str) -> None:
        """Keep an image; wants a `release`."""
        with self._lock:
            self._counts[image_id] += 1

    @contextmanager
    def holding(self, image_id: str) -> Iterator[None]:
        """Keep one for the block."""
        self.hold(image_id)
        try:
            yield
        finally:
            self.release(image_id)

    def release(self, image_id: str) -> None:
        """One who held it does so no more."""
        with self._lock:
            self._counts[image_id] -= 1
            if not self._counts[image_id]:
                del self._counts[image_id]
