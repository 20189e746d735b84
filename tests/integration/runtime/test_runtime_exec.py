"""Execs in the container's monitor: many at once, stuck ones, ended ones, and what they must not leave."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sampan.errors import Conflict
from sampan.runtime import ExecRequest, LaunchError, sealed_steps_program
from support.bundles import Run, Runner, alive, eventually, in_box, process

pytestmark = pytest.mark.root


def _children(pid: int) -> list[tuple[str, str]]:
    """Name and state of the processes whose parent is `pid`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = text.rpartition(")")[2].split()
        if int(fields[1]) == pid:
            found.append((text[text.index("(") + 1 : text.rindex(")")], fields[0]))
    return found


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _leaves(runner: Runner) -> set[Path]:
    return {
        Path(directory)
        for directory, _, _ in os.walk("/sys/fs/cgroup")
        if os.path.basename(directory).startswith("exec-") and runner.box.cgroup in directory
    }


async def _container(runner: Runner, args: list[str]) -> Run:
    runner.box.config(args)
    return await runner.launch()


async def _end(runner: Runner, run: Run) -> tuple[bytes, int]:
    output = await run.client.read()
    record = await asyncio.wait_for(run.process.wait(), 10)
    await runner.remove(run)
    return output, record.exit_code


def test_sigkill_ends_all_that_an_exec_started_and_nothing_else() -> None:
    async def body(runner: Runner) -> None:
        main = await _container(runner, ["sleep", "1000"])
        other = await runner.execute(main, process(["sleep", "1001"]))
        script = "(sleep 1002 &) ; sh -c '(sleep 1003 &)'; sleep 1004"
        run = await runner.execute(main, process(["sh", "-c", script]))
        reaper = _parent(run.process.pid)
        await eventually(lambda: len(_children(reaper)) == 3)  # the two orphans, too
        assert len(_leaves(runner)) == 2
        beside = [("sampan-reaper", "S"), ("sampan-reaper", "S"), ("sleep", "S")]
        await eventually(lambda: sorted(_children(main.process.monitor_pid)) == beside)
        await run.process.kill(signal.SIGKILL)
        record = await asyncio.wait_for(run.process.wait(), 5)
        assert record.exit_code == 137
        assert _children(main.process.pid) == [] and not alive(reaper)
        assert alive(other.process.pid) and alive(main.process.pid)
        await eventually(lambda: len(_leaves(runner)) == 1)
        with pytest.raises(Conflict):
            await run.process.kill(signal.SIGKILL)

    in_box(body)


def test_other_signals_reach_the_program_alone() -> None:
    async def body(runner: Runner) -> None:
        main = await _container(runner, ["sleep", "1000"])
        script = "trap 'echo caught; exit 5' USR1; (sleep 1002 &) ; echo up; while :; do sleep 0.02; done"
        run = await runner.execute(main, process(["sh", "-c", script]))
        await run.client.read(b"up")
        reaper = _parent(run.process.pid)
        await run.process.kill(signal.SIGUSR1)
        assert (await asyncio.wait_for(run.process.wait(), 5)).exit_code == 5
        assert _children(reaper) == [("sleep", "S")] and _children(main.process.pid) == []

    in_box(body)


def test_what_an_exec_leaves_running_lives_on() -> None:
    async def body(runner: Runner) -> None:
        main = await _container(runner, ["sleep", "1000"])
        started = await runner.execute(main, process(["sh", "-c", "(sleep 1002 >/dev/null 2>&1 &); exit 3"]))
        assert await _end(runner, started) == (b"", 3)
        assert _children(main.process.pid) == []
        await eventually(lambda: len(_leaves(runner)) == 1)
        service = next(iter(_leaves(runner)))
        pids = [int(pid) for pid in (service / "cgroup.procs").read_text().split()]
        [left] = [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text() == "sleep\n"]
        reaper = _parent(left)
        os.kill(left, signal.SIGKILL)
        await eventually(lambda: not alive(reaper) and not _leaves(runner))
        assert await _end(runner, await runner.execute(main, process(["true"]))) == (b"", 0)
        await eventually(lambda: not _leaves(runner))

    in_box(body)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_time_limit_ends_everything_and_leaves_no_zombie(terminal: bool) -> None:
    """Process 1 here is `sleep`, which never waits for a child that it is given."""

    async def body(runner: Runner) -> None:
        main = await _container(runner, ["sleep", "1000"])
        script = "trap '' TERM; (sleep 1002 &) ; sh -c '(sleep 1003 &) ; sleep 1004' & echo up; sleep 1005"
        began = time.monotonic()
        run = await runner.execute(main, process(["sh", "-c", script], terminal=terminal), timeout_s=0.5)
        await run.client.read(b"up")
        record = await asyncio.wait_for(run.process.wait(), 30)
        assert time.monotonic() - began >= 0.5
        assert (record.exit_code, record.error) == (124, "timed out after 0.5 s")
        await eventually(lambda: not _leaves(runner))
        assert _children(main.process.pid) == []

    in_box(body)


def test_a_program_in_time_is_not_touched_by_its_limit() -> None:
    async def body(runner: Runner) -> None:
        main = await _container(runner, ["sleep", "1000"])
        for script, code in (("exit 7", 7), ("kill -9 $$", 137), ("echo $0 fine", 0)):
            run = await runner.execute(main, process(["sh", "-c", script]), timeout_s=20)
            output, status = await _end(runner, run)
            assert status == code
        assert output == b"sh fine\n"
        with pytest.raises(LaunchError) as caught:
            await runner.execute(main, process(["nope"]), timeout_s=20)
        assert caught.value.exit_code == 127
        assert _children(main.process.pid) == []

    in_box(body)


@pytest.mark.parametrize("terminal", [False, True])
def test_what_a_reaped_exec_leaves_lives_on_and_becomes_no_zombie(terminal: bool) -> None:
    """The exec is over with its program; its children the reaper has, not process 1, which never reaps."""

    async def body(runner: Runner) -> None:
        main = await _container(runner, ["sleep", "1000"])
        script = (
            "trap '' HUP; (sleep 1002 >/dev/null 2>&1 </dev/null &) ; sh -c 'true & true &'; echo up; exit 3"
        )
        run = await runner.execute(
            main,
            process(["sh", "-c", script], terminal=terminal),
            timeout_s=60,
        )
        output, status = await _end(runner, run)
        assert (output.strip(), status) == (b"up", 3)
        [leaf] = _leaves(runner)

        def left() -> set[str]:
            found = set()
            for pid in (leaf / "cgroup.procs").read_text().split():
                with suppress(OSError):  # it has ended since
                    found.add(Path(f"/proc/{pid}/comm").read_text().strip())
            return found

        await eventually(lambda: left() == {"sleep", "sampan-reaper"})  # the shells may still be ending
        assert _children(main.process.pid) == []
        for pid in (leaf / "cgroup.procs").read_text().split():
            if Path(f"/proc/{pid}/comm").read_text().strip() == "sleep":
                os.kill(int(pid), signal.SIGKILL)
        await eventually(lambda: not _leaves(runner))
        # Nor is the reaper left to the monitor as one.
        await eventually(lambda: [name for name, _ in _children(main.process.monitor_pid)] == ["sleep"])
        assert _children(main.process.pid) == []

    in_box(body)


@pytest.mark.parametrize("code", [0, 5])
def test_all_of_an_exec_that_ends_all_ends_with_its_program(code: int) -> None:
    async def body(runner: Runner) -> None:
        main = await _container(runner, ["sleep", "1000"])
        script = f"(sleep 1002 &) ; sh -c '(sleep 1003 &)'; true & echo up; exit {code}"
        run = await runner.execute(main, process(["sh", "-c", script]), timeout_s=60, ends_all=True)
        assert await _end(runner, run) == (b"up\n", code)
        assert _children(main.process.pid) == []
        assert not any((leaf / "cgroup.procs").read_text() for leaf in _leaves(runner))

    in_box(body)


def test_a_container_ends_with_reapers_of_its_execs() -> None:
    async def body(runner: Runner) -> None:
        main = await _container(runner, ["sleep", "1000"])
        for _ in range(3):
            run = await runner.execute(
                main,
                process(["sh", "-c", "sleep 1002 >/dev/null 2>&1 & exit 0"]),
                timeout_s=60,
            )
            assert await _end(runner, run) == (b"", 0)
        os.kill(main.process.pid, signal.SIGKILL)
        assert (await asyncio.wait_for(main.process.wait(), 10)).exit_code == 137

    in_box(body)


def test_the_reaper_cannot_be_written_to_from_inside() -> None:
    async def body(runner: Runner) -> None:
        main = await _container(runner, ["sleep", "1000"])
        script = "echo up; echo x 2>&1 >/proc/$PPID/exe; cat /proc/$PPID/comm"
        run = await runner.execute(main, process(["sh", "-c", script]), timeout_s=20)
        output, _ = await _end(runner, run)
        assert b"denied" in output or b"not permitted" in output or b"busy" in output
        with pytest.raises(PermissionError):
            os.write(sealed_steps_program(), b"x")

    in_box(body)


def test_an_exec_whose_program_never_comes_holds_nobody_up() -> None:
    async def body(runner: Runner) -> None:
        main = await _container(runner, ["sh", "-c", "while :; do echo tick; sleep 0.1; done"])
        rundir = runner.box.rundir()
        stuck = await main.process.begin_exec(ExecRequest("stuck", rundir), [sealed_steps_program()])
        await eventually(lambda: len(_leaves(runner)) == 1)
        assert (await _end(runner, await runner.execute(main, process(["echo", "hi"]))))[0] == b"hi\n"
        assert b"tick\ntick" in await main.client.read(b"tick\ntick")
        await stuck.drop()
        await eventually(lambda: not _leaves(runner))
        assert await _end(runner, await runner.execute(main, process(["true"]))) == (b"", 0)

    in_box(body)


def test_many_at_once() -> None:
    async def body(runner: Runner) -> None:
        main = await _container(runner, ["sleep", "1000"])

        async def one(number: int) -> tuple[bytes, int]:
            script = f"read x; echo $x {number}; exit {number}"
            run = await runner.execute(main, process(["sh", "-c", script]), stdin=True)
            run.client.mine.sendall(b"line\n")
            return await _end(runner, run)

        answers = await asyncio.gather(*(one(number) for number in range(40)))
        assert answers == [(f"line {number}\n".encode(), number) for number in range(40)]
        await eventually(lambda: not _leaves(runner))

    in_box(body)


def test_execs_cost_the_monitor_nothing_that_stays() -> None:
    async def body(runner: Runner) -> None:
        main = await _container(runner, ["sleep", "1000"])
        monitor = main.process.monitor_pid

        def anonymous_kb() -> int:
            for line in Path(f"/proc/{monitor}/smaps_rollup").read_text().splitlines():
                if line.startswith("Private_Dirty:"):
                    return int(line.split()[1])
            raise AssertionError

        async def some(count: int) -> None:
            for number in range(count):
                args = ["true"] if number % 3 else ["nope"]
                try:
                    await _end(runner, await runner.execute(main, process(args), stdin=number % 2 == 0))
                except LaunchError:
                    assert args == ["nope"]

        await some(60)
        await eventually(lambda: _children(monitor) == [("sleep", "S")])
        descriptors = sorted(os.listdir(f"/proc/{monitor}/fd"))
        before = anonymous_kb()
        await some(120)
        await eventually(lambda: _children(monitor) == [("sleep", "S")])
        await eventually(lambda: sorted(os.listdir(f"/proc/{monitor}/fd")) == descriptors)
        assert anonymous_kb() - before < 150

    in_box(body)


def test_execs_end_with_their_container() -> None:
    async def body(runner: Runner) -> None:
        main = await _container(runner, ["sleep", "1000"])
        run = await runner.execute(main, process(["sleep", "1001"]))
        main.process.signal(signal.SIGKILL)
        assert (await asyncio.wait_for(run.process.wait(), 5)).exit_code == 137
        await main.process.wait()
        with pytest.raises(Conflict, match="is not running"):
            await runner.execute(main, process(["true"]))
        await eventually(lambda: not alive(main.process.monitor_pid))

    in_box(body)


def test_a_container_sees_its_exec_at_the_root_of_the_cgroups() -> None:
    async def body(runner: Runner) -> None:
        main = await _container(runner, ["sleep", "1000"])
        output, _ = await _end(runner, await runner.execute(main, process(["cat", "/proc/self/cgroup"])))
        assert {line.rpartition(":")[2] for line in output.decode().splitlines()} == {"/"}

    in_box(body)
