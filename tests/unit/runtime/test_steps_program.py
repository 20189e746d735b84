"""The program that takes an exec's steps, run for real; for AArch64 where an emulator is at hand."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.errors import Unsupported
from sampan.runtime.bundle import ProcessSpec
from sampan.runtime.exec_start import start, step_in
from sampan.runtime.searching import refusal
from sampan.runtime.steps import NEXT, SECOND_STEP, Steps
from sampan.runtime.steps_program import FIRST_BYTES, ROOM_BYTES, sealed_steps_program, steps_program
from sampan.runtime.told import BORN, CANDIDATE, GO, PROGRAM, SEARCHED, TOLD, UNTRIED, Hands

EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(
    params=[
        pytest.param(os.uname().machine, id="native"),
        pytest.param("aarch64", marks=pytest.mark.skipif(EMULATOR is None, reason="needs qemu-user-static")),
    ]
)
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def begin(
    machine: str, tmp_path: Path, first: Steps, second: Steps | None = None, fds: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    path = tmp_path / "program"
    path.write_bytes(steps_program(machine))
    path.chmod(0o755)
    content = first.finish()
    if second is not None:
        content = content.ljust(FIRST_BYTES, b"\0") + second.finish()
    (tmp_path / "list").write_bytes(content)
    words = [str(path)] if machine == os.uname().machine else [str(EMULATOR), str(path)]
    with open(tmp_path / "list", "rb") as file:
        return subprocess.Popen(words, stdin=file, stdout=subprocess.PIPE, pass_fds=fds)


def output(process: subprocess.Popen[bytes]) -> tuple[bytes, int]:
    with process:
        content, _ = process.communicate(timeout=30)
    return content, process.returncode


def test_results_go_where_they_are_to(machine: str, tmp_path: Path) -> None:
    """Into another step's argument, and into memory that is compared."""
    steps = Steps(machine, 1)
    opened = steps.call("openat", -100, steps.text("/etc/hostname"), os.O_RDONLY)
    place = steps.scratch(64)
    read = steps.call("read", 0, place, 64, failed="bad", zero="bad")
    written = steps.call("write", 1, place, 0)
    steps.keep(opened, read, 0)
    steps.keep(read, written, 2)
    steps.call("compare", written + 24, len(Path("/etc/hostname").read_bytes()), zero="good")
    steps.label("bad")
    steps.call("exit_group", 9)
    steps.label("good")
    steps.call("exit_group", 4)
    assert output(begin(machine, tmp_path, steps)) == (Path("/etc/hostname").read_bytes(), 4)


@pytest.mark.parametrize(("left", "right", "code"), [(1, 2, 1), (2, 2, 2), (3, 2, 3), (-5, -5, 2)])
def test_three_ways_from_a_comparison(machine: str, tmp_path: Path, left: int, right: int, code: int) -> None:
    steps = Steps(machine, 1)
    steps.call("compare", steps.numbers(left), right, failed="less", zero="equal", positive="more")
    for number, name in enumerate(("less", "equal", "more"), 1):
        steps.label(name)
        steps.call("exit_group", number)
    assert output(begin(machine, tmp_path, steps))[1] == code


def test_a_failure_that_leads_nowhere_is_told(machine: str, tmp_path: Path) -> None:
    steps = Steps(machine, 1)
    steps.call("close", 77, failed=NEXT)
    steps.forgive("close", 77, errors=(errno.EBADF,))
    step = steps.call("openat", -100, steps.text("/none"), 0)
    assert output(begin(machine, tmp_path, steps)) == (TOLD.pack(step, -errno.ENOENT), 1)


def test_what_is_not_forgiven_is_told_as_the_step_itself(machine: str, tmp_path: Path) -> None:
    steps = Steps(machine, 1)
    step = steps.forgive("close", 77, errors=(errno.EPERM,))
    steps.call("exit_group", 0)
    assert output(begin(machine, tmp_path, steps)) == (TOLD.pack(step, -errno.EBADF), 1)


def test_a_second_part_may_be_long(machine: str, tmp_path: Path) -> None:
    first, second = Steps(machine, 1), Steps(machine, 1, first=False)
    first.call("pread64", 0, SECOND_STEP, ROOM_BYTES - FIRST_BYTES, FIRST_BYTES, positive=SECOND_STEP)
    text = second.data(b"x" * 5_000_000)
    second.call("write", 1, text + 4_999_000, 1000)
    second.call("exit_group", 0)
    assert output(begin(machine, tmp_path, first, second)) == (b"x" * 1000, 0)


def test_too_long_a_list_is_refused() -> None:
    steps = Steps("x86_64", 1, first=False)
    steps.data(bytes(ROOM_BYTES))
    with pytest.raises(OSError, match="too long"):
        steps.finish()


@pytest.fixture
def ends() -> Iterator[dict[str, socket.socket]]:
    """Both ends of a channel and of a report."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    names = ("channel", "its channel", "report", "its report")
    found = dict(zip(names, [end for pair in pairs for end in pair], strict=True))
    yield found
    for end in found.values():
        end.close()


@pytest.mark.parametrize(
    ("args", "status"),
    [(["sh", "-c", "(sleep 1000 >&- & echo $!); exit 7"], 7 << 8), (["sh", "-c", "echo 0; kill -9 $$"], 9)],
    ids=["exits", "killed"],
)
def test_a_reaper_tells_the_end_and_stays_for_the_rest(
    tmp_path: Path, ends: dict[str, socket.socket], args: list[str], status: int
) -> None:
    """Here alone: the emulator knows neither CLONE_PARENT nor subreapers."""
    machine = os.uname().machine
    hands = Hands(ends["its channel"].fileno(), ends["its report"].fileno(), -1, -1, (), (0, 1, 2))
    steps = Steps(machine, hands.channel)
    steps.call("fcntl", hands.channel, 2, 1)  # F_SETFD, FD_CLOEXEC
    step_in(steps, hands, guarded=False)
    start(steps, hands, ProcessSpec(args, "/", ["PATH=/usr/bin:/bin"]), [])
    with begin(machine, tmp_path, steps, fds=(hands.channel, hands.report)) as process:
        ends["its channel"].close()
        ends["its report"].close()
        told = [TOLD.unpack(ends["channel"].recv(100)) for _ in range(2)]
        assert {number for number, _ in told} == {BORN, PROGRAM}
        [reaper] = [pid for number, pid in told if number == BORN]
        assert ends["channel"].recv(100) == b""  # execve has closed it
        ends["report"].send(GO)
        assert int.from_bytes(ends["report"].recv(8), "little") == status
        assert process.stdout is not None
        rest = int(process.stdout.readline())
        if rest:
            assert Path(f"/proc/{rest}/stat").read_text().rpartition(")")[2].split()[1] == str(reaper)
            deadline = time.monotonic() + 30
            while os.listdir(f"/proc/{reaper}/fd"):  # it closes its report once it has told
                assert time.monotonic() < deadline
            os.kill(rest, signal.SIGKILL)
        process.wait(30)
    os.waitid(os.P_PID, reaper, os.WEXITED)  # CLONE_PARENT: it is a child of ours


def test_the_results_of_a_search_are_told(machine: str, tmp_path: Path) -> None:
    (tmp_path / "dir" / "x").mkdir(parents=True)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "x").write_text("no program")
    (tmp_path / "text" / "x").chmod(0o755)
    wanted = ProcessSpec(["x"], "/", [f"PATH=/none:{tmp_path}/dir:{tmp_path}/text:/usr"])
    hands = Hands(1, -1, -1, -1, (), (0, 1, 2))
    steps = Steps(machine, 1)
    start(steps, hands, wanted, [])
    content, _ = output(begin(machine, tmp_path, steps))
    assert TOLD.unpack(content[:16]) == (PROGRAM, 0)
    assert TOLD.unpack(content[16:32]) == (SEARCHED, 0)
    results = list(CANDIDATE.iter_unpack(content[32:]))
    assert results[0][0] == -errno.ENOENT and results[1][1] >= 0
    if machine != os.uname().machine:
        return  # the emulator does not know faccessat2
    assert results[2][2] == 0 and results[3] == (UNTRIED,) * 3
    assert refusal(wanted, results).text == f"exec {tmp_path}/text/x: exec format error"


def test_other_machines_are_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="riscv64"):
        steps_program("riscv64")


def test_nobody_can_write_to_the_program() -> None:
    for attempt in (os.O_WRONLY, os.O_RDWR):
        fd = os.open(f"/proc/self/fd/{sealed_steps_program()}", attempt)
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
        os.close(fd)
