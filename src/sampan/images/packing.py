"""Compressing a layer on its way out: gzip by isal or zstd, always to the same bytes.

The compressed blob is not kept: its digest is, so that the next push finds it in the registry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Protocol

from sampan.images.errors import BrokenContent
from sampan.oci import media_types
from sampan.storage.compression import Hashing, ReadAhead, decompressed
from sampan.storage.tar_reader import Readable

PIECE = 1 << 20
_GZIP_LEVEL = 2  # of isal: the best that is still quick
_ZSTD_LEVEL = 3
_PUSHABLE = frozenset(
    (
        media_types.OCI_LAYER_GZIP,
        media_types.OCI_LAYER_ZSTD,
        media_types.DOCKER_LAYER_GZIP,
        media_types.DOCKER_LAYER_ZSTD,
    )
)


def needs_packing(media_type: str) -> bool:
    """Whether a layer of this type is a plain tar, or compressed in a way that registries do not know."""
    base = media_type.partition("+")[0]
    known = base in (media_types.OCI_LAYER, media_types.DOCKER_LAYER)
    return known and media_type not in _PUSHABLE


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def _compressor(compression: str) -> _Compressor:
    if compression == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(_ZSTD_LEVEL).compressobj()
    from isal import isal_zlib

    compressor: _Compressor = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, 31)
    return compressor


class Packing:
    """A layer's compressed bytes as pieces; digest and size are known behind the last one.

    Args:
        blob: the layer as the store has it.
        diff_id: what its plain bytes must hash to.
        compression: "gzip" or "zstd".
        on_read: told the plain bytes read so far; what it raises ends the iteration.
    """

    def __init__(
        self, blob: Readable, diff_id: str, compression: str, on_read: Callable[[int], None]
    ) -> None:
        self._blob = blob
        self._diff_id = diff_id
        self._compression = compression
        self._on_read = on_read
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        """The digest of the pieces so far."""
        return "sha256:" + self._hash.hexdigest()

    def __iter__(self) -> Iterator[bytes]:
        """The pieces, made in a thread of their own beside the one that sends them.

        Raises:
            BrokenContent: the layer is no longer what it was.
        """
        with ReadAhead(_Reader(self._compressed())) as ahead:
            while piece := ahead.read(PIECE):
                self._hash.update(piece)
                self.size += len(piece)
                yield piece

    def _compressed(self) -> Iterator[bytes]:
        compressor = _compressor(self._compression)
        hashing = Hashing(decompressed(self._blob)[1])
        while plain := hashing.read(PIECE):
            self._on_read(hashing.count)
            if piece := compressor.compress(plain):
                yield piece
        if hashing.digest != self._diff_id:
            raise BrokenContent(self._diff_id, f"its bytes have the digest {hashing.digest}")
        yield compressor.flush()


class _Reader:
    """An iterator of pieces with `read`, which gives them as they come."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, size: int = -1, /) -> bytes:
        return next(self._pieces, b"")
