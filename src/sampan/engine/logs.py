"""Reading a container's log back: tail, since, until, timestamps, details, follow.

The monitor writes the file and rotates it (`….log`, `….log.1`, …, the higher the older); nothing here writes.
"""

from __future__ import annotations

import asyncio
import calendar
import functools
import itertools
import json
import os
import re
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from sampan.dataclasses import dataclass
from sampan.linux import inotify
from sampan.logdrivers import localformat
from sampan.logdrivers.following import BATCH_BYTES, Follower
from sampan.runtime import LogPlace

_STREAMS = {b"stdout": 1, b"stderr": 2}
_HEADER = struct.Struct(">BxxxI")


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What `docker logs` asks for.

    Attributes:
        tail: at most this many of the last lines; None for all.
        since_ns, until_ns: bounds, nanoseconds since 1970; 0 for none.
        framed: put the 8-byte stream header before each line (containers without a terminal).
        end: read no further than that; None for all.
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
    end: LogPlace | None = None


def frame(stream: int, payload: bytes) -> bytes:
    """A piece of output behind Docker's stream header (Engine API, "Attach to a container")."""
    return _HEADER.pack(stream, len(payload)) + payload


# --- reading ---


class LogReader:
    """A place in a container's log. Blocking; used from one thread at a time.

    Args:
        path: the current log file; it need not exist yet.
    """

    def __init__(self, path: Path, query: LogQuery) -> None:
        self._query = query
        self._pending = b""
        self._second = ""
        self._second_ns = 0
        self.done = False
        bounded = bool(query.since_ns or query.until_ns)
        self._plain = query.framed and query.stdout and not (bounded or query.timestamps or query.details)
        self._follower = Follower(path)
        if query.end is not None:
            self._follower.stop_at(query.end)
        self._skip = self._to_skip() if query.tail is not None else 0

    def close(self) -> None:
        """Give the descriptors back."""
        self._follower.close()

    def _to_skip(self) -> int:
        """How many lines come before the last `tail`; files that are not needed at all are dropped."""
        tail = self._query.tail or 0
        counted = files = 0
        for stream in reversed(self._follower.streams()):
            counted += self._count(stream)
            files += 1
            if counted >= tail:
                break
        self._follower.keep(files)
        self._follower.rewind()
        return max(0, counted - tail)

    def _count(self, stream: IO[bytes]) -> int:
        """How many lines there are."""
        return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(BATCH_BYTES), b""))

    def read(self) -> bytes | None:
        """The next batch of output; empty when all of a batch was filtered out, None at the end for now."""
        if self.done:
            return None
        chunk = self._follower.read()
        if chunk is None:
            return None
        if self._follower.fresh:
            self._pending = b""
        return self._convert(chunk)

    def _convert(self, chunk: bytes) -> bytes:
        data = self._pending + chunk
        cut = data.rfind(b"\n") + 1
        self._pending = data[cut:]
        data = data[:cut]
        query = self._query
        if self._plain and not self._skip and (framed := _frame_plain(data)) is not None:
            return framed
        out: list[bytes] = []
        append = out.append
        for log, stream, attrs, when in self._wanted(_entries(data)):
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

    def _wanted(self, entries: list[_Entry]) -> list[_Entry]:
        query = self._query
        if self._skip:
            skipped = min(self._skip, len(entries))
            del entries[:skipped]
            self._skip -= skipped
        if query.since_ns or query.until_ns:
            entries = self._within_bounds(entries)
        if not query.stdout or not query.stderr:
            wanted = {name for name, shown in ((b"stdout", query.stdout), (b"stderr", query.stderr)) if shown}
            entries = [entry for entry in entries if entry[1] in wanted]
        return entries

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


class LocalReader(LogReader):
    """The same for the format of Docker's `local` driver."""

    def _count(self, stream: IO[bytes]) -> int:
        count, rest = 0, b""
        for chunk in iter(lambda: stream.read(BATCH_BYTES), b""):
            found, taken = localformat.records(rest + chunk)
            rest = (rest + chunk)[taken:]
            count += len(found)
        return count

    def _convert(self, chunk: bytes) -> bytes:
        data = self._pending + chunk
        query = self._query
        if self._plain and query.stderr and not self._skip:
            out, taken = localformat.framed(data, _header)
            self._pending = data[taken:]
            return out
        found, taken = localformat.records(data)
        self._pending = data[taken:]
        if self._skip:
            skipped = min(self._skip, len(found))
            del found[:skipped]
            self._skip -= skipped
        shown = {name for name, wanted in (("stdout", query.stdout), ("stderr", query.stderr)) if wanted}
        pieces: list[bytes] = []
        append = pieces.append
        for record in found:
            if query.until_ns and record.time_ns > query.until_ns:
                self.done = True
                break
            if record.time_ns < query.since_ns or record.stream not in shown:
                continue
            text = record.line + b"\n" if record.last else record.line
            if query.details:
                text = b" " + text  # this format keeps no attributes
            if query.timestamps:
                text = self._stamp(record.time_ns) + text
            if query.framed:
                append(_header(2 if record.stream == "stderr" else 1, len(text)))
            append(text)
        return b"".join(pieces)

    def _stamp(self, time_ns: int) -> bytes:
        second, fraction = divmod(time_ns, 1_000_000_000)
        if second != self._second_ns:
            self._second_ns = second
            self._second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return b"%b.%09dZ " % (self._second.encode(), fraction)


def open_reader(path: Path, query: LogQuery) -> LogReader:
    """A reader for the format that the file's name tells."""
    return LogReader(path, query) if path.name.endswith("-json.log") else LocalReader(path, query)


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
    opening = loop.run_in_executor(None, open_reader, path, query)
    ahead: asyncio.Future[bytes | None] | None = None
    try:
        reader = await asyncio.shield(opening)  # a client that leaves now must not leave its file behind
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
        await asyncio.wait([opening])
        if opening.exception() is None:
            opening.result().close()


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
