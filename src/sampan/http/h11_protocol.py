"""HTTP/1.1 of one connection by h11, which knows every case: what `protocol` does from an unusual request on.

Many a daemon never meets one, and so does without h11, whose import takes as long as sixty modules of ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import h11

from sampan.http.protocol import CLOSED, END, HEAD_LIMIT_BYTES, NEED_DATA, PAUSED, Event, Head, Malformed


class H11Protocol:
    """As `protocol.Protocol`, method by method; wrong use of it is a `h11.LocalProtocolError`."""

    def __init__(self) -> None:
        self._machine = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT_BYTES)

    # --- requests ---

    def receive(self, data: bytes) -> None:
        """Take in what was received."""
        self._machine.receive_data(data)

    def next_event(self) -> Event:
        """What comes next."""
        try:
            event = self._machine.next_event()
        except h11.RemoteProtocolError as error:
            raise Malformed(str(error), error.error_status_hint) from error
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.Request):
            headers: dict[str, str] = {}
            for raw_name, raw_value in event.headers:
                name, value = raw_name.decode("ascii"), raw_value.decode("utf-8", "replace")
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
            version = event.http_version.decode("ascii")
            return Head(event.method.decode("ascii"), event.target.decode("latin-1"), headers, version)
        if isinstance(event, h11.EndOfMessage):
            return END
        if event is h11.NEED_DATA:
            return NEED_DATA
        return PAUSED if event is h11.PAUSED else CLOSED

    @property
    def trailing(self) -> bytes:
        """What was received and has become no event yet."""
        return self._machine.trailing_data[0]

    @property
    def continue_awaited(self) -> bool:
        """Whether the client sends its body only when told so."""
        return self._machine.they_are_waiting_for_100_continue

    @property
    def answered(self) -> bool:
        """Whether the answer is whole, and a further request may follow."""
        return self._machine.our_state is h11.DONE

    def next_cycle(self) -> None:
        """Go on to the next request."""
        self._machine.start_next_cycle()

    # --- answers ---

    def go_on(self) -> bytes:
        """`100 Continue`."""
        return self._machine.send(h11.InformationalResponse(status_code=100, headers=[])) or b""

    def head(self, status: int, reason: str, headers: Sequence[tuple[str, str]]) -> bytes:
        """The head of an answer."""
        response = h11.Response(status_code=status, headers=list(headers), reason=reason)
        return self._machine.send(response) or b""

    def data(self, content: bytes) -> bytes:
        """A part of the answer's body."""
        return self._machine.send(h11.Data(data=content)) or b""

    def skip(self, length: int) -> None:
        """Count bytes of the answer's body that somebody else sends."""
        self._machine.send_with_data_passthrough(h11.Data(data=_Unseen(length)))  # type: ignore[arg-type]

    def end(self) -> bytes:
        """The end of the answer."""
        return self._machine.send(h11.EndOfMessage()) or b""


class _Unseen:
    """So many bytes that somebody else sends."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length
