"""A log that another process writes: what finds no room is lost by whole lines."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from sampan.runtime.asidelog import AsideLog
from sampan.runtime.containerlog import open_log
from sampan.runtime.protocol import LogSpec


def opened(path: Path, buffer_bytes: int) -> AsideLog:
    log = open_log(LogSpec(str(path), 0, 2, False, {}, "json-file", buffer_bytes))
    assert isinstance(log, AsideLog)
    return log


def lines(path: Path) -> list[str]:
    return [json.loads(line)["log"] for line in path.read_text().splitlines()]


def test_all_that_fits_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    log = opened(path, 1 << 20)
    for number in range(500):
        log.write("stdout", b"line %d\nand " % number, time.time_ns())
    log.write("stderr", b"wrong", time.time_ns())
    log.finish(time.time_ns())
    found = lines(path)
    assert found[:3] == ["line 0\n", "and line 1\n", "and line 2\n"]
    assert len(found) == 502 and set(found[-2:]) == {"and ", "wrong"}


@pytest.mark.parametrize("piece", [b"a line of some length\n", b"a line\nof some length\nand a", b"a line"])
def test_what_stays_are_whole_lines(tmp_path: Path, piece: bytes) -> None:
    path = tmp_path / "x-json.log"
    log = opened(path, 1000)
    os.kill(log._pid, 19)  # SIGSTOP: the disk is stuck
    os.waitpid(log._pid, os.WUNTRACED)  # on a busy machine it goes on for a while
    text = piece * 20_000 + b"\n"
    begin = time.monotonic()
    for start in range(0, len(text), 333):
        log.write("stdout", text[start : start + 333], time.time_ns())
    assert time.monotonic() - begin < 5
    assert log.busy
    os.kill(log._pid, 18)
    while log.busy:
        log.work()
    log.write("stdout", b"begun " * 10, time.time_ns())
    log.write("stdout", b"and ended\nthe last\n", time.time_ns())
    log.finish(time.time_ns())
    found = "".join(lines(path)).splitlines()
    whole = set(text.decode().splitlines())
    assert found[-1] == "the last"
    assert len(found) < len(text) // 10
    odd = [line for line in found[:-2] if line not in whole]
    # Only the line that was cut where the buffer was full for the first time, and what was joined at the end.
    assert all(any(one.startswith(line[:300]) for one in whole) for line in odd), odd[:3]


def test_a_writer_that_died_costs_only_the_log(tmp_path: Path) -> None:
    log = opened(tmp_path / "x-json.log", 1000)
    os.kill(log._pid, 9)
    time.sleep(0.05)
    for _ in range(3):
        try:
            log.write("stdout", b"x\n", 1)
        except OSError:
            pass
    log.work()
    assert not log.busy
    log.finish(1)
