"""Reading a container's json-file log back: tail, since, until, timestamps, details, follow.

The monitor writes the file and rotates it (`….log`, `….log.1`, …, the higher the older); nothing here writes.
A reader keeps its place by descriptor, so that a rotation under it loses no line.
"""

from __future__ import annotations

import asyncio
import calendar
import functools
import gzip
import itertools
import json
import os
import re
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
_STREAMS = {b"stdout": 1, b"stderr": 2}
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
        bounded = bool(query.since_ns or query.until_ns)
        self._plain = query.framed and query.stdout and not (bounded or query.timestamps or query.details)

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
        data = self._pending + chunk
        cut = data.rfind(b"\n") + 1
        self._pending = data[cut:]
        data = data[:cut]
        query = self._query
        if self._plain and not self._skip and (framed := _frame_plain(data)) is not None:
            return framed
        entries = _entries(data)
        if self._skip:
            skipped = min(self._skip, len(entries))
            del entries[:skipped]
            self._skip -= skipped
        if query.since_ns or query.until_ns:
            entries = self._within_bounds(entries)
        if not query.stdout or not query.stderr:
            wanted = {name for name, shown in ((b"stdout", query.stdout), (b"stderr", query.stderr)) if shown}
            entries = [entry for entry in entries if entry[1] in wanted]
        out: list[bytes] = []
        append = out.append
        for log, stream, attrs, when in entries:
            # Nearly every line has one escape, the newline at its end; JSON is asked for the others.
            first = log.find(b"\\")
            if first < 0:
                text = log
            elif first == len(log) - 2 and log[first + 1] == _LETTER_N:
                text = log[:first] + b"\n"
            else:
                text = json.loads(b'"%b"' % log).encode("utf-8", "surrogatepass")
            if query.details:
                text = _details(attrs) + text
            if query.timestamps:
                text = _fixed(when) + b" " + text
            if query.framed:
                append(_header(_STREAMS[stream], len(text)))
            append(text)
        return b"".join(out)

    def _within_bounds(self, entries: list[_Entry]) -> list[_Entry]:
        query = self._query
        found = []
        for entry in entries:
            at_ns = self._time_ns(entry[3].decode())
            if query.until_ns and at_ns > query.until_ns:
                self.done = True
                break
            if at_ns >= query.since_ns:
                found.append(entry)
        return found

    def _time_ns(self, when: str) -> int:
        if when[:19] != self._second:
            self._second = when[:19]
            self._second_ns = (
                calendar.timegm(time.strptime(self._second, "%Y-%m-%dT%H:%M:%S")) * 1_000_000_000
            )
        fraction = when[20:].rstrip("Z")
        return self._second_ns + int(fraction[:9].ljust(9, "0") or 0)


# The members of a line, as they stand in the file: log, stream, attrs (empty for none), time.
_Entry = tuple[bytes, bytes, bytes, bytes]

_LETTER_N = ord("n")
# As the monitor writes a line; taking all of a batch at once costs a quarter of parsing each as JSON.
_LINE = re.compile(
    rb"""^\{"log":"([^"\\\n]*(?:\\.[^"\\\n]*)*)","stream":"(stdout|stderr)",(?:"attrs":(.*),)?"time":"([^"\n]*)"\}$""",
    re.MULTILINE,
)


_PLAIN_LINE = re.compile(
    rb"""^\{"log":"([^"\\\n]*)\\n","stream":"stdout","time":"[^"\n]*"\}$""", re.MULTILINE
)


def _frame_plain(data: bytes) -> bytes | None:
    """The commonest batch, in a third of the time: every line whole, of stdout, without another escape."""
    count = data.count(b"\n")
    if data.count(b"\\") != count:
        return None
    texts: list[bytes] = _PLAIN_LINE.findall(data)
    if len(texts) != count:
        return None
    headers = map(_header, itertools.repeat(1), [len(text) + 1 for text in texts])
    return b"".join(itertools.chain.from_iterable(zip(headers, texts, itertools.repeat(b"\n"), strict=False)))


def _entries(data: bytes) -> list[_Entry]:
    """The entries of whole lines; one that a power cut has torn is left out."""
    found: list[_Entry] = _LINE.findall(data)
    if len(found) == data.count(b"\n"):
        return found
    return [entry for line in data.split(b"\n") if (entry := _entry(line)) is not None]


def _entry(line: bytes) -> _Entry | None:
    """An entry in whatever order and spacing another writer of this format has."""
    try:
        value = json.loads(line)
        attrs = json.dumps(value["attrs"]).encode() if value.get("attrs") else b""
        log = json.dumps(value["log"], ensure_ascii=False).encode("utf-8", "surrogatepass")
        stream: str = value["stream"]
        return log[1:-1], b"stderr" if stream == "stderr" else b"stdout", attrs, value["time"].encode()
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _details(attrs: bytes) -> bytes:
    values: dict[str, str] = json.loads(attrs) if attrs else {}
    return (",".join(f"{key}={value}" for key, value in sorted(values.items())) + " ").encode()


def _fixed(when: bytes) -> bytes:
    """RFC 3339 with all nine digits of the fraction, as `docker logs -t` prints it."""
    return b"%b.%bZ" % (when[:19], when[20:].rstrip(b"Z")[:9].ljust(9, b"0"))


@functools.lru_cache(maxsize=4096)
def _header(stream: int, size: int) -> bytes:
    return _HEADER.pack(stream, size)


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
    ahead: asyncio.Future[bytes | None] | None = None
    try:
        while not reader.done or ahead is not None:
            stopped = ended is None or ended.is_set()
            changed.clear()
            early = ahead is not None
            batch = await (ahead or loop.run_in_executor(None, reader.read))
            ahead = None
            if batch is not None:
                ahead = loop.run_in_executor(None, reader.read)  # while the client takes this one
                if batch:
                    yield batch
                continue
            if early:
                continue  # it looked before we did at `ended` and `changed`: more may have come since
            if not query.follow or stopped or reader.done:
                return
            assert ended is not None
            if await _either(changed, ended, _seconds_left(query)) == "late":
                return
    finally:
        if watch >= 0:
            loop.remove_reader(watch)
            os.close(watch)
        if ahead is not None:
            await asyncio.wait([ahead])
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
