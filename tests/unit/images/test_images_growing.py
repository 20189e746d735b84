"""A file that is read while it grows."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.images.growing import Growing


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Growing]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield Growing(fd)
    os.close(fd)


def nothing() -> None:
    pass


def test_a_reader_waits_for_what_comes_and_sees_the_end(growing: Growing) -> None:
    read: list[bytes] = []

    def follow() -> None:
        at = 0
        while data := growing.read_at(growing.fd, at, 4, nothing):
            read.append(data)
            at += len(data)

    reader = threading.Thread(target=follow)
    reader.start()
    growing.append(b"abcdef")
    growing.append(memoryview(b"gh"))
    growing.end()
    reader.join(10)
    assert not reader.is_alive()
    assert b"".join(read) == b"abcdefgh"
    growing.wait_for_end(nothing)


def test_readers_get_the_writers_error_instead_of_the_bytes(growing: Growing) -> None:
    growing.append(b"abc")
    growing.end(ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        growing.read_at(growing.fd, 0, 3, nothing)
    with pytest.raises(ValueError, match="wrong"):
        growing.wait_for_end(nothing)


def test_a_reader_that_is_called_off_leaves(growing: Growing) -> None:
    def called_off() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        growing.read_at(growing.fd, 0, 1, called_off)
    with pytest.raises(InterruptedError):
        growing.wait_for_end(called_off)
