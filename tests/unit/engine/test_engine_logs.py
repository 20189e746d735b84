"""Reading json-file logs: tails, bounds, rotation under the reader, torn lines."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path

import pytest

from sampan.engine.logs import LogQuery, frame, open_reader, stream_logs
from sampan.runtime import LogSpec
from sampan.runtime.jsonlog import JsonLog


def line(text: str, second: int = 0, stream: str = "stdout", **more: object) -> str:
    when = f"2024-05-06T07:08:{second:02d}.5Z"
    return json.dumps({"log": text, "stream": stream, "time": when, **more}) + "\n"


def everything(path: Path, query: LogQuery) -> bytes:
    reader = open_reader(path, query)
    try:
        out = b""
        while (batch := reader.read()) is not None:
            out += batch
        return out
    finally:
        reader.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "c-json.log"
    path.write_text("".join(line(f"{n}\n", n, "stderr" if n % 2 else "stdout") for n in range(6)))
    return path


def test_all_of_it_framed(log: Path) -> None:
    out = everything(log, LogQuery())
    assert out == b"".join(frame(2 if n % 2 else 1, f"{n}\n".encode()) for n in range(6))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (LogQuery(framed=False), b"0\n1\n2\n3\n4\n5\n"),
        (LogQuery(framed=False, tail=2), b"4\n5\n"),
        (LogQuery(framed=False, tail=0), b""),
        (LogQuery(framed=False, tail=99), b"0\n1\n2\n3\n4\n5\n"),
        (LogQuery(framed=False, stderr=False), b"0\n2\n4\n"),
        (LogQuery(framed=False, since_ns=1714979284_000000000), b"4\n5\n"),
        (LogQuery(framed=False, until_ns=1714979281_600000000), b"0\n1\n"),
        (LogQuery(framed=False, timestamps=True, tail=1), b"2024-05-06T07:08:05.500000000Z 5\n"),
    ],
)
def test_what_is_asked_for(log: Path, query: LogQuery, expected: bytes) -> None:
    assert everything(log, query) == expected


def test_the_tail_reaches_into_rotated_files(tmp_path: Path) -> None:
    path = tmp_path / "c-json.log"
    with gzip.open(tmp_path / "c-json.log.2.gz", "wt") as packed:
        packed.write(line("a\n") + line("b\n"))
    (tmp_path / "c-json.log.1").write_text(line("c\n"))
    path.write_text(line("d\n"))
    assert everything(path, LogQuery(framed=False)) == b"a\nb\nc\nd\n"
    assert everything(path, LogQuery(framed=False, tail=3)) == b"b\nc\nd\n"


def test_a_rotation_under_the_reader_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c-json.log"
    path.write_text(line("1\n"))
    reader = open_reader(path, LogQuery(framed=False))
    assert reader.read() == b"1\n"
    assert reader.read() is None
    with path.open("a") as file:
        file.write(line("2\n"))
    path.rename(tmp_path / "c-json.log.2")
    (tmp_path / "c-json.log.1").write_text(line("3\n"))
    path.write_text(line("4\n"))
    out = b""
    while (batch := reader.read()) is not None:
        out += batch
    reader.close()
    assert out == b"2\n3\n4\n"


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "c-json.log"
    path.write_text(line("1\n") + '{"log":"half\n' + line("2\n") + '{"log":"not yet')
    assert everything(path, LogQuery(framed=False)) == b"1\n2\n"


PLAIN = ["", "plain", "ünïcödé 三板", "x" * 5000]
ODD = [
    "a \"quoted\" word", "back\\slash", "ends in \\", "ends in \\n", "tab\tbell\x07",
    "\x1b[31mred\x1b[0m", '","stream":"stderr"',
    "}\r", "\x7f", "line\u2028separator",
]  # fmt: skip


@pytest.mark.parametrize("attrs", [{}, {"team": 'a","time":"b'}])
@pytest.mark.parametrize("texts", [PLAIN, ODD, PLAIN + ODD])
@pytest.mark.parametrize("streams", [["stdout"], ["stdout", "stderr"]])
def test_what_the_monitor_writes_is_read_back(
    tmp_path: Path, texts: list[str], streams: list[str], attrs: dict[str, str]
) -> None:
    path = tmp_path / "c-json.log"
    log = JsonLog(LogSpec(str(path), 0, 1, False, attrs))
    expected = b""
    for stream in streams:
        for text in texts:
            log.write(stream, f"{text}\n".encode(), 1714979284_000000000)
            expected += frame(2 if stream == "stderr" else 1, f"{text}\n".encode())
    log.write("stdout", b"not finished", 1714979284_000000000)
    log.finish(1714979284_000000000)
    assert everything(path, LogQuery()) == expected + frame(1, b"not finished")
    stamped = everything(path, LogQuery(framed=False, timestamps=True, tail=1))
    assert stamped == b"2024-05-06T07:08:04.000000000Z not finished"


def test_details_come_in_front(tmp_path: Path) -> None:
    path = tmp_path / "c-json.log"
    path.write_text(line("x\n", attrs={"b": "2", "a": "1"}))
    assert everything(path, LogQuery(framed=False, details=True)) == b"a=1,b=2 x\n"


def test_following_ends_with_the_container(log: Path) -> None:
    async def scenario() -> bytes:
        ended = asyncio.Event()
        out = b""

        async def writer() -> None:
            await asyncio.sleep(0.05)
            with log.open("a") as file:
                file.write(line("late\n"))
            await asyncio.sleep(0.05)
            ended.set()

        task = asyncio.create_task(writer())
        async with asyncio.timeout(5):
            async for piece in stream_logs(log, LogQuery(framed=False, tail=1, follow=True), ended):
                out += piece
        await task
        return out

    assert asyncio.run(scenario()) == b"5\nlate\n"
