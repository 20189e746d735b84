"""Connections over TCP, plain or with TLS (RFC 8446); imported only for `-H tcp://`."""

from __future__ import annotations

import socket
import ssl

from sampan.cli.client import unreachable
from sampan.cli.failures import ConnectionFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.hosts import Host, Tls

_PIECE = 64 * 1024
_REASONS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate: give --tlscert and --tlskey",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refuses the handshake: it may want --tlscert and --tlskey",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the authority that signed our certificate (--tlscert)",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refuses our certificate (--tlscert)",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate (--tlscert) has expired",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "our certificate (--tlscert) is not one for clients",
    "WRONG_VERSION_NUMBER": "it does not speak TLS: leave --tls and --tlsverify out",
    "RECORD_LAYER_FAILURE": "it does not speak TLS: leave --tls and --tlsverify out",
}


def connect(host: Host) -> Any:
    """A connected socket, or a `TlsSocket` where the host wants TLS.

    Raises:
        ConnectionFailed: nobody answers, or TLS cannot be agreed on.
    """
    assert host.address is not None
    context = None if host.tls is None else _context(host.tls)
    try:
        connection = socket.create_connection(host.address, timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise unreachable(host, error) from None
    if context is None:
        connection.settimeout(None)
        return connection
    try:
        secure = TlsSocket(connection, context, host)
        connection.settimeout(None)
        return secure
    except BaseException:
        connection.close()
        raise


def _context(tls: Tls) -> ssl.SSLContext:
    """The client's side of TLS.

    Raises:
        ConnectionFailed: a certificate or key cannot be used; the message names the file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    path = tls.ca
    try:
        if tls.verify and tls.ca:
            context.load_verify_locations(tls.ca)
        elif tls.verify:
            context.load_default_certs()
        if tls.cert:
            path = f"{tls.cert}, {tls.key}"
            for path in (tls.cert, tls.key):
                open(path, "rb").close()  # load_cert_chain does not say which of the two is missing
            context.load_cert_chain(tls.cert, tls.key)
    except ssl.SSLError as error:
        raise ConnectionFailed(f"{path}: cannot be used for TLS: {error.reason or error}") from None
    except OSError as error:
        raise ConnectionFailed(f"open {path}: {(error.strerror or str(error)).lower()}") from None
    return context


class TlsSocket:
    """A TLS stream with the methods of a socket that we use, able to end its own direction and read on.

    `ssl.SSLSocket` cannot: its `unwrap` reads for the other side's farewell, and loses the data before it.

    Args:
        connection: connected and blocking; closed with this.

    Raises:
        ConnectionFailed: the handshake failed.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, host: Host) -> None:
        assert host.address is not None
        self._socket = connection
        self._url = host.url
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host.address[0])
        self._plain = b""  # decrypted, not yet read
        self._rest = b""  # encrypted, not yet sent
        self._accepted = 0  # bytes whose encrypted form is in `_rest`, not yet reported as sent
        self._finished = False
        while True:
            try:
                self._tls.do_handshake()
                self._drain()
                return
            except ssl.SSLWantReadError:
                self._drain()
                self._fill()
            except ssl.SSLError as error:
                self._drain()  # the alert that tells the other side why
                raise self._failure(error) from None
            except OSError as error:
                raise ConnectionFailed(f"error during connect: {self._url}: {error}") from None

    def recv(self, size: int) -> bytes:
        """At most `size` decrypted bytes; b"" once the other side has said that there are no more.

        Raises:
            BlockingIOError: nothing is there, and the socket does not block.
            ConnectionResetError: the connection was cut.
            ConnectionFailed: the daemon does not want us.
        """
        if self._plain:
            found, self._plain = self._plain[:size], self._plain[size:]
            return found
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                try:
                    self._drain()
                except BlockingIOError:
                    pass  # `send` or `shutdown` goes on with it
                self._fill()
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLEOFError:
                raise ConnectionResetError("the connection was cut") from None
            except ssl.SSLError as error:
                raise self._failure(error) from None

    def send(self, data: bytes | memoryview) -> int:
        """Send some of `data`; how much. After a BlockingIOError it must be called with the same data."""
        if not self._accepted:
            try:
                self._accepted = self._tls.write(memoryview(data)[:_PIECE])
            except ssl.SSLError as error:
                raise BrokenPipeError(str(error)) from None
        self._drain()
        sent, self._accepted = self._accepted, 0
        return sent

    def sendall(self, data: bytes) -> None:
        """Send everything; the socket must block."""
        view = memoryview(data)
        while view:
            view = view[self.send(view) :]

    def shutdown(self, how: int) -> None:
        """Say that we shall send no more (`close_notify`); a BlockingIOError means: call again."""
        if not self._finished:
            self._finished = True
            try:
                while True:  # what has arrived goes first: OpenSSL would throw it away
                    self._plain += self._tls.read(_PIECE)
            except ssl.SSLError:
                pass  # no more, or a failure that the next read sees again
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass  # it wants the other side's farewell, which may come much later
        self._drain()

    def pending(self) -> bool:
        """Whether there is more to read that the socket itself does not know of."""
        return bool(self._plain or self._tls.pending() or self._incoming.pending)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def setblocking(self, flag: bool) -> None:
        """Wait in reads and writes, or raise BlockingIOError."""
        self._socket.setblocking(flag)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _fill(self) -> None:
        data = self._socket.recv(_PIECE)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _drain(self) -> None:
        self._rest += self._outgoing.read()
        while self._rest:
            self._rest = self._rest[self._socket.send(self._rest) :]

    def _failure(self, error: ssl.SSLError) -> ConnectionFailed:
        if isinstance(error, ssl.SSLCertVerificationError):
            reason = f"its certificate cannot be verified: {error.verify_message.rstrip('.')}"
            if "mismatch" not in reason:
                reason += " (--tlscacert names the authority that signed it)"
        elif error.reason and "UNEXPECTED_EOF" in error.reason:
            reason = "it hung up"
        else:
            said = (error.reason or str(error)).lower().replace("_", " ")
            reason = _REASONS.get(error.reason or "", f"TLS failed: {said}")
        return ConnectionFailed(f"error during connect: the daemon at {self._url}: {reason}")
