"""HTTP/1.1 of one connection, without its I/O (RFC 9112).

Requests of the form that nearly all have are taken in by one expression, and what is no more than that is
answered: a whole head at once, no chunks, nothing that is said twice. From the first other one on h11 does it
all (`h11_protocol`), which knows every case and needs ten times as long.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sampan.dataclasses import dataclass

if TYPE_CHECKING:
    from sampan.http.h11_protocol import H11Protocol

HEAD_LIMIT_BYTES = 128 << 10
NO_BODY = (204, 304)  # answers that never have one

_HEAD = re.compile(
    rb"([A-Z]+) (/[!-~]*) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n)+)\r\n"
)
_LENGTH = re.compile(r"[0-9]{1,18}")
_PLAIN_CONNECTIONS = ("", "keep-alive", "upgrade")


@dataclass(slots=True)
class Head:
    """A request's first part.

    Attributes:
        method: "GET", "POST", …
        target: as it was sent.
        headers: names in lower case; a repeated header's values are joined by ", ".
        version: of HTTP, such as "1.1".
    """

    method: str
    target: str
    headers: dict[str, str]
    version: str = "1.1"

    @property
    def chunked(self) -> bool:
        """Whether its body comes in chunks."""
        return self.headers.get("transfer-encoding", "").lower() == "chunked"


class Malformed(Exception):
    """What was received is not HTTP/1.1.

    Attributes:
        status: what to answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Signal:
    """What `Protocol.next_event` gives when it is neither a head nor a part of a body."""


END = Signal()  # of a request
NEED_DATA = Signal()
PAUSED = Signal()  # what follows waits for the answer
CLOSED = Signal()

Event = Head | bytes | Signal


class Protocol:
    """Takes in requests, and gives out answers as bytes."""

    def __init__(self) -> None:
        self._h11: H11Protocol | None = None
        self._head: Head | None = None  # read, but not given out yet
        self._method = ""  # of the request in hand; empty between two
        self._left = 0  # bytes of its body still to come
        self._ended = False  # END was given out
        self._waiting = b""  # of the body, then what is behind it
        self._unsent: int | None = 0  # bytes of the answer's body still to send; None for chunks
        self._done = False  # the answer is sent
        self._closing = False  # and says that it is the last

    # --- requests ---

    def receive(self, data: bytes) -> None:
        """Take in what was received.

        Raises:
            RuntimeError: nothing more was expected.
        """
        if self._h11 is None:
            if self._method:
                self._waiting += data
                return
            if data and self._begin(data):
                return
            from sampan.http.h11_protocol import H11Protocol  # many a daemon never needs it

            self._h11 = H11Protocol()
        self._h11.receive(data)

    def _begin(self, data: bytes) -> bool:
        """Whether these bytes begin with a head that needs no h11, which is read then."""
        end = data.find(b"\r\n\r\n") + 4
        found = _HEAD.fullmatch(data, 0, end) if end > 4 else None
        if found is None:
            return False
        headers: dict[str, str] = {}
        lines = found[3].split(b"\r\n")
        for line in lines[:-1]:
            name, _, value = line.partition(b":")
            headers[name.decode("ascii").lower()] = value.strip(b" \t").decode("utf-8", "replace")
        length = headers.get("content-length", "0")
        if (
            len(headers) != len(lines) - 1
            or "host" not in headers
            or "transfer-encoding" in headers
            or "expect" in headers
            or headers.get("connection", "").lower() not in _PLAIN_CONNECTIONS
            or not _LENGTH.fullmatch(length)
        ):
            return False
        self._method = found[1].decode("ascii")
        self._head = Head(self._method, found[2].decode("ascii"), headers)
        self._left = int(length)
        self._waiting = data[end:]
        return True

    def next_event(self) -> Event:
        """What comes next: a head, a part of a body, or a signal.

        Raises:
            Malformed: this is not HTTP/1.1.
        """
        if self._h11 is not None:
            return self._h11.next_event()
        if self._head is not None:
            head, self._head = self._head, None
            return head
        if not self._method:
            return NEED_DATA
        if self._left and self._waiting:
            data = self._waiting[: self._left]
            self._waiting = self._waiting[len(data) :]
            self._left -= len(data)
            return data
        if self._left:
            return NEED_DATA
        if not self._ended:
            self._ended = True
            return END
        return PAUSED if self._waiting else NEED_DATA

    @property
    def trailing(self) -> bytes:
        """What was received and has become no event yet."""
        return self._waiting if self._h11 is None else self._h11.trailing

    @property
    def continue_awaited(self) -> bool:
        """Whether the client sends its body only when told so."""
        return self._h11 is not None and self._h11.continue_awaited

    @property
    def answered(self) -> bool:
        """Whether the answer is whole, and a further request may follow."""
        if self._h11 is not None:
            return self._h11.answered
        return self._done and not self._closing

    def next_cycle(self) -> None:
        """Go on to the next request, once this one has been read and answered."""
        if self._h11 is not None:
            self._h11.next_cycle()
            return
        self._method, self._ended, self._done = "", False, False
        data, self._waiting = self._waiting, b""
        if data:
            self.receive(data)

    # --- answers ---

    def go_on(self) -> bytes:
        """`100 Continue`."""
        assert self._h11 is not None
        return self._h11.go_on()

    def head(self, status: int, reason: str, headers: Sequence[tuple[str, str]]) -> bytes:
        """The head of an answer; one without a `Content-Length` is sent in chunks, if it has a body.

        Raises:
            ValueError: a header is none.
        """
        if self._h11 is not None:
            return self._h11.head(status, reason, headers)
        length: int | None = None
        lines = [f"HTTP/1.1 {status} {reason}"]
        for name, value in headers:
            lines.append(f"{name}: {value}")
            if name == "Content-Length":
                length = int(value)
            elif name == "Connection" and value == "close":
                self._closing = True
        if length is None and status not in NO_BODY:
            lines.append("Transfer-Encoding: chunked")
        text = "\n".join(lines)
        if text.count("\n") != len(lines) - 1 or "\r" in text or "\0" in text:
            raise ValueError("a header of the answer has more than one line")
        self._unsent = 0 if self._method == "HEAD" or status in NO_BODY else length
        return text.replace("\n", "\r\n").encode("ascii") + b"\r\n\r\n"

    def data(self, content: bytes) -> bytes:
        """A part of the answer's body.

        Raises:
            ValueError, h11.LocalProtocolError: it is more than was announced.
        """
        if self._h11 is not None:
            return self._h11.data(content)
        if self._unsent is None:
            return b"%x\r\n%b\r\n" % (len(content), content) if content else b""
        self.skip(len(content))
        return content

    def skip(self, length: int) -> None:
        """Count bytes of the answer's body that somebody else sends.

        Raises:
            ValueError, h11.LocalProtocolError: they are more than was announced.
        """
        if self._h11 is not None:
            self._h11.skip(length)
            return
        self._unsent = (self._unsent or 0) - length
        if self._unsent < 0:
            raise ValueError("the answer's body is longer than it was announced")

    def end(self) -> bytes:
        """The end of the answer.

        Raises:
            ValueError, h11.LocalProtocolError: something of its body is missing.
        """
        if self._h11 is not None:
            return self._h11.end()
        if self._unsent:
            raise ValueError("the answer's body is shorter than it was announced")
        self._done = True
        return b"0\r\n\r\n" if self._unsent is None else b""
