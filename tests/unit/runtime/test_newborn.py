"""What the parent of a new process makes of what it is told, in whatever order that comes."""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Iterator

import pytest

from sampan.runtime.init import Refused
from sampan.runtime.newborn import Newborn

FAILURE = json.dumps({"stage": "exec", "text": "exec /bin/evil: no such file", "errno": 2}).encode()


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def child() -> tuple[int, int]:
    """A process that has ended, and a pidfd of it."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    select.select([pidfd], [], [])
    return pid, pidfd


def test_a_sibling_that_fails_before_it_is_announced(channel: tuple[socket.socket, socket.socket]) -> None:
    """Its parent learns of it all the same, and so can wait for it: a zombie would hold the container."""
    ours, theirs = channel
    maker, sibling = child(), child()
    newborn = Newborn(maker, ours, steps_in=True)
    theirs.send(FAILURE)
    theirs.send(b"born %d" % sibling[0])
    assert newborn.hear() is False and newborn.unborn
    with pytest.raises(Refused, match="no such file"):
        newborn.hear()
    assert newborn.pid == sibling[0] and not newborn.unborn
    with pytest.raises(ChildProcessError):
        os.waitpid(maker[0], 0)
    newborn.abandon()
    os.close(sibling[1])


@pytest.mark.parametrize("said", [b"", FAILURE], ids=["silent", "failure"])
def test_a_sibling_that_is_never_announced(channel: tuple[socket.socket, socket.socket], said: bytes) -> None:
    ours, theirs = channel
    newborn = Newborn(child(), ours, steps_in=True)
    if said:
        theirs.send(said)
        assert newborn.hear() is False
    theirs.close()
    with pytest.raises(Refused, match="no such file" if said else "killed before it began"):
        newborn.hear()
    assert newborn.unborn
    newborn.abandon()


def test_the_end_of_the_channel_is_the_start_of_the_program(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = channel
    newborn = Newborn(child(), ours)
    theirs.close()
    assert newborn.hear() is True
    newborn.abandon()
