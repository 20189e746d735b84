"""Framing, detach keys, and what a session keeps for a client that does not take it."""

from __future__ import annotations

import os
import socket
import time

import pytest

from sampan.runtime import wire
from sampan.runtime.protocol import Attachment, ExecRequest, LaunchRequest, LogSpec
from sampan.runtime.sessions import DetachScanner, Session, frame

CTRL_P_Q = b"\x10\x11"


def test_frame() -> None:
    assert frame("stdout", b"ab") == b"\x01\0\0\0\0\0\0\x02ab"
    assert frame("stderr", b"x" * 300)[:8] == b"\x02\0\0\0\0\0\x01\x2c"


@pytest.mark.parametrize(
    ("keys", "typed", "passed", "detached"),
    [
        (CTRL_P_Q, [b"abc"], b"abc", False),
        (CTRL_P_Q, [b"ab\x10\x11cd"], b"ab", True),
        (CTRL_P_Q, [b"ab\x10", b"\x11"], b"ab", True),
        (CTRL_P_Q, [b"ab\x10", b"x"], b"ab\x10x", False),
        (CTRL_P_Q, [b"\x10", b"\x10", b"\x11"], b"\x10", True),
        (b"q", [b"abq"], b"ab", True),
        (b"aab", [b"aa", b"ca", b"ab"], b"aac", True),
        (b"", [b"\x10\x11"], b"\x10\x11", False),
    ],
)
def test_detach_keys(keys: bytes, typed: list[bytes], passed: bytes, detached: bool) -> None:
    scanner = DetachScanner(keys)
    out = b""
    for piece in typed:
        data, done = scanner.feed(piece)
        out += data
        if done:
            break
    assert (out, done) == (passed, detached)


def test_a_session_keeps_what_does_not_fit_and_notices_death() -> None:
    mine, theirs = socket.socketpair()
    session = Session(theirs.detach(), Attachment(False, True, False, True), terminal=False, patient=True)
    session.send("stderr", b"not wanted")
    session.send("stdout", b"x" * 4_000_000)
    assert session.pending
    got = b""
    while session.pending:
        got += mine.recv(1 << 20)
        session.flush()
    session.close()
    while piece := mine.recv(1 << 20):
        got += piece
    assert got == frame("stdout", b"x" * 4_000_000)
    mine.close()
    mine, theirs = socket.socketpair()
    session = Session(theirs.detach(), Attachment(False, True, True, False), terminal=True, patient=True)
    mine.close()
    session.send("stdout", b"x")
    assert session.dead
    session.close()


def test_requests_survive_the_wire() -> None:
    request = LaunchRequest(
        "id", "/bundle", "/run", True, True, LogSpec("/log", 10, 2, True, {"a": "b"}),
        (Attachment(True, True, False, True, b"\x10\x11", b"\0\xff"),), (24, 80),
    )  # fmt: skip
    ours, theirs = wire.pair()
    wire.send(ours, wire.encode_request(request), [0])
    message, fds = wire.receive(theirs)
    assert message is not None and wire.decode_request(message) == request
    assert len(fds) == 1
    execute = ExecRequest("id", "/run", True, False, (24, 80), 1.5, True)
    wire.send(ours, {"request": wire.encode_exec(execute)})
    message, _ = wire.receive(theirs)
    assert message is not None and wire.decode_exec(message["request"]) == execute
    ours.close()
    assert wire.receive(theirs) == (None, [])
    theirs.close()
    os.close(fds[0])


def test_the_first_output_waits_until_the_head_was_read() -> None:
    ours, theirs = socket.socketpair()
    theirs.send(b"head\r\n\r\n")
    session = Session(theirs.detach(), Attachment(False, True, True, False), terminal=True, patient=True)
    session.send("stdout", b"first")
    session.flush()
    assert ours.recv(100) == b"head\r\n\r\n"
    assert not session.waits()
    session.flush()
    session.send("stdout", b" second")
    assert ours.recv(100) == b"first second"
    session.close()
    ours.close()


def test_the_first_output_does_not_wait_for_ever() -> None:
    ours, theirs = socket.socketpair()
    theirs.send(b"head\r\n\r\n")
    session = Session(theirs.detach(), Attachment(False, True, True, False), terminal=True, patient=True)
    session.send("stdout", b"first")
    end = time.monotonic() + 5
    while session.waits() and time.monotonic() < end:
        time.sleep(0.01)
    session.flush()
    assert ours.recv(100) == b"head\r\n\r\nfirst"
    session.close()
    ours.close()
