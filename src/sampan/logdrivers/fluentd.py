"""The driver fluentd: Fluentd's forward protocol, version 1, over msgpack.

A batch of lines is one message in Forward Mode; with `fluentd-request-ack` it counts only once it was
acknowledged.
"""

from __future__ import annotations

import base64
import os
import socket
import ssl
from collections.abc import Mapping, Sequence

from sampan.logdrivers.job import Job, flag
from sampan.logdrivers.localformat import Record
from sampan.logdrivers.options import duration_s, fluentd_address
from sampan.logdrivers.senders import has_left, open_socket, send_all

_ACK_LIMIT = 4096
_ACK_S = 30.0


class FluentdSender:
    """Takes lines to Fluentd, Fluent Bit and their like."""

    def __init__(self, job: Job) -> None:
        options = job.options
        self._scheme, self._host, self._port = fluentd_address(options.get("fluentd-address", ""))
        self._acknowledged = flag(options, "fluentd-request-ack")
        self._precise = flag(options, "fluentd-sub-second-precision")
        self.wait_s = duration_s(options.get("fluentd-retry-wait") or "1s")
        if options.get("fluentd-async-reconnect-interval"):
            self.wait_s = duration_s(options["fluentd-async-reconnect-interval"])
        self.tries: int | None = None
        if options.get("fluentd-max-retries"):
            self.tries = int(options["fluentd-max-retries"]) + 1
        self._tag = job.tag
        self._fixed = {
            "container_id": job.info.id,
            "container_name": f"/{job.info.name}",
            **job.attributes,
        }
        self._end: socket.socket | None = None

    def connect(self) -> None:
        """As promised by `Sender`."""
        if self._end is None:
            tls = ssl.create_default_context() if self._scheme == "tls" else None
            self._end = open_socket(self._scheme, self._host, self._port, tls)

    def send(self, batch: Sequence[Record]) -> None:
        """As promised by `Sender`."""
        if self._end is not None and has_left(self._end):
            self.close()
        self.connect()
        assert self._end is not None
        chunk = base64.b64encode(os.urandom(16)).decode() if self._acknowledged else ""
        send_all(self._end, self.message(batch, chunk))
        if chunk:
            self._await(chunk)

    def message(self, batch: Sequence[Record], chunk: str = "") -> bytes:
        """Lines as one message.

        Args:
            chunk: what the receiver shall acknowledge; empty for nothing.
        """
        entries = b"".join(b"\x92" + self._time(record) + pack_map(self._fields(record)) for record in batch)
        option = {"chunk": chunk} if chunk else {}
        return (
            b"\x93" + pack_text(self._tag.encode())
            + b"\xdd" + len(batch).to_bytes(4, "big") + entries + pack_map(option)
        )  # fmt: skip

    def _fields(self, record: Record) -> dict[str, str | bytes]:
        fields: dict[str, str | bytes] = {**self._fixed, "source": record.stream, "log": record.line}
        if record.partial:
            fields["partial_message"] = "true"
            fields["partial_id"] = record.partial
            fields["partial_ordinal"] = str(record.ordinal)
            fields["partial_last"] = "true" if record.last else "false"
        return fields

    def _time(self, record: Record) -> bytes:
        second, fraction = divmod(record.time_ns, 1_000_000_000)
        if self._precise:  # EventTime: extension type 0 of eight bytes
            return b"\xd7\x00" + second.to_bytes(4, "big") + fraction.to_bytes(4, "big")
        return b"\xce" + second.to_bytes(4, "big")

    def _await(self, chunk: str) -> None:
        assert self._end is not None
        self._end.settimeout(_ACK_S)
        wanted = pack_map({"ack": chunk})
        got = b""
        while len(got) < len(wanted):
            data = self._end.recv(_ACK_LIMIT)
            if not data:
                raise OSError("fluentd closed the connection before it acknowledged")
            got += data
        # {"ack": chunk}, whichever length prefix the receiver has chosen for its texts
        if b"ack" not in got or chunk.encode() not in got:
            raise OSError("fluentd acknowledged something else")

    def close(self) -> None:
        """As promised by `Sender`."""
        if self._end is not None:
            self._end.close()
            self._end = None


def pack_text(data: bytes) -> bytes:
    """A msgpack str."""
    length = len(data)
    if length < 32:
        return bytes([0xA0 | length]) + data
    if length < 256:
        return bytes([0xD9, length]) + data
    if length < 65536:
        return b"\xda" + length.to_bytes(2, "big") + data
    return b"\xdb" + length.to_bytes(4, "big") + data


def pack_map(fields: Mapping[str, str | bytes]) -> bytes:
    """A msgpack map of texts."""
    count = len(fields)
    head = bytes([0x80 | count]) if count < 16 else b"\xde" + count.to_bytes(2, "big")
    return head + b"".join(
        pack_text(key.encode()) + pack_text(value.encode() if isinstance(value, str) else value)
        for key, value in fields.items()
    )
