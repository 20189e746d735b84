"""A reaper finds its report where it looks for it, whatever number the descriptors had before."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

BEGINNING = """
import os, socket, sys
from sampan.engine.init_program import sealed_init
from sampan.runtime import init
from sampan.runtime.bundle import parse_process

os.dup2(int(sys.argv[1]), 200)
ours, theirs = socket.socketpair()
os.dup2(ours.detach(), 201)
os.dup2(theirs.detach(), 202)
os.closerange(3, 200)
make = {
    "channel": lambda: socket.socket(fileno=os.dup(202)),
    "program": sealed_init,
    "report": lambda: os.dup(200),
}
found = {name: make[name]() for name in sys.argv[2].split()}
os.close(200)
os.close(202)
process = parse_process({"args": sys.argv[3:], "env": ["PATH=/usr/bin:/bin"], "cwd": "/", "user": {}})
entry = init.Entry(process, found["channel"], (0, 1, 2), None, "x", None)
init._execute_reaper(entry, found["program"], found["report"])
"""


@pytest.mark.parametrize(
    "first", ["channel program report", "program report channel", "report channel program"]
)
def test_the_report_is_at_its_place(first: str) -> None:
    reader, writer = os.pipe()
    script = "read x <&201; echo channel closed: $?; [ -e /proc/self/fd/3 ] && echo open; exit 6"
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING, str(writer), first, "bash", "-c", script],
        pass_fds=[writer], capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    os.close(writer)
    assert done.returncode == 6, done.stderr
    assert done.stdout == "channel closed: 1\n"
    assert os.read(reader, 10) == b"\x06"
    os.close(reader)
