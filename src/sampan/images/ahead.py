"""Layers of an archive unpacked while it still arrives, before anybody can say what they are layers of.

A layer's bytes are followed on their way into the scratch file and unpacked into a stage of the driver's.
Only `load` gives a stage its name, once it knows the digest of all the bytes, the image's config and what
lies below. Whatever goes wrong here is no error yet: the stage is dropped, and who needs the layer unpacks it
from the file, as it does with a layer that has to look at those below it. Stages never cost a load its space:
when the archive finds no room, they are given up first.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Container
from types import TracebackType

from sampan.errors import SampanError
from sampan.images.growing import Growing
from sampan.images.records import ImageRecords
from sampan.storage import Driver, PreparedLayer
from sampan.storage.compression import Hashing, ReadAhead, decompressed, sniff
from sampan.storage.tar_reader import BLOCK, looks_like_tar
from sampan.storage.unpack_process import Apart, UnpackProcess

_log = logging.getLogger(__name__)
PLACES = 2
WAITING_LIMIT = 128  # each holds a descriptor
APART_BYTES = 16 << 20  # such layers are worth the start of a process
MIN_BYTES = 64 << 10  # smaller layers are unpacked at once afterwards
START_BYTES = BLOCK  # how much of a file's beginning tells whether it may be a layer


class _NotWanted(SampanError):
    """Ends the thread of a layer that nobody needs any more."""


class LayerAhead:
    """One layer on its way, and afterwards its stage.

    Args:
        growing: its bytes.
        size: how many there will be.
    """

    def __init__(self, growing: Growing, size: int) -> None:
        self.size = size
        self.prepared: PreparedLayer | None = None
        self.diff_id: str | None = None  # of a compressed layer; a plain one has its blob's digest
        self.ended = threading.Event()
        self._growing = growing
        self._fd = os.dup(growing.fd)
        self._at = 0
        self._dropped = False
        self._process: UnpackProcess | None = None
        self._lock = threading.Lock()

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes of the blob."""
        data = self._growing.read_at(self._fd, self._at, size, self._check)
        self._at += len(data)
        return data

    def _check(self) -> None:
        if self._dropped:
            raise _NotWanted("nobody needs this layer")

    def unpack(self, driver: Driver, process: UnpackProcess | None) -> None:
        """The thread's work, done by `process` if there is one."""
        try:
            with self._lock:
                self._process = process
            if process is not None:
                apart = Apart(process, self._fd, self._growing.growth(self._check))
                prepared = driver.prepare_ahead(apart)
                self.diff_id = apart.diff_id
            else:
                prepared = self._unpack_here(driver)
            with self._lock:
                self._process = None
                if not self._dropped:
                    self.prepared = prepared
            if self.prepared is None:
                prepared.discard()
        except (SampanError, OSError) as error:
            _log.debug("a layer is not unpacked ahead: %s", error)
        finally:
            self.close()

    def _unpack_here(self, driver: Driver) -> PreparedLayer:
        kind, plain = decompressed(self)
        if not kind:
            return driver.prepare_ahead(plain)
        hashing = Hashing(plain)
        with ReadAhead(hashing) as stream:
            prepared = driver.prepare_ahead(stream)
        self.diff_id = hashing.digest
        return prepared

    def close(self) -> None:
        """Let go of the file; there will be no more than there is."""
        os.close(self._fd)
        self.ended.set()

    def drop(self) -> None:
        """Nobody needs the stage; a thread that works on it ends soon."""
        with self._lock:
            self._dropped = True
            if self._process is not None:
                self._process.kill()
            prepared, self.prepared = self.prepared, None
        if prepared is not None:
            prepared.discard()


class LayersAhead:
    """The layers of one archive. As a context it drops at its end what has not been taken.

    Args:
        records: tells which layers there are already.
    """

    def __init__(self, records: ImageRecords) -> None:
        self._records = records
        self._lock = threading.Lock()
        self._waiting: deque[LayerAhead] = deque()
        self._running: set[LayerAhead] = set()
        self._all: set[LayerAhead] = set()
        self._digests: dict[str, LayerAhead] = {}
        self._free: list[UnpackProcess] = []
        self._threads: list[threading.Thread] = []
        self._given_up = False

    def begin(self, growing: Growing, start: bytes, size: int, claimed: str | None) -> LayerAhead | None:
        """Follow a file of the archive when it may be a layer that is not here yet.

        Args:
            start: its first `START_BYTES`.
            size: how many bytes it will have.
            claimed: the digest that its name tells.
        """
        # zstd, bzip2 and xz are left out: several at once may need too much memory.
        likely = sniff(start) == "gzip" or looks_like_tar(start)
        if self._given_up or size < MIN_BYTES or not likely:
            return None
        if claimed is not None and self._records.has_unpacked(claimed):
            return None
        with self._lock:
            if len(self._waiting) >= WAITING_LIMIT:
                return None
            layer = LayerAhead(growing, size)
            self._all.add(layer)
            self._waiting.append(layer)
            self._fill_places()
        return layer

    def _fill_places(self) -> None:
        while self._waiting and len(self._running) < PLACES:
            layer = self._waiting.popleft()
            self._running.add(layer)
            thread = threading.Thread(target=self._work, args=(layer,), name="unpack", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self, layer: LayerAhead) -> None:
        process = None
        try:
            if layer.size >= APART_BYTES:
                process = self._process()
            layer.unpack(self._records.driver, process)
        finally:
            with self._lock:
                self._running.discard(layer)
                if process is not None and process.usable and not self._given_up:
                    self._free.append(process)
                    process = None
                self._fill_places()
            if process is not None:
                process.close()

    def _process(self) -> UnpackProcess | None:
        with self._lock:
            if self._free:
                return self._free.pop()
        try:
            return UnpackProcess()
        except OSError as error:
            _log.warning("layers are unpacked in the daemon itself: no process can be started: %s", error)
            return None

    def arrived(self, layer: LayerAhead, digest: str) -> None:
        """All bytes of a layer are in the file, and have this digest."""
        if digest in self._digests or self._records.has_unpacked(digest):
            self._drop(layer)
        else:
            self._digests[digest] = layer

    def take(self, digest: str) -> tuple[PreparedLayer, str] | None:
        """The stage that holds the layer of a blob, once it is unpacked, and the layer's diff id.

        None when there is none; a stage is given away once, and it is the caller's then.
        """
        layer = self._digests.pop(digest, None)
        if layer is None:
            return None
        with self._lock:
            self._all.discard(layer)
            if layer in self._waiting:
                self._waiting.remove(layer)
                layer.close()
        layer.ended.wait()
        prepared, layer.prepared = layer.prepared, None
        return (prepared, layer.diff_id or digest) if prepared is not None else None

    def keep_only(self, digests: Container[str]) -> None:
        """Drop the layers whose blobs are not among these."""
        wanted = {layer for digest, layer in self._digests.items() if digest in digests}
        for layer in self._all - wanted:
            self._drop(layer)

    def _drop(self, layer: LayerAhead) -> None:
        with self._lock:
            if layer in self._waiting:
                self._waiting.remove(layer)
                layer.close()
        layer.drop()

    def give_up(self) -> bool:
        """Drop all, and let no more begin; whether there was anything to drop. Returns when it is gone."""
        self._given_up = True
        layers = list(self._all)
        for layer in layers:
            self._drop(layer)
        while self._threads:  # none begins any more, as nothing waits
            self._threads.pop().join()
        while self._free:
            self._free.pop().close()
        return bool(layers)

    def __enter__(self) -> LayersAhead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_up()
