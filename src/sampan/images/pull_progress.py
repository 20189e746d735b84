"""What a pull tells on its way: Docker's messages, not more often than a client can show them."""

from __future__ import annotations

import threading
import time
from typing import Any

from sampan.images.downloads import COMPLETE, DOWNLOADING
from sampan.images.unpacking import Progress

INTERVAL_S = 0.1
STEP_BYTES = 512 << 10
_WIDTH = 50


class LayerProgress:
    """The messages of one layer.

    Args:
        identity: the digits by which it is shown.
        size: of its blob in bytes.
        tell: receives the messages; it is called from several threads.
    """

    def __init__(self, identity: str, size: int, tell: Progress) -> None:
        self._identity = identity
        self.size = size
        self._tell = tell
        self._lock = threading.Lock()
        self._told_at = 0.0
        self._told_bytes = 0
        self._here = False

    def status(self, text: str) -> None:
        """A step without a number."""
        self._tell({"status": text, "progressDetail": {}, "id": self._identity})

    def download(self, status: str, count: int | None) -> None:
        """A step of the download (`sampan.images.downloads.Watcher`)."""
        if status == DOWNLOADING and count is not None:
            self._bytes(DOWNLOADING, count)
            return
        if status == COMPLETE:
            with self._lock:
                self._here = True
                self._told_at, self._told_bytes = 0.0, 0
        self.status(status)

    def extract(self, count: int) -> None:
        """So many bytes of the blob are unpacked; told once the download is over, as Docker does it."""
        if self._here:
            self._bytes("Extracting", count)

    def extracted(self) -> None:
        """All of them are, and the layer is in the store."""
        self._tell(progress_message("Extracting", self.size, self.size, self._identity))
        self.status("Pull complete")

    def _bytes(self, status: str, count: int) -> None:
        now = time.monotonic()
        with self._lock:
            step = min(STEP_BYTES, self.size // 100)
            if now - self._told_at < INTERVAL_S or count - self._told_bytes <= step:
                return
            self._told_at, self._told_bytes = now, count
        self._tell(progress_message(status, count, self.size, self._identity))


def progress_message(status: str, current: int, total: int, identity: str) -> dict[str, Any]:
    """A message with numbers, and the bar that clients of before 2015 show."""
    done = min(current * _WIDTH // total if total else 0, _WIDTH)
    counts = f"{human_size(current):>8}"
    if current <= total:
        counts += f"/{human_size(total)}"
    return {
        "status": status,
        "progressDetail": {"current": current, "total": total},
        "progress": f"[{'=' * done}>{' ' * (_WIDTH - done)}]  {counts}",
        "id": identity,
    }


def human_size(count: float) -> str:
    """Bytes with four digits and a decimal unit, as Go's units.HumanSize writes them."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.4g}{unit}"
        count /= 1000
    return f"{count:.4g}PB"
