"""A start that fails while everything around it goes away: nothing is left open, and nobody waits for it."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from pathlib import Path

import pytest

from sampan.runtime.entrance import CgroupEntry, clone
from sampan.runtime.exec_base import ExecBase
from sampan.runtime.init import Refused
from sampan.runtime.loop import Loop
from sampan.runtime.protocol import ExecRequest


def test_an_exec_is_refused_with_neither_daemon_nor_directory(tmp_path: Path) -> None:
    """As when its container is removed by a daemon that ends: the monitor must get to the end of it."""
    rundir = tmp_path / "exec"
    rundir.mkdir()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    run = ExecBase(Loop(), ExecRequest("id", str(rundir)), ours)
    run._open_rundir()
    theirs.close()
    shutil.rmtree(rundir)
    run._fail(Refused("init", "too late"))
    assert ours.fileno() == -1
    run.close()


def test_a_container_that_has_ended_leaves_no_descriptor(tmp_path: Path) -> None:
    def gone() -> None:
        raise OSError(errno.ESRCH, "No such process")

    before = sorted(os.listdir("/proc/self/fd"))
    entry = CgroupEntry(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY), ())
    with pytest.raises(OSError, match="No such process"):
        clone(0, entry, gone)
    assert sorted(os.listdir("/proc/self/fd")) == before
