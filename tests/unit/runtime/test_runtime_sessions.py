"""Framing, detach keys, and what a session keeps for a client that does not take it."""

from __future__ import annotations

import os
import random
import socket
import time
from pathlib import Path

import pytest

from sampan.runtime import backlog as backlog_module
from sampan.runtime import sessions, wire
from sampan.runtime.backlog import Backlog
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


def test_a_backlog_is_a_ring_within_its_bound(tmp_path: Path) -> None:
    backlog = Backlog(str(tmp_path), 1000)
    dice = random.Random(5)
    model = bytearray()
    for _ in range(2000):
        data = dice.randbytes(dice.randrange(400))
        kept = backlog.put(data)
        assert kept == min(len(data), 1000 - len(model))
        model += data[:kept]
        if model:
            taken = backlog.take(dice.randrange(1, 500))
            assert taken and model.startswith(taken)
            del model[: len(taken)]
        assert len(backlog) == len(model)
    backlog.close()
    assert list(tmp_path.iterdir()) == []


def _stuck(directory: Path, patient: bool) -> tuple[socket.socket, Session, bytes]:
    """A client that reads nothing, its session, and what was sent until it waited."""
    mine, theirs = socket.socketpair()
    attachment = Attachment(False, True, False, False)
    session = Session(theirs.detach(), attachment, False, patient, str(directory))
    sent = b"first " * 100_000
    session.send("stdout", sent)
    assert session.pending
    return mine, session, sent


@pytest.mark.parametrize("patient", [False, True])
def test_a_client_that_stalls_holds_nobody_and_still_gets_every_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: bool
) -> None:
    monkeypatch.setattr(backlog_module.Backlog.__init__, "__defaults__", (3_000_000,))
    mine, session, sent = _stuck(tmp_path, patient)
    assert session.holds(), "one that is merely slow paces the process"
    assert 0 < session.tend() <= sessions.STALLED_S
    monkeypatch.setattr(sessions, "STALLED_S", 0.0)
    pieces = [bytes([number]) * 60_000 for number in range(45)]
    for piece in pieces:
        assert not session.holds()
        session.send("stdout", piece)
        assert session.tend() < 0 and not session.dead
    assert session.memory_bytes < len(sent)
    monkeypatch.setattr(sessions, "STALLED_S", 1e9)
    assert session.holds(), "it takes output again"
    got = bytearray()
    paced = 0
    while session.pending:
        got += mine.recv(1 << 20)
        session.flush()
        if paced < 20 and not session.holds():
            paced += 1
            pieces.append(b"more" * 1000)
            session.send("stdout", pieces[-1])
    session.close()
    while piece := mine.recv(1 << 20):
        got += piece
    assert paced == 20
    assert got == sent + b"".join(pieces)
    mine.close()


def test_when_no_more_can_be_kept_a_patient_clients_process_waits_and_another_client_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog_module.Backlog.__init__, "__defaults__", (100_000,))
    monkeypatch.setattr(sessions, "STALLED_S", 0.0)
    for patient in (True, False):
        mine, session, sent = _stuck(tmp_path, patient)
        for _ in range(3):
            session.send("stdout", b"y" * 60_000)
        session.tend()
        assert session.dead is not patient
        assert session.holds() is patient
        got = bytearray()
        while patient and session.pending:
            got += mine.recv(1 << 20)
            session.flush()
        assert not patient or got + mine.recv(1 << 20) == sent + b"y" * 180_000
        session.close()
        mine.close()


def test_without_a_place_for_it_a_client_has_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = socket.socketpair()
    session = Session(theirs.detach(), Attachment(False, True, False, False), False, False)
    session.send("stdout", b"x" * 1_000_000)
    assert session.holds() and 0 < session.tend() <= sessions.GONE_S
    monkeypatch.setattr(sessions, "GONE_S", 0.0)
    session.tend()
    assert session.dead
    session.close()
    mine.close()


def test_one_who_reads_the_head_late_is_not_taken_for_gone() -> None:
    ours, theirs = socket.socketpair()
    theirs.send(b"head\r\n\r\n")
    session = Session(theirs.detach(), Attachment(False, True, True, False), terminal=True, patient=False)
    session.send("stdout", b"first")
    assert ours.recv(100) == b"head\r\n\r\n"
    assert not session.waits()
    session.tend()
    session.flush()
    assert ours.recv(100) == b"first"
    session.close()
    ours.close()


def test_one_who_detaches_is_not_kept_for_what_it_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "STALLED_S", 0.0)
    mine, session, sent = _stuck(tmp_path, True)
    session.send("stdout", b"y" * 60_000)
    session.detach()
    got = bytearray()
    while session.pending:
        got += mine.recv(1 << 20)
        session.flush()
    session.close()
    while piece := mine.recv(1 << 20):
        got += piece
    assert got == sent
    mine.close()
