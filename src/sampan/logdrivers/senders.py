"""What remote drivers have in common: a connection made when needed, and batches that arrive or raise."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Protocol

from sampan.logdrivers.job import Job
from sampan.logdrivers.localformat import Record

TIMEOUT_S = 30.0  # without any progress


class Sender(Protocol):
    """Takes lines to a receiver.

    Attributes:
        tries: how often a batch is tried before it is given up; None for ever.
        wait_s: between the first two tries; later ones wait longer.
    """

    tries: int | None
    wait_s: float

    def connect(self) -> None:
        """Reach the receiver, if that is not so yet.

        Raises:
            OSError: it is not there.
        """

    def send(self, batch: Sequence[Record]) -> None:
        """Deliver lines.

        Raises:
            OSError: not all of them were delivered.
        """

    def close(self) -> None:
        """Let go of the connection; the next `send` makes another."""


def sender_for(job: Job) -> Sender:
    """The driver's sender, not connected yet."""
    if job.driver == "syslog":
        from sampan.logdrivers.syslog import SyslogSender

        return SyslogSender(job)
    if job.driver == "gelf":
        from sampan.logdrivers.gelf import GelfSender

        return GelfSender(job)
    if job.driver == "fluentd":
        from sampan.logdrivers.fluentd import FluentdSender

        return FluentdSender(job)
    from sampan.logdrivers.journald import JournaldSender

    return JournaldSender(job)


def open_socket(scheme: str, host: str, port: int, tls: ssl.SSLContext | None = None) -> socket.socket:
    """A connected socket.

    Args:
        scheme: tcp, tcp+tls, tls, udp, unix or unixgram.
        host: or the path of a unix socket.

    Raises:
        OSError: nobody is there; the message is as Docker words it.
    """
    try:
        if scheme.startswith("unix"):
            kind = socket.SOCK_STREAM if scheme == "unix" else socket.SOCK_DGRAM
            end = socket.socket(socket.AF_UNIX, kind)
            try:
                end.settimeout(TIMEOUT_S)
                end.connect(host)
            except OSError:
                end.close()
                raise
        elif scheme == "udp":
            family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            end = socket.socket(family, kind, number)
            end.connect(address)
        else:
            end = socket.create_connection((host, port), TIMEOUT_S)
            if tls is not None:
                end = tls.wrap_socket(end, server_hostname=host)
    except OSError as error:
        where = host if scheme.startswith("unix") else f"{host}:{port}"
        reason = (error.strerror or str(error)).lower()
        raise OSError(error.errno, f"dial {scheme} {where}: connect: {reason}") from None
    return end


def send_all(end: socket.socket, data: bytes) -> None:
    """Send all of `data`; a receiver may be slow as long as it takes something now and then."""
    view = memoryview(data)
    while view:
        view = view[end.send(view[:65536]) :]


def has_left(end: socket.socket) -> bool:
    """Whether the other side has closed; a write would still succeed, and its bytes be lost."""
    if isinstance(end, ssl.SSLSocket):
        return False
    end.setblocking(False)
    try:
        return end.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        end.settimeout(TIMEOUT_S)
