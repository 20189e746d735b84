"""What a container may not do to the resolver, or one of its programs to another's questions, by TCP."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from sampan.resolver.clock import Clock
from sampan.resolver.streams import MOST_CONNECTIONS, Listener
from sampan.runtime.loop import Loop


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A listener on the loopback that answers each question with itself."""

    def echo(data: bytes, deliver: Callable[[bytes], None]) -> None:
        deliver(data)

    end = socket.create_server(("127.0.0.1", 0), backlog=2 * MOST_CONNECTIONS)
    end.setblocking(False)
    made = Listener(Loop(), Clock(), end, echo)
    made.address = end.getsockname()  # type: ignore[attr-defined]
    yield made
    made.close()


def connect(listener: Listener) -> socket.socket:
    end = socket.create_connection(listener.address, 5)  # type: ignore[attr-defined]
    end.setblocking(False)
    return end


def answer(listener: Listener, end: socket.socket, count: int = 1) -> bytes:
    """What comes back for a question that is sent so many times."""
    end.sendall((struct.pack(">H", 3) + b"abc") * count)
    got = b""
    while len(got) < 5 * count:
        listener.loop.turn(0.01)
        try:
            chunk = end.recv(4096)
        except BlockingIOError:
            continue
        if not chunk:
            break
        got += chunk
    return got


def test_idle_connections_do_not_push_out_one_that_asks(listener: Listener) -> None:
    asking = connect(listener)
    assert answer(listener, asking)
    idle = [connect(listener) for _ in range(MOST_CONNECTIONS - 1)]
    while len(listener.connections) < MOST_CONNECTIONS:
        listener.loop.turn(0.01)
    assert answer(listener, asking)
    late = connect(listener)
    assert answer(listener, late) and answer(listener, asking)
    assert len(listener.connections) == MOST_CONNECTIONS
    assert idle[0].recv(1) == b""  # that which was idle the longest made room
    for end in (asking, late, *idle):
        end.close()


def test_questions_without_end_leave_no_deadlines_behind(listener: Listener) -> None:
    asking = connect(listener)
    for _ in range(50):
        assert len(answer(listener, asking, 100)) == 500
    assert len(listener.clock) < 2000
    asking.close()


def test_deadlines_come_in_order_after_a_sweep() -> None:
    clock, seen = Clock(), list[int]()
    for number in range(3000):
        timer = clock.after(-number, lambda number=number: seen.append(number))  # type: ignore[misc]
        if number % 3:
            timer.cancel()
    clock.run_due()
    assert seen == [number for number in reversed(range(3000)) if number % 3 == 0]
