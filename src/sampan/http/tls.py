"""TLS under a `Connection`, with the half-close that asyncio's own TLS lacks (RFC 8446, section 6.1).

A client that has sent its `close_notify` has said all it wants to say, and still listens: so travels the end
of `docker run -i`'s stdin. The pump drives an `ssl.SSLObject` itself, and towards the connection it is a
transport. After a hijack it copies between TLS and one end of a socket pair; the other end is given away.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from typing import Any

from sampan.errors import InvalidParameter

log = logging.getLogger("sampan.http")

READ_BYTES = 256 << 10
FAREWELL_S = 10.0  # how long a client may take to close once the output has ended
HIGH_BYTES = 256 << 10

_PLAIN_HTTP = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
_REASONS = {
    "HTTP_REQUEST": "it speaks HTTP without TLS",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the authority that signed our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept our certificate",
    "UNEXPECTED_EOF_WHILE_READING": "it hung up",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "UNSUPPORTED_PROTOCOL": "it speaks too old a version of TLS",
}


def handshake_failure(error: ssl.SSLError) -> str:
    """Why a handshake failed, for the log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate cannot be verified ({error.verify_message})"
    return _REASONS.get(error.reason or "", error.reason or str(error))


def server_context(certificate: str, key: str, client_authority: str = "") -> ssl.SSLContext:
    """The server's side of TLS 1.2 and newer.

    Args:
        certificate, key: PEM files.
        client_authority: demand certificates of clients that an authority in this PEM file signed.

    Raises:
        InvalidParameter: one of them cannot be used; the message names the file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in filter(None, (certificate, key, client_authority)):
        if not os.access(path, os.R_OK):
            raise InvalidParameter(f"{path}: cannot be read; TLS needs it")
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise InvalidParameter(f"{certificate}, {key}: {reason}") from None
    if client_authority:
        try:
            context.load_verify_locations(client_authority)
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise InvalidParameter(f"{client_authority}: {reason}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class TlsPump(asyncio.Protocol):
    """A protocol to the TCP transport below, a transport to the protocol above.

    Args:
        context: the server's TLS settings.
        upper: the protocol that sees the decrypted bytes.
    """

    def __init__(self, context: ssl.SSLContext, upper: asyncio.Protocol) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._upper: asyncio.Protocol = upper
        self._lower: Any = None
        self._ready = False
        self._started = False
        self._said_eof = False
        self._heard_eof = False
        self._closing = False
        self._lost = False
        self._reading = True
        self._timer: asyncio.TimerHandle | None = None

    # --- from below ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._lower = transport
        self._lower.set_write_buffer_limits(high=HIGH_BYTES)
        self._timer = asyncio.get_running_loop().call_later(30.0, self._handshake_late)

    def _handshake_late(self) -> None:
        if not self._ready:
            self._lower.abort()

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        self._pump()

    def eof_received(self) -> bool:
        self._incoming.write_eof()
        self._pump()
        if not self._heard_eof and self._started:
            # The TCP stream ended without close_notify: a cut, not an end of stdin; but some clients do so.
            self._hear_eof()
        return self._started

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = self._lost = True
        if self._timer is not None:
            self._timer.cancel()
        if self._started:
            self._upper.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._started:
            self._upper.pause_writing()

    def resume_writing(self) -> None:
        if self._started:
            self._upper.resume_writing()

    def _pump(self) -> None:
        try:
            if not self._ready:
                self._tls.do_handshake()
                self._ready = True
                self._start()
            while self._reading and not self._heard_eof:
                data = self._tls.read(READ_BYTES)
                if not data:
                    self._hear_eof()
                    break
                self._upper.data_received(data)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # the client's close_notify, when ours has gone out before
            self._hear_eof()
        except ssl.SSLError as error:
            if not self._ready:
                log.info("TLS handshake with %s failed: %s", self._peer(), handshake_failure(error))
            if error.reason == "HTTP_REQUEST":
                self._lower.write(_PLAIN_HTTP)
            else:
                self._flush()  # the alert
            self._lower.close()
            return
        self._flush()

    def _peer(self) -> str:
        name = self._lower.get_extra_info("peername")
        return f"{name[0]}:{name[1]}" if name else "a client"

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._started = True
        self._upper.connection_made(self)  # type: ignore[arg-type]

    def _hear_eof(self) -> None:
        self._heard_eof = True
        if not self._upper.eof_received() and not self._closing:
            self.close()

    def _flush(self) -> None:
        if self._outgoing.pending and not self._lower.is_closing():
            self._lower.write(self._outgoing.read())

    # --- from above: a transport ---

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        if self._closing or self._said_eof:
            return
        view = memoryview(data)
        try:
            while view:
                view = view[self._tls.write(view) :]
        except ssl.SSLError as error:
            log.debug("TLS write failed: %s", error)
            self.abort()
            return
        self._flush()

    def can_write_eof(self) -> bool:
        """It can."""
        return True

    def write_eof(self) -> None:
        """Send `close_notify`; the client may go on sending."""
        if self._said_eof or self._closing:
            return
        self._said_eof = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # wants the client's own close_notify, which may come much later
        self._flush()

    def close(self) -> None:
        """Say goodbye and close once everything is sent."""
        if not self._closing:
            if self._ready:
                self.write_eof()
            self._closing = True
            self._lower.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._lower.abort()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._closing or self._lower.is_closing()

    def pause_reading(self) -> None:
        """Stop handing data up."""
        self._reading = False
        if not self._lower.is_closing():
            self._lower.pause_reading()

    def resume_reading(self) -> None:
        """Hand data up again, first what had been decrypted already."""
        self._reading = True
        if not self._lower.is_closing():
            self._lower.resume_reading()
            asyncio.get_running_loop().call_soon(self._pump_if_reading)

    def _pump_if_reading(self) -> None:
        if self._reading and self._ready and not self._lower.is_closing():
            self._pump()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See `asyncio.WriteTransport`."""
        self._lower.set_write_buffer_limits(high=high, low=low)

    def get_write_buffer_size(self) -> int:
        """Bytes not yet taken by the kernel."""
        size: int = self._lower.get_write_buffer_size()
        return size

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Facts of the connection; no "socket", as nobody else can speak on it."""
        if name == "ssl_object":
            return self._tls
        return default if name == "socket" else self._lower.get_extra_info(name, default)

    # --- hijack ---

    async def detach(self) -> socket.socket:
        """Give away the decrypted stream as a socket; the pump goes on copying to and from it."""
        mine, theirs = socket.socketpair()
        mine.setblocking(False)
        theirs.setblocking(False)
        former, self._upper = self._upper, _PairEnd(self, mine)
        former.connection_lost(None)
        if self._lost:
            self._upper.connection_lost(None)
        else:
            self._lower.set_write_buffer_limits(high=HIGH_BYTES)
            self.resume_reading()
        return theirs

    def discard_input(self) -> None:
        """Decrypt what has arrived, so that a farewell does not meet it; the protocol above drops it."""
        self.resume_reading()
        self._pump_if_reading()


class _PairEnd(asyncio.Protocol):
    """The protocol above the pump after a hijack: it owns our end of the socket pair.

    The pair is read and written by hand, because an asyncio transport forgets what it has not read as soon as
    a write fails, and a container that ends under a flood of stdin would lose the end of its output so.
    """

    def __init__(self, pump: TlsPump, pair: socket.socket) -> None:
        self._pump = pump
        self._pair = pair
        self._loop = asyncio.get_running_loop()
        self._waiting = bytearray()  # for the container
        self._held = False  # the client is kept from sending more
        self._deaf = False  # the container reads no more
        self._output_over = False
        self._client_finished = False
        self._loop.add_reader(pair, self._read)

    # --- from the client, by the pump ---

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._waiting += data
        self._write()

    def eof_received(self) -> bool:
        self._client_finished = True
        if not self._waiting:
            self._finish_input()
        return not self._output_over  # False lets the pump close

    def connection_lost(self, exc: Exception | None) -> None:
        self._loop.remove_reader(self._pair)
        self._loop.remove_writer(self._pair)
        self._pair.close()
        self._deaf = self._output_over = True

    def pause_writing(self) -> None:
        self._loop.remove_reader(self._pair)

    def resume_writing(self) -> None:
        if not self._output_over:
            self._loop.add_reader(self._pair, self._read)

    # --- the pair ---

    def _write(self) -> None:
        try:
            del self._waiting[: self._pair.send(self._waiting)]
        except BlockingIOError:
            pass
        except OSError:
            self._hear_no_more()
            return
        if not self._waiting:
            self._loop.remove_writer(self._pair)
            if self._client_finished:
                self._finish_input()
            elif self._held:
                self._held = False
                self._pump.resume_reading()
            return
        self._loop.add_writer(self._pair, self._write)
        if len(self._waiting) > HIGH_BYTES and not self._held:
            self._held = True
            self._pump.pause_reading()

    def _finish_input(self) -> None:
        try:
            self._pair.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other end has left already

    def _hear_no_more(self) -> None:
        self._deaf = True
        self._waiting.clear()
        self._loop.remove_writer(self._pair)
        self._pump.discard_input()

    def _read(self) -> None:
        try:
            data = self._pair.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._pump.write(data)
            return
        self._output_over = True
        self._loop.remove_reader(self._pair)
        self._hear_no_more()
        self._pump.write_eof()
        if self._client_finished:
            self._pump.close()
        else:  # closing now would throw away what the client has not read yet
            self._loop.call_later(FAREWELL_S, self._pump.close)
