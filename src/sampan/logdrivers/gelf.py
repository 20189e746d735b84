"""The driver gelf: Graylog's Extended Log Format 1.1, over UDP in compressed chunks or over TCP."""

from __future__ import annotations

import gzip
import json
import os
import socket
import zlib
from collections.abc import Sequence

from sampan.logdrivers.job import Job
from sampan.logdrivers.localformat import Record
from sampan.logdrivers.options import gelf_address
from sampan.logdrivers.senders import has_left, open_socket, send_all

_CHUNK_BYTES = 1420
_CHUNK_HEADER_BYTES = 12
_MAX_CHUNKS = 128
_ERROR, _INFO = 3, 6


class GelfSender:
    """Takes lines to a GELF receiver."""

    def __init__(self, job: Job) -> None:
        options = job.options
        self._scheme, self._host, self._port = gelf_address(options["gelf-address"])
        self._compression = options.get("gelf-compression-type") or "gzip"
        self._level = int(options.get("gelf-compression-level") or "1")
        self.tries: int | None = None
        self.wait_s = 1.0
        if "gelf-tcp-max-reconnect" in options:
            self.tries = int(options["gelf-tcp-max-reconnect"]) + 1
        if "gelf-tcp-reconnect-delay" in options:
            self.wait_s = float(options["gelf-tcp-reconnect-delay"])
        info = job.info
        self._hostname = job.hostname
        self._extra = {
            "_container_id": info.id,
            "_container_name": info.name,
            "_image_id": info.image_id,
            "_image_name": info.image_name,
            "_command": info.command,
            "_tag": job.tag,
            "_created": _rfc3339(info.created_at_ns),
            **{key if key.startswith("_") else f"_{key}": value for key, value in job.attributes.items()},
        }
        self._end: socket.socket | None = None

    def connect(self) -> None:
        """As promised by `Sender`."""
        if self._end is None:
            self._end = open_socket(self._scheme, self._host, self._port)

    def send(self, batch: Sequence[Record]) -> None:
        """As promised by `Sender`."""
        if self._end is not None and self._scheme == "tcp" and has_left(self._end):
            self.close()
        self.connect()
        assert self._end is not None
        if self._scheme == "tcp":
            send_all(self._end, b"".join(self.message(record) + b"\0" for record in batch))
            return
        for record in batch:
            for datagram in chunks(self._compressed(self.message(record))):
                self._end.send(datagram)

    def message(self, record: Record) -> bytes:
        """A line as a GELF message."""
        return json.dumps(
            {
                "version": "1.1",
                "host": self._hostname,
                "short_message": record.line.decode("utf-8", "replace"),
                "timestamp": record.time_ns // 1_000_000 / 1000,
                "level": _ERROR if record.stream == "stderr" else _INFO,
                **self._extra,
            },
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()

    def _compressed(self, message: bytes) -> bytes:
        if self._compression == "gzip":
            return gzip.compress(message, 6 if self._level < 0 else self._level)
        if self._compression == "zlib":
            return zlib.compress(message, self._level)
        return message

    def close(self) -> None:
        """As promised by `Sender`."""
        if self._end is not None:
            self._end.close()
            self._end = None


def chunks(message: bytes) -> list[bytes]:
    """The datagrams of a message; none when it needs more chunks than GELF has, and is lost."""
    if len(message) <= _CHUNK_BYTES:
        return [message]
    step = _CHUNK_BYTES - _CHUNK_HEADER_BYTES
    count = -(-len(message) // step)
    if count > _MAX_CHUNKS:
        return []
    name = os.urandom(8)
    return [
        b"\x1e\x0f" + name + bytes([number, count]) + message[number * step : (number + 1) * step]
        for number in range(count)
    ]


def _rfc3339(at_ns: int) -> str:
    import time

    second, fraction = divmod(at_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}.{fraction:09d}Z"
