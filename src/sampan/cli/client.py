"""HTTP/1.1 to the daemon over a socket: requests, streamed answers, hijacked connections (RFC 9112).

`_socket` instead of `socket`, whose enum constants cost more than the request. The newest API version is
spoken at once; a daemon that finds it too new names its own, and the request is sent again in that one.
"""

from __future__ import annotations

import _socket

from sampan.cli.failures import ApiError, CommandError, ConnectionFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from sampan.cli.hosts import Host

NEWEST = "1.51"
CHUNK = 256 * 1024
_TOO_NEW = "Maximum supported API version is "
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-~")


def escape(text: str, safe: str = "") -> str:
    """Percent-encode for a path or a query."""
    if _SAFE.issuperset(text):
        return text
    return "".join(
        character
        if character in _SAFE or character in safe
        else "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))
        for character in text
    )


class Response:
    """An answer whose body has not been read. Close it, or read it to its end."""

    def __init__(self, channel: Channel, status: int, headers: Mapping[str, str], head: bool = False) -> None:
        self.channel = channel
        self.status = status
        self.headers = headers
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length")
        self._left = int(length) if length is not None else -1
        if head or status in (204, 304):
            self._left, self._chunked = 0, False

    @property
    def upgraded(self) -> bool:
        """Whether the connection is now the container's."""
        return self.status == 101 or self.headers.get("content-type", "").startswith(
            ("application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream")
        )

    def pieces(self) -> Iterator[bytes]:
        """The body as it arrives."""
        channel = self.channel
        if self._chunked:
            yield from _chunks(channel)
        elif self._left >= 0:
            while self._left:
                piece = channel.some(self._left)
                self._left -= len(piece)
                yield piece
        else:
            while True:
                piece = channel.some(CHUNK, end_allowed=True)
                if not piece:
                    return
                yield piece

    def read(self) -> bytes:
        """The whole body."""
        body = b"".join(self.pieces())
        self.channel.busy = False
        return body

    def json(self) -> Any:
        """The body as JSON; None when it is empty."""
        from sampan.cli.jsontext import parse

        body = self.read()
        return parse(body) if body.strip() else None

    def values(self) -> Iterator[Any]:
        """The JSON values that the body is a stream of, each as soon as it is complete."""
        from sampan.cli.jsontext import parse_at

        rest = ""
        undecoded = b""
        for piece in self.pieces():
            piece = undecoded + piece
            cut = piece.rfind(b"\n") + 1 or len(piece)
            undecoded = piece[cut:]
            rest += piece[:cut].decode("utf-8", "replace")
            while rest.strip():
                try:
                    value, end = parse_at(rest, 0)
                except ValueError:
                    break
                yield value
                rest = rest[end:]
        if rest.strip() or undecoded.strip():
            value, _ = parse_at(rest + undecoded.decode("utf-8", "replace"), 0)
            yield value

    def close(self) -> None:
        """Give the connection up."""
        self.channel.close()


class Channel:
    """One connection with its read buffer."""

    def __init__(self, connection: Any) -> None:
        self.socket = connection
        self.buffer = b""
        self.busy = False

    def line(self) -> bytes:
        """The next line, without its end."""
        while True:
            end = self.buffer.find(b"\n")
            if end >= 0:
                found, self.buffer = self.buffer[:end], self.buffer[end + 1 :]
                return found.rstrip(b"\r")
            more = self.socket.recv(65536)
            if not more:
                raise EOFError
            self.buffer += more

    def some(self, most: int, end_allowed: bool = False) -> bytes:
        """At least one byte and at most `most`; b"" only at an end that is allowed."""
        if self.buffer:
            found, self.buffer = self.buffer[:most], self.buffer[most:]
            return found
        found = self.socket.recv(min(most, CHUNK))
        if not found and not end_allowed:
            raise CommandError("unexpected EOF")
        return bytes(found)

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


class Client:
    """The daemon, as one kept connection and as many more as streams need."""

    def __init__(self, host: Host, version: str = NEWEST) -> None:
        self.host = host
        self.version = version
        self.server_version = ""
        self._idle: Channel | None = None
        self._started = False

    def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """One request and its JSON answer."""
        return self.request(method, path, query, body, headers).json()

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        hijack: bool = False,
    ) -> Response:
        """Send one request.

        Args:
            path: already escaped, without the version.
            query: None and False values are left out, True is 1, dicts and lists are sent as JSON.
            body: bytes, an iterator of bytes (sent chunked), or anything that JSON can say.

        Raises:
            ApiError: for status 400 and above.
            ConnectionFailed: when nobody answers.
        """
        streaming = body is not None and not isinstance(body, (bytes, dict, list, str))
        if streaming and not self.server_version:
            self.ping()
        response = self._send(method, path, query, body, headers, hijack)
        if response.status >= 400:
            text = _message(response)
            supported = text.partition(_TOO_NEW)[2].strip()
            if supported and not streaming and self.version != supported:
                self.version = self.server_version = supported
                response = self._send(method, path, query, body, headers, hijack)
                if response.status < 400:
                    return response
                text = _message(response)
            raise ApiError(response.status, text)
        return response

    def ping(self) -> None:
        """Learn the daemon's API version, where guessing wrong would cost a stream."""
        response = self._send("GET", "/_ping", None, None, None, False)
        response.read()
        theirs = response.headers.get("api-version", NEWEST)
        self.server_version = theirs
        if _number(theirs) < _number(self.version):
            self.version = theirs

    def close(self) -> None:
        """Give up the kept connection."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Any,
        headers: Mapping[str, str] | None,
        hijack: bool,
    ) -> Response:
        head, payload = self._head(method, path, query, body, headers, hijack)
        channel, kept = self._channel()
        while True:
            try:
                if payload is None:
                    channel.socket.sendall(head)
                    _send_chunked(channel, body)
                else:
                    channel.socket.sendall(head + payload)
                status, fields = _read_head(channel)
                break
            except (EOFError, ConnectionError):
                channel.close()
                if not kept or payload is None:
                    raise ConnectionFailed(
                        f"error during connect: the daemon at {self.host.url} closed the connection"
                    ) from None
                channel, kept = Channel(self._connect()), False
        response = Response(channel, status, fields, method == "HEAD")
        if not hijack and status != 101:
            channel.busy = True
            if fields.get("connection", "").lower() != "close":
                self._idle = channel
        return response

    def _channel(self) -> tuple[Channel, bool]:
        idle = self._idle
        if idle is not None and not idle.busy and not idle.buffer:
            self._idle = None
            return idle, True
        self._idle = None
        return Channel(self._connect()), False

    def _head(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Any,
        headers: Mapping[str, str] | None,
        hijack: bool,
    ) -> tuple[bytes, bytes | None]:
        target = f"/v{self.version}{path}"
        if query:
            target = f"{target}?{encode_query(query)}"
        fields = {"Host": "sampan", **self.host.headers, "User-Agent": f"sampan-cli/{NEWEST}"}
        payload: bytes | None = b""
        if isinstance(body, bytes):
            payload = body
        elif isinstance(body, (dict, list, str)):
            from sampan.cli.jsontext import dump

            payload = dump(body).encode("utf-8", "surrogateescape")
            fields["Content-Type"] = "application/json"
        elif body is not None:
            payload = None
            fields["Transfer-Encoding"] = "chunked"
        if hijack:
            fields["Connection"] = "Upgrade"
            fields["Upgrade"] = "tcp"
        if payload is not None and (payload or method == "POST"):
            fields["Content-Length"] = str(len(payload))
        if headers:
            fields.update(headers)
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8"), payload

    def dial(self) -> Any:
        """A new connection, for bytes that are none of our business.

        Raises:
            ConnectionFailed: when nobody answers.
        """
        return self._connect()

    def _connect(self) -> Any:
        host = self.host
        if host.ssh:
            from sampan.cli.ssh import connect as connect_by_ssh

            return connect_by_ssh(host)
        if host.address is not None:
            from sampan.cli.tcp import connect

            return connect(host)
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            connection.connect(host.path)
            return connection
        except OSError as error:
            connection.close()
            problem = error
        if host.automatic and not self._started:
            self._started = True
            from sampan.cli.autostart import start_daemon

            start_daemon(host, problem)
            return self._connect()
        raise unreachable(host, problem)


def unreachable(host: Host, error: OSError) -> ConnectionFailed:
    """The error to show when nobody answers at `host`."""
    if isinstance(error, PermissionError):
        return ConnectionFailed(
            f"permission denied while trying to connect to the Sampan daemon socket at {host.url}: "
            + _way_in(host)
        )
    return ConnectionFailed(
        f"Cannot connect to the Sampan daemon at {host.url}. Is the sampan daemon running?"
    )


def _way_in(host: Host) -> str:
    """What a user without the right to the socket can do: join its group, where it has one of its own."""
    import grp
    import os

    try:
        gid = os.stat(host.path).st_gid
        group = grp.getgrgid(gid).gr_name if gid else ""
    except (OSError, KeyError):
        group = ""
    if not group:
        return "use sudo (sudo groupadd -f sampan, then a restart of sampand, opens it to a group)"
    return f"use sudo, or join the group {group} (sudo usermod -aG {group} $USER, then log in again)"


def encode_query(query: Mapping[str, Any]) -> str:
    """A query string; see `Client.request` for what becomes of the values."""
    parts = []
    for name, value in query.items():
        if value is None or value is False:
            continue
        for item in value if isinstance(value, list) else [value]:
            if item is True:
                item = "1"
            elif isinstance(item, dict):
                if not item:
                    continue
                from sampan.cli.jsontext import dump

                item = dump(item)
            parts.append(f"{escape(name)}={escape(str(item), safe='/:')}")
    return "&".join(parts)


def _chunks(channel: Channel) -> Iterator[bytes]:
    """The body of a chunked message; all chunks that one read brought are one piece (RFC 9112, 7.1)."""
    data, channel.buffer = channel.buffer, b""
    position, left = 0, 0  # `left` counts what is missing of the present chunk, its line end included
    parts: list[bytes] = []
    while True:
        if left > 2:
            part = data[position : position + left - 2]
            parts.append(part)
            position += len(part)
            left -= len(part)
        if left <= 2 and position + left <= len(data):
            position += left
            left = 0
            end = data.find(b"\n", position)
            if end >= 0:
                size = int(data[position:end].split(b";", 1)[0], 16)
                position = end + 1
                if size:
                    left = size + 2
                    continue
                channel.buffer = data[position:]
                while channel.line():
                    pass
                if parts:
                    yield b"".join(parts)
                return
        if parts:
            yield parts[0] if len(parts) == 1 else b"".join(parts)
            parts = []
        more = channel.socket.recv(CHUNK)
        if not more:
            raise CommandError("unexpected EOF")
        data, position = data[position:] + more, 0


def _send_chunked(channel: Channel, pieces: Iterable[bytes]) -> None:
    send = channel.socket.sendall
    try:
        for piece in pieces:
            if piece:
                send(b"%x\r\n" % len(piece))
                send(piece)
                send(b"\r\n")
        send(b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        pass  # an answer (an error, mostly) is already there: read it


def _read_head(channel: Channel) -> tuple[int, dict[str, str]]:
    while True:
        status = int(channel.line().split(b" ", 2)[1])
        fields: dict[str, str] = {}
        while True:
            line = channel.line()
            if not line:
                break
            name, _, value = line.decode("latin-1").partition(":")
            fields[name.strip().lower()] = value.strip()
        if status != 100:
            return status, fields


def _message(response: Response) -> str:
    body = response.read()
    from sampan.cli.jsontext import parse

    try:
        return str(parse(body)["message"]).strip()
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace").strip() or f"status {response.status}"


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
