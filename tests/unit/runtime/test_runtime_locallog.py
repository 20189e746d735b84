"""The local log: Docker's records, split lines, rotation, what the reader makes of it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from sampan.engine.logs import LogQuery, frame, open_reader
from sampan.logdrivers.localformat import records
from sampan.runtime.containerlog import open_log
from sampan.runtime.logfile import PIECE_BYTES
from sampan.runtime.protocol import LogSpec

# A record as dockerd 20.10 wrote it: "err" to stderr at that time.
DOCKERS = b"\x00\x00\x00\x17\n\x06stderr\x10\xed\xc6\xd0\xf4\xde\xa4\xce\xf5\x18\x1a\x03err\x00\x00\x00\x17"
DOCKERS_TIME = 1795591711516533613
NOW = 1_700_000_000_123_000_000


def everything(path: Path, query: LogQuery) -> bytes:
    reader = open_reader(path, query)
    try:
        return b"".join(iter(reader.read, None))
    finally:
        reader.close()


def spec(path: Path, size: int = 0, files: int = 5, compress: bool = False) -> LogSpec:
    return LogSpec(str(path), size, files, compress, {}, "local")


def test_a_record_is_dockers(tmp_path: Path) -> None:
    log = open_log(spec(tmp_path / "dockers"))
    log.write("stderr", b"err\n", DOCKERS_TIME)
    log.finish(NOW)
    assert (tmp_path / "dockers").read_bytes() == DOCKERS
    log = open_log(spec(tmp_path / "container.log"))
    log.write("stdout", b"hello\n", NOW)
    log.finish(NOW)
    data = (tmp_path / "container.log").read_bytes()
    assert data[:4] == data[-4:] == (len(data) - 8).to_bytes(4, "big")
    assert data[4:12] == b"\x0a\x06stdout" and data.endswith(b"\x1a\x05hello" + data[:4])
    found, taken = records(data)
    assert taken == len(data)
    assert [(one.stream, one.time_ns, one.line, one.last) for one in found] == [
        ("stdout", NOW, b"hello", True)
    ]


def test_lines_come_back_as_they_went(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    log = open_log(spec(path))
    log.write("stdout", b"one\n\ntw", NOW)
    log.write("stderr", b"other\n", NOW + 1)
    log.write("stdout", b"o\n" + b"y" * 300 + b"\n" + b"z" * 127 + b"\n", NOW + 2)
    log.write("stdout", b"no newline", NOW + 3)
    log.finish(NOW + 3)
    assert everything(path, LogQuery()) == (
        frame(1, b"one\n") + frame(1, b"\n") + frame(2, b"other\n") + frame(1, b"two\n")
        + frame(1, b"y" * 300 + b"\n") + frame(1, b"z" * 127 + b"\n") + frame(1, b"no newline")
    )  # fmt: skip
    assert everything(path, LogQuery(framed=False, tail=2)) == b"z" * 127 + b"\nno newline"
    assert everything(path, LogQuery(framed=False, tail=0)) == b""
    assert everything(path, LogQuery(framed=False, stdout=False)) == b"other\n"
    assert everything(path, LogQuery(framed=False, since_ns=NOW + 3)) == b"no newline"
    assert everything(path, LogQuery(framed=False, until_ns=NOW)) == b"one\n\n"
    stamped = everything(path, LogQuery(framed=False, timestamps=True, tail=1))
    assert stamped == b"2023-11-14T22:13:20.123000003Z no newline"


@pytest.mark.parametrize("step", [7, 4096, 1 << 20])
def test_long_lines_are_split_and_marked(tmp_path: Path, step: int) -> None:
    path = tmp_path / "container.log"
    text = "x" * (PIECE_BYTES - 1) + "三" * PIECE_BYTES
    data = f"{text}\nshort\n".encode()
    log = open_log(spec(path))
    for start in range(0, len(data), step):
        log.write("stdout", data[start : start + step], NOW)
    log.finish(NOW)
    found, _ = records(path.read_bytes())
    *pieces, short = found
    assert b"".join(one.line for one in pieces).decode() == text and short.line == b"short"
    assert {one.partial for one in pieces} == {pieces[0].partial} and len(pieces[0].partial) == 64
    assert [one.ordinal for one in pieces] == list(range(1, len(pieces) + 1))
    assert [one.last for one in pieces] == [False] * (len(pieces) - 1) + [True]
    assert short.partial == "" and max(len(one.line) for one in found) <= PIECE_BYTES
    assert everything(path, LogQuery(framed=False)).decode() == f"{text}\nshort\n"


def test_rotation_cuts_between_records(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    log = open_log(spec(path, 1000, 3, True))
    lines = [f"line {number}\n".encode() for number in range(200)]
    log.write("stdout", b"".join(lines[:150]), NOW)
    log.write("stdout", b"".join(lines[150:]), NOW)
    log.finish(NOW)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "container.log", "container.log.1.gz", "container.log.2.gz",
    ]  # fmt: skip
    assert path.stat().st_size <= 1000
    for file in (gzip.decompress((tmp_path / "container.log.1.gz").read_bytes()), path.read_bytes()):
        assert records(file)[1] == len(file)
    out = everything(path, LogQuery(framed=False))
    assert out == b"".join(lines)[-len(out) :] and len(out) > 500
    assert everything(path, LogQuery(framed=False, tail=40)) == b"".join(lines[-40:])


def test_a_torn_record_ends_its_file_only(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    log = open_log(spec(path))
    log.write("stdout", b"first\n", NOW)
    log.finish(NOW)
    whole = path.read_bytes()
    path.rename(tmp_path / "container.log.1")
    with (tmp_path / "container.log.1").open("ab") as file:
        file.write(whole[:9])
    path.write_bytes(whole.replace(b"first", b"newer"))
    assert everything(path, LogQuery(framed=False)) == b"first\nnewer\n"


def test_garbage_is_no_record() -> None:
    assert records(b"\xff" * 64) == ([], 64)
    assert records(b"\0\0\0\x02\x1a\x7f\0\0\0\x02")[1] == 10
