"""Following a log while it is written, rotated, compressed and cut."""

from __future__ import annotations

import gzip
import threading
import time
from pathlib import Path

import pytest

from sampan.engine.logs import LogQuery, open_reader
from sampan.logdrivers.following import Follower
from sampan.runtime.containerlog import open_log
from sampan.runtime.logfile import LogFile
from sampan.runtime.protocol import LogSpec


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(("name", "form"), [("x-json.log", "json-file"), ("container.log", "local")])
def test_a_reader_that_keeps_up_misses_nothing(tmp_path: Path, name: str, form: str, compress: bool) -> None:
    path = tmp_path / name
    log = open_log(LogSpec(str(path), 200_000, 50, compress, {}, form))
    total = 30_000

    def write() -> None:
        for start in range(0, total, 300):
            log.write("stdout", b"".join(b"line %d\n" % n for n in range(start, start + 300)), time.time_ns())
            if log.busy:
                log.work()
        log.finish(time.time_ns())

    reader = open_reader(path, LogQuery(framed=False))
    writer = threading.Thread(target=write)
    writer.start()
    out = b""
    while True:
        alive = writer.is_alive()
        batch = reader.read()
        if batch is not None:
            out += batch
        elif not alive:
            break
    writer.join()
    reader.close()
    assert out == b"".join(b"line %d\n" % n for n in range(total))


def test_a_file_that_is_emptied_in_place_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    path.write_bytes(b"12345\n")
    follower = Follower(path)
    assert follower.read() == b"12345\n" and follower.read() is None
    path.write_bytes(b"6\n")
    assert follower.read() == b"6\n" and follower.fresh
    follower.close()


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(("name", "form"), [("x-json.log", "json-file"), ("container.log", "local")])
def test_a_reader_stops_where_the_writer_was(tmp_path: Path, name: str, form: str, compress: bool) -> None:
    """However often the file is rotated, and compressed, before it is read and meanwhile."""
    path = tmp_path / name
    log = open_log(LogSpec(str(path), 1000, 50, compress, {}, form))
    assert isinstance(log, LogFile)

    def write(numbers: range) -> None:
        for n in numbers:
            log.write("stdout", b"line %d\n" % n, time.time_ns())
        while log.work():
            pass

    for before in (0, 1, 30):
        write(range(before))
        log.write("stdout", b"begun", time.time_ns())
        place = log.place()
        assert place is not None and log.unfinished["stdout"] == b"begun"
        log.write("stdout", b" and ended\n", time.time_ns())
        write(range(30))
        reader = open_reader(path, LogQuery(framed=False, end=place))
        write(range(30))
        read = b"".join(iter(reader.read, None))
        reader.close()
        assert read.endswith(b"".join(b"line %d\n" % n for n in range(before)))
        assert read.count(b"begun") == (0, 1, 2)[(0, 1, 30).index(before)]
    log.finish(time.time_ns())


@pytest.mark.parametrize("opened_before", [False, True])
def test_a_place_that_is_gone_leaves_nothing_to_read(tmp_path: Path, opened_before: bool) -> None:
    path = tmp_path / "x-json.log"
    log = open_log(LogSpec(str(path), 300, 1, False, {}, "json-file"))
    assert isinstance(log, LogFile)
    log.write("stdout", b"old\n", time.time_ns())
    place = log.place()
    reader = open_reader(path, LogQuery(framed=False, end=place)) if opened_before else None
    if reader is not None:
        assert reader.read() == b"old\n"
    for n in range(9):
        log.write("stdout", b"new %d\n" % n, time.time_ns())
    reader = reader or open_reader(path, LogQuery(framed=False, end=place))
    assert reader.read() is None
    reader.close()
    log.finish(time.time_ns())


def test_a_place_is_found_again_after_rotation_and_compression(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    log = open_log(LogSpec(str(path), 1000, 9, True, {}, "json-file"))
    log.write("stdout", b"first\n", 1)
    follower = Follower(path)
    assert b"first" in (follower.read() or b"")
    place = follower.place()
    follower.close()
    assert place is not None
    for number in range(2, 40):
        log.write("stdout", b"number %d\n" % number, number * 10**9)
    log.finish(1)
    again = Follower(path)
    assert again.resume(place)
    rest = b"".join(iter(again.read, None))
    again.close()
    assert b"first" not in rest and [b"number %d\\n" % n in rest for n in range(2, 40)] == [True] * 38


def test_a_file_that_was_opened_empty_is_known_again_once_it_is_packed(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    path.write_bytes(b"")
    follower = Follower(path)
    assert follower.read() is None
    path.write_bytes(b"one\n")
    follower._files[0].read()  # up to here, when it is rotated and packed at once
    follower._files[0].head = b""
    path.rename(tmp_path / "x-json.log.1")
    (tmp_path / "x-json.log.1.gz").write_bytes(gzip.compress(b"one\n"))
    (tmp_path / "x-json.log.1").unlink()
    path.write_bytes(b"two\n")
    assert follower.read() == b"two\n"
    follower.close()


def test_a_small_compressed_file_is_read_once(tmp_path: Path) -> None:
    """It is shorter than the bytes it is known by."""
    path = tmp_path / "container.log"
    log = open_log(LogSpec(str(path), 30, 5, True, {}, "local"))
    for number in range(3):
        log.write("stdout", b"%d\n" % number, number)
        while log.busy:
            log.work()
    log.finish(1)
    assert [file.suffix for file in sorted(tmp_path.iterdir())] == [".log", ".gz", ".gz"]
    reader = open_reader(path, LogQuery(framed=False))
    assert b"".join(iter(lambda: reader.read() or b"", b"")) == b"0\n1\n2\n"
    reader.close()
