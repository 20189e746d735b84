"""The json-file log: records, splitting, rotation, compression."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from sampan.runtime.jsonlog import PIECE_BYTES, JsonLog
from sampan.runtime.protocol import LogSpec

NOW = 1_700_000_000_123_000_000


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_records_are_dockers(tmp_path: Path) -> None:
    log = JsonLog(LogSpec(str(tmp_path / "x"), 0, 1))
    log.write("stdout", b'a "quoted"\t\x1b[0m\\ line\n', NOW)
    log.write("stderr", "später 三板\n".encode(), NOW + 877)
    log.write("stdout", b"\n", 1_700_000_000_000_000_000)
    log.finish(NOW)
    lines = (tmp_path / "x").read_text().splitlines()
    assert lines[0].endswith(',"stream":"stdout","time":"2023-11-14T22:13:20.123Z"}')
    assert lines[2] == '{"log":"\\n","stream":"stdout","time":"2023-11-14T22:13:20Z"}'
    records = read(tmp_path / "x")
    assert records[0]["log"] == 'a "quoted"\t\x1b[0m\\ line\n'
    assert records[1] == {
        "log": "später 三板\n",
        "stream": "stderr",
        "time": "2023-11-14T22:13:20.123000877Z",
    }
    assert "三板" in lines[1]


def test_lines_are_joined_across_reads_and_streams_kept_apart(tmp_path: Path) -> None:
    log = JsonLog(LogSpec(str(tmp_path / "x"), 0, 1))
    log.write("stdout", b"one ", NOW)
    log.write("stderr", b"other ", NOW)
    log.write("stdout", b"line\ntw", NOW)
    log.write("stderr", b"stream\n", NOW)
    log.write("stdout", b"o\nlast", NOW)
    log.finish(NOW)
    assert [(record["stream"], record["log"]) for record in read(tmp_path / "x")] == [
        ("stdout", "one line\n"),
        ("stderr", "other stream\n"),
        ("stdout", "two\n"),
        ("stdout", "last"),
    ]


def test_only_newlines_end_lines_and_bad_utf8_is_replaced(tmp_path: Path) -> None:
    log = JsonLog(LogSpec(str(tmp_path / "x"), 0, 1))
    log.write("stdout", "a\rb\x0bc\u2028d\n".encode(), NOW)
    log.write("stdout", b"\xff\xfe\n", NOW)
    log.finish(NOW)
    assert [record["log"] for record in read(tmp_path / "x")] == ["a\rb\x0bc\u2028d\n", "\ufffd\ufffd\n"]


def test_long_lines_are_split_between_characters(tmp_path: Path) -> None:
    text = "x" * (PIECE_BYTES - 1) + "三" * PIECE_BYTES
    for pieces in (1, 7):
        path = tmp_path / str(pieces)
        log = JsonLog(LogSpec(str(path), 0, 1))
        data = f"{text}\nshort\n".encode()
        step = len(data) // pieces + 1
        for start in range(0, len(data), step):
            log.write("stdout", data[start : start + step], NOW)
        log.finish(NOW)
        logs = [record["log"] for record in read(path)]
        assert "".join(logs) == f"{text}\nshort\n"
        assert max(len(piece.encode()) for piece in logs) <= PIECE_BYTES + 1
        assert all("\ufffd" not in piece for piece in logs)
        assert logs[-1] == "short\n" and logs[-2].endswith("\n") and not logs[-3].endswith("\n")


def test_rotation_keeps_so_many_files_of_such_a_size(tmp_path: Path) -> None:
    path = tmp_path / "x"
    log = JsonLog(LogSpec(str(path), 1000, 3))
    for number in range(100):
        log.write("stdout", f"line {number}\n".encode(), NOW)
    log.write("stdout", b"".join(b"more %d\n" % number for number in range(50)), NOW)
    log.finish(NOW)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x", "x.1", "x.2"]
    assert all(file.stat().st_size <= 1000 for file in tmp_path.iterdir())
    found = [record["log"] for name in ("x.2", "x.1", "x") for record in read(tmp_path / name)]
    assert found == [f"more {number}\n" for number in range(50)][-len(found) :]


def test_one_file_alone_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "x"
    log = JsonLog(LogSpec(str(path), 500, 1))
    for number in range(100):
        log.write("stdout", f"line {number}\n".encode(), NOW)
    log.finish(NOW)
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
    assert path.stat().st_size <= 500
    assert read(path)[-1]["log"] == "line 99\n"


def test_rotated_files_are_compressed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    log = JsonLog(LogSpec(str(path), 1000, 3, compress=True))
    for number in range(100):
        log.write("stdout", f"line {number}\n".encode(), NOW)
    log.finish(NOW)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x", "x.1.gz", "x.2.gz"]
    records = [json.loads(line) for line in gzip.decompress((tmp_path / "x.1.gz").read_bytes()).splitlines()]
    assert records[-1]["log"].startswith("line ")


def test_attributes_and_an_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for text in (b"one\n", b"two\n"):
        log = JsonLog(LogSpec(str(path), 0, 1, attrs={"tag": "é"}))
        log.write("stdout", text, NOW)
        log.finish(NOW)
    assert [record["log"] for record in read(path)] == ["one\n", "two\n"]
    assert read(path)[0]["attrs"] == {"tag": "é"}
