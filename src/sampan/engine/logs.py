"""Reading a container's json-file log back: tail, since, until, timestamps, details, follow.

The monitor writes the file and rotates it (`….log`, `….log.1`, …, the higher the older); nothing here writes.
A reader keeps its place by descriptor, so that a rotation under it loses no line.
"""

from __future__ import annotations

import asyncio
import calendar
import gzip
import json
import os
import struct
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from sampan.engine.model import LogConfig
from sampan.errors import InvalidParameter, Unsupported
from sampan.linux import inotify
from sampan.oci.quantities import parse_size
from sampan.runtime import LogSpec

DEFAULT_MAX_SIZE_BYTES = 20_000_000
DEFAULT_MAX_FILES = 5
BATCH_BYTES = 1 << 20

_OPTIONS = {"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode"}
_STREAMS = {"stdout": 1, "stderr": 2}
_HEADER = struct.Struct(">BxxxI")


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What `docker logs` asks for.

    Attributes:
        tail: at most this many of the last lines; None for all.
        since_ns, until_ns: bounds, nanoseconds since 1970; 0 for none.
        framed: put the 8-byte stream header before each line (containers without a terminal).
    """

    stdout: bool = True
    stderr: bool = True
    since_ns: int = 0
    until_ns: int = 0
    tail: int | None = None
    timestamps: bool = False
    details: bool = False
    follow: bool = False
    framed: bool = True


def frame(stream: int, payload: bytes) -> bytes:
    """A piece of output behind Docker's stream header (Engine API, "Attach to a container")."""
    return _HEADER.pack(stream, len(payload)) + payload


# --- log options ---


def check_log_config(config: LogConfig) -> None:
    """Refuse a driver or option that is not offered, by name.

    Raises:
        InvalidParameter, Unsupported.
    """
    if config.type not in ("json-file", "none"):
        raise Unsupported(f"log driver {config.type!r} is not offered yet; use json-file or none")
    for name, value in config.config.items():
        if config.type == "none" or name not in _OPTIONS:
            raise InvalidParameter(f"unknown log opt '{name}' for {config.type} log driver")
        if name in ("labels-regex", "env-regex", "tag") and value:
            raise Unsupported(f"log opt '{name}' is not offered yet")
        if name == "mode" and value != "blocking":
            raise Unsupported("log opt 'mode': only blocking is offered yet")
    if config.type == "json-file":
        log_spec("", config, {}, [])


def log_spec(path: str, config: LogConfig, labels: dict[str, str], env: list[str]) -> LogSpec | None:
    """What the monitor needs to write the log; None for the driver `none`.

    The size is bounded unless the user says `max-size=-1`.
    """
    if config.type == "none":
        return None
    options = config.config
    size = options.get("max-size", "")
    try:
        max_size = DEFAULT_MAX_SIZE_BYTES if not size else 0 if size == "-1" else parse_size(size)
        max_files = int(options.get("max-file", DEFAULT_MAX_FILES))
    except ValueError as error:
        raise InvalidParameter(f"invalid log option: {error}") from error
    if max_files < 1:
        raise InvalidParameter("max-file cannot be less than 1")
    values = dict(text.partition("=")[::2] for text in env)
    wanted = {name: labels[name] for name in options.get("labels", "").split(",") if name in labels}
    wanted |= {name: values[name] for name in options.get("env", "").split(",") if name in values}
    compress = options.get("compress", "false").lower() in ("1", "t", "true")
    return LogSpec(path, max_size, max_files, compress, wanted)


# --- reading ---


class LogReader:
    """A place in a container's log. Blocking; used from one thread at a time.

    Args:
        path: the current log file; it need not exist yet.
    """

    def __init__(self, path: Path, query: LogQuery) -> None:
        self._path = path
        self._query = query
        self._file: IO[bytes] | None = None
        self._pending = b""
        self._second = ""
        self._second_ns = 0
        self._older = self._files()
        self._skip = self._to_skip() if query.tail is not None else 0
        self.done = False

    def close(self) -> None:
        """Give the descriptor back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _files(self) -> list[Path]:
        """The log's files, oldest first."""
        found = [self._path] if self._path.exists() else []
        number = 1
        while True:
            rotated = self._path.with_name(f"{self._path.name}.{number}")
            packed = rotated.with_name(f"{rotated.name}.gz")
            if rotated.exists():
                found.append(rotated)
            elif packed.exists():
                found.append(packed)
            else:
                return found[::-1]
            number += 1

    def _to_skip(self) -> int:
        """How many lines come before the last `tail`; files that are not needed at all are dropped."""
        tail = self._query.tail or 0
        if tail == 0:
            tail_files, self._older = self._older, self._older[-1:]
            return sum(1 for _ in self._lines_of(tail_files[-1])) if tail_files else 0
        counted = 0
        for index in range(len(self._older) - 1, -1, -1):
            counted += sum(chunk.count(b"\n") for chunk in self._chunks_of(self._older[index]))
            if counted >= tail:
                self._older = self._older[index:]
                return counted - tail
        return 0

    @staticmethod
    def _open(path: Path) -> IO[bytes]:
        if path.suffix == ".gz":
            return cast("IO[bytes]", gzip.open(path, "rb"))
        return open(path, "rb", buffering=0)

    def _chunks_of(self, path: Path) -> Iterator[bytes]:
        with self._open(path) as file:
            while chunk := file.read(BATCH_BYTES):
                yield chunk

    def _lines_of(self, path: Path) -> Iterator[bytes]:
        for chunk in self._chunks_of(path):
            yield from chunk.splitlines()[: chunk.count(b"\n")]

    def read(self) -> bytes | None:
        """The next batch of output; empty when all of a batch was filtered out, None at the end for now."""
        while not self.done:
            if self._file is None and not self._next_file():
                return None
            assert self._file is not None
            chunk = self._file.read(BATCH_BYTES)
            if chunk:
                return self._convert(chunk)
            if not self._older and not self._rotated():
                return None
            self._file.close()
            self._file = None
        return None

    def _next_file(self) -> bool:
        if not self._older:
            if not self._path.exists():
                return False
            self._older = [self._path]
        try:
            self._file = self._open(self._older.pop(0))
        except FileNotFoundError:
            return self._next_file()
        return True

    def _rotated(self) -> bool:
        """Whether our file is no longer the current one; the newer ones are lined up then."""
        assert self._file is not None
        ours = os.fstat(self._file.fileno())
        newer: list[Path] = []
        for path in reversed(self._files()):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if (status.st_dev, status.st_ino) == (ours.st_dev, ours.st_ino):
                break
            newer.insert(0, path)
        else:
            newer = newer[-1:]  # ours is gone altogether
        self._older = newer
        return bool(newer)

    def _convert(self, chunk: bytes) -> bytes:
        query = self._query
        data = self._pending + chunk
        cut = data.rfind(b"\n") + 1
        self._pending = data[cut:]
        out: list[bytes] = []
        lines = data[:cut].split(b"\n")
        lines.pop()
        if self._skip:
            skipped = min(self._skip, len(lines))
            del lines[:skipped]
            self._skip -= skipped
        bounded = bool(query.since_ns or query.until_ns)
        for line in lines:
            try:
                entry = json.loads(line)
                text, stream, when = entry["log"], entry["stream"], entry["time"]
            except (ValueError, KeyError, TypeError):
                continue  # a line torn by a power cut
            if not (query.stdout if stream == "stdout" else query.stderr):
                continue
            if bounded:
                at_ns = self._time_ns(when)
                if at_ns < query.since_ns:
                    continue
                if query.until_ns and at_ns > query.until_ns:
                    self.done = True
                    break
            if query.details:
                attrs = entry.get("attrs") or {}
                text = ",".join(f"{key}={value}" for key, value in sorted(attrs.items())) + " " + text
            if query.timestamps:
                text = f"{_fixed(when)} {text}"
            payload = text.encode("utf-8", "surrogatepass")
            if query.framed:
                out.append(_HEADER.pack(_STREAMS.get(stream, 1), len(payload)))
            out.append(payload)
        return b"".join(out)

    def _time_ns(self, when: str) -> int:
        if when[:19] != self._second:
            self._second = when[:19]
            self._second_ns = (
                calendar.timegm(time.strptime(self._second, "%Y-%m-%dT%H:%M:%S")) * 1_000_000_000
            )
        fraction = when[20:].rstrip("Z")
        return self._second_ns + int(fraction[:9].ljust(9, "0") or 0)


def _fixed(when: str) -> str:
    """RFC 3339 with all nine digits of the fraction, as `docker logs -t` prints it."""
    return f"{when[:19]}.{when[20:].rstrip('Z')[:9].ljust(9, '0')}Z"


async def stream_logs(path: Path, query: LogQuery, ended: asyncio.Event | None) -> AsyncIterator[bytes]:
    """The log's batches, one after another; with `follow`, until the container stops.

    Args:
        ended: tells whether and when the container has stopped; None for one that is not running.
    """
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    watch = -1
    if query.follow and ended is not None:
        watch = inotify.open_watch(
            str(path.parent), inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO
        )

        def wake() -> None:
            inotify.drain(watch)
            changed.set()

        loop.add_reader(watch, wake)
    reader = await loop.run_in_executor(None, LogReader, path, query)
    try:
        while not reader.done:
            stopped = ended is None or ended.is_set()
            changed.clear()
            batch = await loop.run_in_executor(None, reader.read)
            if batch:
                yield batch
            if batch is not None:
                continue
            if not query.follow or stopped or reader.done:
                return
            assert ended is not None
            if await _either(changed, ended, _seconds_left(query)) == "late":
                return
    finally:
        if watch >= 0:
            loop.remove_reader(watch)
            os.close(watch)
        reader.close()


def _seconds_left(query: LogQuery) -> float | None:
    return max(0.0, (query.until_ns - time.time_ns()) / 1e9) if query.until_ns else None


async def _either(changed: asyncio.Event, ended: asyncio.Event, timeout_s: float | None) -> str:
    waits = {asyncio.ensure_future(changed.wait()), asyncio.ensure_future(ended.wait())}
    try:
        done, _ = await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        return "woken" if done else "late"
    finally:
        for wait in waits:
            wait.cancel()
