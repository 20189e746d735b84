"""Large layers of a pull unpacked by a process beside the daemon, while they arrive.

Downloading and hashing them goes on in the daemon's threads meanwhile, which else would take turns with the
unpacking. Of all pulls together `PLACES` have such a process at a time; others, small layers, and layers that
have to look at those below them are unpacked in the daemon.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType

from sampan.images.downloads import Following
from sampan.storage import Driver, DriverError, ParentNeeded, PreparedLayer
from sampan.storage.unpack_process import Apart, UnpackProcess

PLACES = 2
APART_BYTES = 16 << 20  # such layers are worth the start of a process
_log = logging.getLogger(__name__)
_places = threading.BoundedSemaphore(PLACES)


class Helper:
    """The process of one pull, begun when the first layer wants it. As a context it ends with the pull."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._process: UnpackProcess | None = None

    def prepare(
        self, following: Following, size: int, tell: Callable[[int], None]
    ) -> tuple[PreparedLayer, str] | None:
        """Unpack a layer that arrives; None when it has to be done here.

        Args:
            size: of its blob in bytes.
            tell: receives how much of the blob has been unpacked.

        Returns:
            the layer, and its diff id.

        Raises:
            InvalidLayer: the layer is broken or hostile.
            SampanError, OSError: the download failed.
        """
        if size < APART_BYTES or not self._driver.unpacks_alone or not self._begin():
            return None
        assert self._process is not None
        fd, growth = following.growth()
        apart = Apart(self._process, fd, growth, tell)
        try:
            prepared = self._driver.prepare_ahead(apart)
        except (ParentNeeded, DriverError) as error:  # a full disk among them, which is told better here
            _log.debug("layer %s is unpacked in the daemon: %s", following.digest, error)
            return None
        finally:
            if not self._process.usable:
                self._end()
        return prepared, apart.diff_id or following.digest

    def _begin(self) -> bool:
        if self._process is not None:
            return True
        if not _places.acquire(blocking=False):
            return False
        try:
            self._process = UnpackProcess()
        except OSError as error:
            _places.release()
            _log.warning("layers are unpacked in the daemon itself: no process can be started: %s", error)
            return False
        return True

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            try:
                process.close()
            finally:
                _places.release()

    def __enter__(self) -> Helper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
