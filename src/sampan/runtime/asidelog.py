"""A log that never keeps the container waiting (`mode=non-blocking`): a process of its own writes the file.

The monitor has one thread, as who forks must, and a write to a file can wait for the disk. So output goes
through a pipe to a process that does nothing else, and what neither the pipe nor a buffer of the size that
the user gave takes is dropped, as Docker's ring buffer drops it. Lost are whole lines: what was begun is
ended.
"""

from __future__ import annotations

import os
import struct
import time
from typing import NoReturn

from sampan.linux import process, syscalls
from sampan.runtime.logfile import LogFile

_HEAD = struct.Struct(">BQI")  # stream, time in nanoseconds, bytes
_STREAMS = ("stdout", "stderr")
_READ_BYTES = 64 * 1024


class AsideLog:
    """The near end of the pipe.

    Args:
        log: the file, opened; it is written by the other process alone.
        limit_bytes: how much output may wait.
    """

    pause_s = 0.005  # until the pipe is looked at again

    def __init__(self, log: LogFile, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._waiting = bytearray()
        self._lines = {stream: _Lines() for stream in _STREAMS}
        theirs, self._pipe = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            _be_writer(log, theirs)
        os.close(theirs)
        log.abandon()
        os.set_blocking(self._pipe, False)

    def write(self, stream: str, data: bytes, now_ns: int) -> None:
        """As promised by `LogFile`; what finds no room is dropped.

        Raises:
            OSError: the other process is gone.
        """
        lines = self._lines[stream]
        taken = lines.next(data)
        if not taken:
            return
        if len(self._waiting) + _HEAD.size + len(taken) > self._limit_bytes:
            lines.dropped(taken)
            return
        lines.accepted(taken)
        self._waiting += _HEAD.pack(_STREAMS.index(stream), now_ns, len(taken)) + taken
        self._push()

    @property
    def busy(self) -> bool:
        """Whether output waits for the pipe to have room."""
        return bool(self._waiting)

    def work(self) -> bool:
        """Pass on what fits; whether more is left."""
        try:
            self._push()
        except OSError:
            self._waiting.clear()  # the writer is gone, and what it had
        return bool(self._waiting)

    def _push(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: os.write(self._pipe, self._waiting)]
        except BlockingIOError:
            pass

    def finish(self, now_ns: int) -> None:
        """Wait until all that was taken is in the file."""
        os.set_blocking(self._pipe, True)
        self.work()
        os.close(self._pipe)
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass  # collected with the strays of another runtime


class _Lines:
    """Where one stream stands between its lines, so that those that stay are whole."""

    def __init__(self) -> None:
        self._begun = False  # what was accepted last has not ended its line
        self._torn = False  # something was dropped since
        self._inside = False  # what was dropped last has not ended its line

    def next(self, data: bytes) -> bytes:
        """What of the next piece there is to keep; a line that was begun and torn is ended by it."""
        if self._inside:
            end = data.find(b"\n") + 1
            if not end:
                return b""
            data, self._inside = data[end:], False
        return b"\n" + data if data and self._torn and self._begun else data

    def accepted(self, data: bytes) -> None:
        self._begun, self._torn = not data.endswith(b"\n"), False

    def dropped(self, data: bytes) -> None:
        self._inside, self._torn = not data.endswith(b"\n"), True


def _be_writer(log: LogFile, source: int) -> NoReturn:
    """Write what comes until the monitor closes its end, or dies."""
    try:
        syscalls.prctl_name("sampan-log")
        process.close_all_but((source, log.fd))
        _write_all(log, source)
    finally:
        os._exit(0)


def _write_all(log: LogFile, source: int) -> None:
    data = b""
    while piece := os.read(source, _READ_BYTES):
        data += piece
        start = 0
        while len(data) - start >= _HEAD.size:
            stream, now_ns, size = _HEAD.unpack_from(data, start)
            end = start + _HEAD.size + size
            if len(data) < end:
                break
            try:
                log.write(_STREAMS[stream], data[end - size : end], now_ns)
                while log.work():
                    pass
            except OSError:
                pass  # no room on the disk: this is lost, as it is where the monitor writes
            start = end
        data = data[start:]
    log.finish(time.time_ns())
