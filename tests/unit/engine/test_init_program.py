"""The program behind `--init`, run for real; for AArch64 where an emulator is at hand."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sampan.engine.init_program import init_program, write_init
from sampan.errors import Unsupported

EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")


@pytest.fixture(
    params=[
        pytest.param(os.uname().machine, id="native"),
        pytest.param("aarch64", marks=pytest.mark.skipif(EMULATOR is None, reason="needs qemu-user-static")),
    ]
)
def command(request, tmp_path):
    path = tmp_path / "init"
    path.write_bytes(init_program(request.param))
    path.chmod(0o755)
    return [str(path)] if request.param == os.uname().machine else [EMULATOR, str(path)]


def run(command, *words, **more):
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=30, **more)


def test_it_ends_as_its_command_ends(command):
    assert run(command, "--", "echo", "hello").stdout == "hello\n"
    assert run(command, "sh", "-c", "exit 7").returncode == 7
    assert run(command, "--", "sh", "-c", "kill -9 $$").returncode == 137


def test_it_finds_commands_as_a_shell_does(command):
    assert run(command, "--", "env", env={"PATH": ":/nowhere:/usr/bin:/bin"}).stdout.startswith("PATH=:")
    assert run(command, "--", "true", env={}).returncode == 0
    missing = run(command, "--", "no-such-thing")
    assert (missing.returncode, missing.stderr) == (127, "docker-init: cannot run no-such-thing\n")
    assert run(command, "--", "/etc/passwd").returncode == 126
    assert run(command, "--").returncode == 1


def test_it_hands_signals_on(command):
    script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen([*command, "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "caught\n"
        assert process.wait(10) == 3


PLACING = """
import os, sys
from sampan.linux import syscalls
os.dup2(int(sys.argv[1]), 3)
os.closerange(4, 256)
if "qemu" in sys.argv[2]:  # which refuses what the program does itself
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize(("ending", "code"), [("exit 7", 7), ("kill -9 $$", 137)])
def test_with_k_it_tells_the_end_and_stays_for_the_rest(command, ending, code):
    """Its streams end with the command, though it waits for what it has adopted."""
    reader, writer = os.pipe()
    script = f"(sleep 1000 >/dev/null 2>&1 & echo $!); [ -e /proc/self/fd/3 ] && echo open; {ending}"
    start = [sys.executable, "-c", PLACING, str(writer)]
    with subprocess.Popen(
        [*start, *command, "-k", "--", "sh", "-c", script],
        stdout=subprocess.PIPE, text=True, pass_fds=[writer],
    ) as process:  # fmt: skip
        os.close(writer)
        assert os.read(reader, 2) == bytes([code])
        assert os.read(reader, 1) == b""
        [rest] = process.stdout.read().split()
        assert process.poll() is None
        assert Path(f"/proc/{rest}/stat").read_text().split()[3] == str(process.pid)
        os.kill(int(rest), signal.SIGKILL)
        assert process.wait(10) == code
        assert not os.path.exists(f"/proc/{rest}")
    os.close(reader)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_it_reaps_what_others_leave(tmp_path):
    program = write_init(str(tmp_path))
    assert write_init(str(tmp_path)) == program
    script = (
        "for i in 1 2 3; do (sleep 0.05 & exec true); done; sleep 0.3; ps -o stat= -A | grep -c Z; exit 0"
    )
    unshare = ["unshare", "--fork", "--pid", "--mount-proc", program, "--", "sh", "-c", script]
    started = time.monotonic()
    assert run(unshare).stdout == "0\n"
    assert time.monotonic() - started < 10


def test_other_machines_are_refused_by_name():
    with pytest.raises(Unsupported, match="riscv64"):
        init_program("riscv64")
