"""The driver syslog: RFC 3164, RFC 5424 (also with microseconds), and the form of the machine's own syslog.

Over udp, tcp and unix sockets, and tcp with TLS, where RFC 5424 messages are counted as RFC 5425 says.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Sequence

from sampan.logdrivers.job import Job
from sampan.logdrivers.localformat import Record
from sampan.logdrivers.options import syslog_address, syslog_facility
from sampan.logdrivers.senders import has_left, open_socket, send_all

_ERROR, _INFO = 3, 6
_LOCAL = (("unixgram", "/dev/log"), ("unix", "/dev/log"), ("unixgram", "/var/run/syslog"))
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


class SyslogSender:
    """Takes lines to a syslog server."""

    tries: int | None = None
    wait_s = 0.5

    def __init__(self, job: Job) -> None:
        options = job.options
        self._scheme, self._host, self._port = syslog_address(options.get("syslog-address", ""))
        self._facility = syslog_facility(options.get("syslog-facility", ""))
        self._format = options.get("syslog-format", "")
        self._options = options
        self._hostname, self._tag = job.hostname, job.tag
        self._pid = os.getpid()
        self._end: socket.socket | None = None
        self._datagrams = self._scheme in ("udp", "unixgram")

    def connect(self) -> None:
        """As promised by `Sender`."""
        if self._end is not None:
            return
        if self._scheme:
            self._end = open_socket(self._scheme, self._host, self._port, self._tls())
            return
        for scheme, path in _LOCAL:
            try:
                self._end = open_socket(scheme, path, 0)
            except OSError:
                continue
            self._datagrams = scheme == "unixgram"
            return
        raise OSError("Unix syslog delivery error")

    def _tls(self) -> ssl.SSLContext | None:
        if self._scheme != "tcp+tls":
            return None
        context = ssl.create_default_context(cafile=self._options.get("syslog-tls-ca-cert") or None)
        if "syslog-tls-skip-verify" in self._options:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._options.get("syslog-tls-cert"):
            context.load_cert_chain(
                self._options["syslog-tls-cert"], self._options.get("syslog-tls-key") or None
            )
        return context

    def send(self, batch: Sequence[Record]) -> None:
        """As promised by `Sender`."""
        if self._end is not None and not self._datagrams and has_left(self._end):
            self.close()
        self.connect()
        assert self._end is not None
        if self._datagrams:
            for record in batch:
                self._end.send(self.message(record))
        else:
            send_all(self._end, b"".join(map(self._framed, batch)))

    def _framed(self, record: Record) -> bytes:
        message = self.message(record)
        if self._scheme == "tcp+tls" and self._format.startswith("rfc5424"):
            return b"%d %b" % (len(message), message)
        return message

    def message(self, record: Record) -> bytes:
        """A line as a syslog message, with a newline at its end."""
        priority = self._facility << 3 | (_ERROR if record.stream == "stderr" else _INFO)
        second, fraction = divmod(record.time_ns, 1_000_000_000)
        when = time.localtime(second)
        if self._format.startswith("rfc5424"):
            zone = time.strftime("%z", when)
            zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
            micro = f".{fraction // 1000:06d}" if self._format == "rfc5424micro" else ""
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", when) + micro + zone
            head = f"<{priority}>1 {stamp} {self._hostname} {self._tag} {self._pid} {self._tag} - "
        else:
            stamp = f"{_MONTHS[when.tm_mon - 1]} {when.tm_mday:2d} {time.strftime('%H:%M:%S', when)}"
            host = f"{self._hostname} " if self._format == "rfc3164" else ""
            head = f"<{priority}>{stamp} {host}{self._tag}[{self._pid}]: "
        return head.encode() + record.line + b"\n"

    def close(self) -> None:
        """As promised by `Sender`."""
        if self._end is not None:
            self._end.close()
            self._end = None
