"""TLS under a `Connection`, with the half-close that asyncio's own TLS lacks (RFC 8446, section 6.1).

A client that has sent its `close_notify` has said all it wants to say, and still listens: so travels the end
of `docker run -i`'s stdin. The pump drives an `ssl.SSLObject` itself, and towards the connection it is a
transport. After a hijack it copies between TLS and one end of a socket pair; the other end is given away.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from typing import Any

log = logging.getLogger("sampan.http")

READ_BYTES = 256 << 10
FAREWELL_S = 10.0  # how long a client may take to close once the output has ended
HIGH_BYTES = 256 << 10


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
        self._reading = True
        self._rest: list[bytes] = []
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
        self._closing = True
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
                log.info("TLS handshake failed: %s", error.reason or error)
            self._flush()
            self._lower.close()
            return
        self._flush()

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
        upper = _PairEnd(self)
        former, self._upper = self._upper, upper
        former.connection_lost(None)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: upper, mine)
        self._lower.set_write_buffer_limits(high=HIGH_BYTES)
        self.resume_reading()
        return theirs


class _PairEnd(asyncio.Protocol):
    """The pump's end of the socket pair: its one transport is the pair's, its other neighbour the pump.

    The pump calls it as its upper protocol (data from the client) by the same names as asyncio would, so what
    asyncio delivers goes to a second object.
    """

    def __init__(self, pump: TlsPump) -> None:
        self._pump = pump
        self._pair: Any = None
        self._from_pair = _FromPair(pump)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._pair = transport
        self._pair.set_write_buffer_limits(high=HIGH_BYTES)
        self._from_pair.pair = transport
        self._pair.set_protocol(self._from_pair)

    def data_received(self, data: bytes) -> None:
        if not self._pair.is_closing():
            self._pair.write(data)

    def eof_received(self) -> bool:
        if not self._pair.is_closing():
            try:
                self._pair.write_eof()
            except OSError:
                pass  # the other end has left already
        self._from_pair.client_finished = True
        return not self._from_pair.finished  # False lets the pump close

    def connection_lost(self, exc: Exception | None) -> None:
        self._pair.close()

    def pause_writing(self) -> None:
        if not self._pair.is_closing():
            self._pair.pause_reading()

    def resume_writing(self) -> None:
        if not self._pair.is_closing():
            self._pair.resume_reading()


class _FromPair(asyncio.Protocol):
    """What comes out of the socket pair goes to the client."""

    def __init__(self, pump: TlsPump) -> None:
        self._pump = pump
        self.pair: Any = None
        self.client_finished = False
        self.finished = False

    def data_received(self, data: bytes) -> None:
        self._pump.write(data)

    def eof_received(self) -> bool:
        self.finished = True
        self._pump.write_eof()
        if self.client_finished:
            self._pump.close()
        else:
            asyncio.get_running_loop().call_later(FAREWELL_S, self._pump.close)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._pump.close()

    def pause_writing(self) -> None:
        self._pump.pause_reading()

    def resume_writing(self) -> None:
        self._pump.resume_reading()
