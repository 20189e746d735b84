"""Compressed streams: found out by their first bytes, read to the last, stopped when they are bombs."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable

import pytest
import zstandard

from sampan.storage import InvalidLayer, Limits
from sampan.storage.compression import Hashing, ReadAhead, decompressed

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "": bytes,
}


@pytest.mark.parametrize("kind", COMPRESS)
def test_reads_several_members_one_after_the_other(kind: str) -> None:
    parts = [os.urandom(300_000) + bytes(3_000_000), b"tar\0" * 1000]
    found, plain = decompressed(io.BytesIO(b"".join(COMPRESS[kind](part) for part in parts)))
    hashing = Hashing(plain)
    with ReadAhead(hashing) as ahead:
        data = ahead.read()
    assert (found, data) == (kind, b"".join(parts))
    assert hashing.count == len(data)


# A zstd stream that is cut, or that has no checksum, shows itself by its archive or its digest.
@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_refuses_damaged_data(kind: str, damage: str) -> None:
    whole = COMPRESS[kind](os.urandom(200_000))
    broken = whole[:-20] if damage == "cut" else whole[:100_000] + bytes(64) + whole[100_064:]
    _, plain = decompressed(io.BytesIO(broken))
    with pytest.raises(InvalidLayer), ReadAhead(plain) as ahead:
        ahead.read()


@pytest.mark.parametrize("kind", [kind for kind in COMPRESS if kind])
def test_stops_at_a_bomb(kind: str) -> None:
    bomb = COMPRESS[kind](bytes(8 << 20))
    for limits in (Limits(max_bytes=1 << 20), Limits(max_ratio=20, ratio_from_bytes=1 << 20)):
        _, plain = decompressed(io.BytesIO(bomb), limits)
        with pytest.raises(InvalidLayer, match="unfolds to more than"):
            while plain.read(100_000):
                pass


def test_the_reader_ahead_ends_with_its_context() -> None:
    class Endless:
        def read(self, size: int = -1, /) -> bytes:
            return bytes(size)

    with ReadAhead(Endless()) as ahead:
        assert ahead.read(10) == bytes(10)
