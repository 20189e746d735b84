"""The images that builds stand on, which neither `rmi` nor a prune takes away."""

from __future__ import annotations

import threading
from collections import Counter


class HeldImages:
    """Ids with how often they are held. Builds hold from threads of theirs, and removals ask from others.

    What a build finds or makes it holds before anybody could remove it: see `ImageService.lock`.
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

    def release(self, image_id: str) -> None:
        """One who held it does so no more."""
        with self._lock:
            self._counts[image_id] -= 1
            if not self._counts[image_id]:
                del self._counts[image_id]
