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
from sampan.storage.zstd_frames import FrameWalk

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
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


@pytest.mark.parametrize("kind", [kind for kind in COMPRESS if kind])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_refuses_damaged_data(kind: str, damage: str) -> None:
    whole = COMPRESS[kind](os.urandom(200_000))
    broken = whole[:-20] if damage == "cut" else whole[:100_000] + bytes(64) + whole[100_064:]
    _, plain = decompressed(io.BytesIO(broken))
    with pytest.raises(InvalidLayer), ReadAhead(plain) as ahead:
        ahead.read()


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("size", [0, 100, 70_000, 3_000_000])
def test_knows_where_zstd_frames_end(checksum: bool, size: int) -> None:
    compressor = zstandard.ZstdCompressor(write_checksum=checksum)
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"
    frames = [compressor.compress(os.urandom(size // 2) + bytes(size // 2)), skippable]
    stream = io.BytesIO()
    with compressor.stream_writer(stream, closefd=False) as writer:
        writer.write(os.urandom(size))
    whole = b"".join((*frames, stream.getvalue(), frames[0]))
    for piece in (7, 1000, len(whole)):
        walk = FrameWalk()
        for at in range(0, len(whole), piece):
            walk.feed(whole[at : at + piece])
        assert walk.complete
    for cut in (1, 3, len(frames[0]) - 1):
        walk = FrameWalk()
        walk.feed(whole[:-cut])
        assert not walk.complete


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
