"""The driver journald: systemd's native protocol (JOURNAL_NATIVE_PROTOCOL), large entries by memfd."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import re
import socket
import time
from collections.abc import Sequence

from sampan.logdrivers.job import Job
from sampan.logdrivers.localformat import Record

SOCKET = "/run/systemd/journal/socket"
_SEALS = 0xF  # F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
_ERROR, _INFO = "3", "6"


class JournaldSender:
    """Takes lines to the machine's journal."""

    tries: int | None = None
    wait_s = 0.5

    def __init__(self, job: Job) -> None:
        info, tag = job.info, job.tag
        self._fixed = {
            "CONTAINER_ID": info.id[:12],
            "CONTAINER_ID_FULL": info.id,
            "CONTAINER_NAME": info.name,
            "CONTAINER_TAG": tag,
            "IMAGE_NAME": info.image_name,
            "SYSLOG_IDENTIFIER": tag,
            **{field_name(key): value for key, value in job.attributes.items() if field_name(key)},
        }
        self._end: socket.socket | None = None

    def connect(self) -> None:
        """As promised by `Sender`."""
        if self._end is None:
            end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                end.connect(SOCKET)
            except OSError:
                end.close()
                raise OSError("journald is not enabled on this host") from None
            self._end = end

    def send(self, batch: Sequence[Record]) -> None:
        """As promised by `Sender`."""
        self.connect()
        assert self._end is not None
        for record in batch:
            entry = self.entry(record)
            try:
                self._end.send(entry)
            except OSError as error:
                if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                    raise
                self._send_by_descriptor(entry)

    def _send_by_descriptor(self, entry: bytes) -> None:
        assert self._end is not None
        fd = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(fd, entry)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            self._end.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        finally:
            os.close(fd)

    def entry(self, record: Record) -> bytes:
        """A line as a journal entry."""
        fields: dict[str, str | bytes] = {
            "MESSAGE": record.line,
            "PRIORITY": _ERROR if record.stream == "stderr" else _INFO,
            "SYSLOG_TIMESTAMP": _rfc3339(record.time_ns),
            **self._fixed,
        }
        if record.partial:
            if not record.last:
                fields["CONTAINER_PARTIAL_MESSAGE"] = "true"
            fields["CONTAINER_PARTIAL_ID"] = record.partial
            fields["CONTAINER_PARTIAL_ORDINAL"] = str(record.ordinal)
            fields["CONTAINER_PARTIAL_LAST"] = "true" if record.last else "false"
        out = []
        for name, value in fields.items():
            data = value.encode() if isinstance(value, str) else value
            if b"\n" in data:
                out.append(b"%b\n%b%b\n" % (name.encode(), len(data).to_bytes(8, "little"), data))
            else:
                out.append(b"%b=%b\n" % (name.encode(), data))
        return b"".join(out)

    def close(self) -> None:
        """As promised by `Sender`."""
        if self._end is not None:
            self._end.close()
            self._end = None


def field_name(key: str) -> str:
    """A label's or variable's name as a journal field's: upper case, digits, underscores, none in front."""
    return re.sub(r"[^A-Z0-9]", "_", key.upper()).lstrip("_")


def _rfc3339(at_ns: int) -> str:
    second, fraction = divmod(at_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}.{fraction:09d}Z"
