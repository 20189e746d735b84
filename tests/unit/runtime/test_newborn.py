"""What the parent of a new process makes of what it is told."""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Iterator

import pytest

from sampan.runtime.init import Refused
from sampan.runtime.newborn import Newborn


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


def test_a_failure_is_told_in_its_own_words(channel: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = channel
    newborn = Newborn(child(), ours)
    theirs.send(json.dumps({"stage": "exec", "text": "exec /bin/evil: no such file", "errno": 2}).encode())
    with pytest.raises(Refused, match="no such file"):
        newborn.hear()
    newborn.abandon()


def test_the_end_of_the_channel_is_the_start_of_the_program(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = channel
    newborn = Newborn(child(), ours)
    theirs.close()
    assert newborn.hear() is True
    newborn.abandon()
