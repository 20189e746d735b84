"""Containers through launcher, monitor and init: what runs, how it ends, what is said when it does not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import pytest

from sampan.errors import Conflict
from sampan.runtime import Attachment, ExitRecord, Launcher, LaunchError, LogSpec, Process, adopt
from support.bundles import Client, Runner, alive, eventually, in_box, process

pytestmark = pytest.mark.root


def test_output_and_exit_code() -> None:
    async def body(runner: Runner) -> None:
        output, record = await runner.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
        assert sorted(output.split()) == [b"err", b"out"]
        assert (record.exit_code, record.oom_killed, record.error) == (7, False, "")

    in_box(body)


def test_isolation_seen_from_inside() -> None:
    async def body(runner: Runner) -> None:
        script = "echo $$ $(cat /proc/sys/kernel/hostname) $(ls /sys/class/net); cat /proc/self/cgroup; ls /"
        output, _ = await runner.run(["sh", "-c", script])
        lines = output.decode().splitlines()
        assert lines[0] == "1 box lo"
        assert all(line.endswith(":/") for line in lines if line[0].isdigit() and ":" in line)
        assert "work" not in lines

    in_box(body)


def test_killed_by_a_signal() -> None:
    async def body(runner: Runner) -> None:
        runner.box.config(["sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"])
        run = await runner.launch()
        await run.client.read(b"up")
        run.process.signal(signal.SIGTERM)
        assert (await run.process.wait()).exit_code == 3
        with pytest.raises(ProcessLookupError):
            run.process.signal(signal.SIGKILL)
        await runner.remove(run)
        runner.box.config(["sleep", "60"])
        run = await runner.launch()
        run.process.signal(signal.SIGKILL)
        assert (await run.process.wait()).exit_code == 137

    in_box(body)


@pytest.mark.parametrize(
    ("program", "code", "text"),
    [
        ("nope", 127, 'exec: "nope": executable file not found in $PATH'),
        ("/nope", 127, 'exec: "/nope": stat /nope: no such file or directory'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
        ("/etc", 126, 'exec: "/etc": is a directory'),
        ("/bin/garbage", 126, "exec /bin/garbage: exec format error"),
    ],
)
def test_a_program_that_cannot_run(program: str, code: int, text: str) -> None:
    async def body(runner: Runner) -> None:
        garbage = runner.box.rootfs / "bin/garbage"
        garbage.write_bytes(b"\x01\x02garbage")
        garbage.chmod(0o755)
        with pytest.raises(LaunchError) as caught:
            await runner.run([program])
        assert caught.value.exit_code == code
        assert caught.value.status == 400
        assert caught.value.message.endswith(text)
        assert caught.value.message.startswith("failed to create task for container: ")

    in_box(body)


def test_a_mount_that_cannot_be_made() -> None:
    async def body(runner: Runner) -> None:
        mounts = [{"destination": "/x", "type": "bind", "source": "/not/there", "options": ["rbind"]}]
        with pytest.raises(LaunchError, match="bind /not/there to /x") as caught:
            await runner.run(["true"], changes={"mounts": mounts})
        assert (caught.value.exit_code, caught.value.status) == (125, 500)

    in_box(body)


def test_user_groups_umask_and_capabilities() -> None:
    async def body(runner: Runner) -> None:
        output, _ = await runner.run(
            ["sh", "-c", "id -u; id -G; umask; cat /proc/self/status; echo x > /dev/stdout"],
            user={"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o027},
            noNewPrivileges=True,
        )
        lines = output.decode().splitlines()
        assert lines[:3] == ["1000", "1001 5 6", "0027"]
        status = dict(line.split(":", 1) for line in lines if ":" in line)
        assert int(status["CapEff"], 16) == 0
        assert status["CapBnd"].strip() == "00000000a80425fb"
        assert status["NoNewPrivs"].strip() == "1"
        assert int(status["SigIgn"], 16) == 0 and int(status["SigBlk"], 16) == 0
        assert lines[-1] == "x"

    in_box(body)


def test_working_directory_is_made() -> None:
    async def body(runner: Runner) -> None:
        output, _ = await runner.run(["pwd"], cwd="/srv/new/place")
        assert output == b"/srv/new/place\n"

    in_box(body)


def test_readonly_root_and_tmpfs() -> None:
    async def body(runner: Runner) -> None:
        from support.bundles import MOUNTS

        tmpfs = {
            "destination": "/tmp",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["mode=1777", "size=1m"],
        }
        output, _ = await runner.run(
            ["sh", "-c", "touch /x; touch /tmp/x && echo fine; touch /proc/sys/kernel/x"],
            changes={"root": {"path": "rootfs", "readonly": True}, "mounts": [*MOUNTS, tmpfs]},
        )
        assert b"/x: Read-only file system" in output
        assert b"fine" in output

    in_box(body)


def test_terminal_resize_and_input() -> None:
    async def body(runner: Runner) -> None:
        runner.box.config(["sh", "-c", "tty; stty size; read line; stty size; echo got $line"], terminal=True)
        run = await runner.launch(stdin=True, size=(33, 111))
        seen = await run.client.read(b"33 111")
        assert b"/dev/console" in seen or b"/dev/pts/0" in seen
        await run.process.resize(44, 99)
        run.client.mine.setblocking(True)
        run.client.mine.sendall(b"hello\n")
        seen = await run.client.read()
        assert b"44 99" in seen and b"got hello" in seen
        assert (await run.process.wait()).exit_code == 0

    in_box(body)


def test_detach_keys_leave_it_running() -> None:
    async def body(runner: Runner) -> None:
        runner.box.config(["sh"], terminal=True)
        run = await runner.launch(stdin=True, detach_keys=b"\x10\x11")
        detached = asyncio.Event()
        run.process.on_detach = detached.set
        run.client.mine.sendall(b"echo a\x10b\n\x10")
        await run.client.read(b"# ")
        run.client.mine.setblocking(True)
        run.client.mine.sendall(b"\x11")
        await run.client.read()
        await asyncio.wait_for(detached.wait(), 5)
        assert not run.process.exited and alive(run.process.pid)

    in_box(body)


def test_stdin_half_close_reaches_the_process() -> None:
    async def body(runner: Runner) -> None:
        runner.box.config(["sh", "-c", "cat | wc -c; echo end"])
        run = await runner.launch(stdin=True, prefix=b"12345")
        run.client.mine.sendall(b"x" * 100_000)
        run.client.mine.shutdown(1)
        assert (await run.client.read()).split() == [b"100005", b"end"]
        assert (await run.process.wait()).exit_code == 0

    in_box(body)


def test_stdin_that_nobody_reads() -> None:
    async def body(runner: Runner) -> None:
        runner.box.config(["sh", "-c", "exec <&-; sleep 0.3; echo end; exit 6"])
        run = await runner.launch(stdin=True)
        run.client.mine.setblocking(True)
        run.client.mine.sendall(b"x" * 100_000)
        assert await run.client.read() == b"end\n"
        assert (await run.process.wait()).exit_code == 6

    in_box(body)


def test_stdin_stays_open_for_the_next_client() -> None:
    async def body(runner: Runner) -> None:
        runner.box.config(["cat"])
        run = await runner.launch(stdin=True, stdin_once=False)
        run.client.mine.sendall(b"one\n")
        assert await run.client.read(b"one\n") == b"one\n"
        run.client.mine.setblocking(True)
        run.client.mine.shutdown(1)
        assert await run.client.read() == b""
        second = Client()
        await run.process.attach(second.theirs.fileno(), Attachment(True, True, True, False))
        second.theirs.close()
        second.mine.sendall(b"two\n")
        assert await second.read(b"two\n") == b"two\n"
        second.close()
        assert not run.process.exited

    in_box(body)


@pytest.mark.parametrize("released", [True, False])
def test_a_stream_that_waits_for_the_log_before_it(tmp_path: Path, released: bool) -> None:
    """It begins where the log ended then, and ends with a gap for nobody: not if its giver has died."""

    async def body(runner: Runner) -> None:
        runner.box.config(["sh", "-c", "echo whole; printf begun; read x; echo; echo late"])
        run = await runner.launch(stdin=True, log=LogSpec(str(tmp_path / "log"), 0, 1))
        assert await run.client.read(b"begun") == b"whole\nbegun"
        second = Client()
        taking = Attachment(False, True, True, False)
        async with run.process.attach_behind_log(second.theirs.fileno(), taking) as held:
            second.theirs.close()
            assert held.place is not None and held.place.offset == (tmp_path / "log").stat().st_size
            run.client.mine.sendall(b"\n")
            assert await run.client.read() == b"\nlate\n"
            with pytest.raises(BlockingIOError):
                second.mine.recv(1, socket.MSG_DONTWAIT)
            assert (await run.process.wait()).exit_code == 0
            if released:
                held.release()
        assert await second.read() == (b"begun\nlate\n" if released else b"")
        second.close()

    in_box(body)


def test_framed_output() -> None:
    async def body(runner: Runner) -> None:
        runner.box.config(["sh", "-c", "echo out; sleep 0.1; echo err >&2"])
        run = await runner.launch(framed=True)
        assert await run.client.read() == (b"\x01\0\0\0\0\0\0\x04out\n" + b"\x02\0\0\0\0\0\0\x04err\n")

    in_box(body)


def test_exec() -> None:
    async def body(runner: Runner) -> None:
        runner.box.config(["sleep", "60"])
        main = await runner.launch()

        async def run(args: list[str], **changes: object) -> tuple[bytes, ExitRecord]:
            run = await runner.execute(main, process(args, **changes))
            output = await run.client.read()
            record = await run.process.wait()
            await runner.remove(run)
            return output, record

        output, record = await run(["sh", "-c", "cat /proc/self/cgroup; ps; cat /proc/1/comm; exit 4"])
        assert record.exit_code == 4
        assert b"sleep" in output and b"launcher" not in output and b"monitor" not in output
        assert all(line.endswith(b":/") for line in output.splitlines() if b"::" in line)
        with pytest.raises(LaunchError) as caught:
            await run(["nope"])
        assert caught.value.exit_code == 127
        assert caught.value.message == (
            "OCI runtime exec failed: exec failed: unable to start container process: "
            'exec: "nope": executable file not found in $PATH'
        )
        terminal = await runner.execute(
            main, process(["sh", "-c", "tty; stty size"], terminal=True), stdin=True, size=(20, 60)
        )
        seen = await terminal.client.read()
        assert b"/dev/pts/0" in seen and b"20 60" in seen
        await terminal.process.wait()
        assert not main.process.exited

    in_box(body)


def test_log_file(tmp_path: Path) -> None:
    async def body(runner: Runner) -> None:
        path = tmp_path / "x.log"
        runner.box.config(["sh", "-c", "echo one; printf two"])
        run = await runner.launch(log=LogSpec(str(path), 0, 1))
        await run.process.wait()
        records = [json.loads(line) for line in path.read_text().splitlines()]
        assert [record["log"] for record in records] == ["one\n", "two"]
        assert {record["stream"] for record in records} == {"stdout"}

    in_box(body)


def test_a_flood_is_bounded_on_disk_and_in_memory(tmp_path: Path) -> None:
    async def body(runner: Runner) -> None:
        path = tmp_path / "x.log"
        runner.box.config(
            ["sh", "-c", "dd if=/dev/zero bs=65536 count=800 2>/dev/null; yes | head -n 500000"]
        )
        run = await runner.launch(log=LogSpec(str(path), 4 << 20, 3))
        run.client.close()
        await asyncio.wait_for(run.process.wait(), 50)
        sizes = [file.stat().st_size for file in tmp_path.iterdir()]
        assert sorted(file.name for file in tmp_path.iterdir()) == ["x.log", "x.log.1", "x.log.2"]
        assert max(sizes) <= 4 << 20

    in_box(body)


def test_a_slow_client_holds_the_process_back_and_a_dead_one_does_not() -> None:
    async def body(runner: Runner) -> None:
        runner.box.config(["sh", "-c", "dd if=/dev/zero bs=65536 count=200 2>/dev/null; echo done"])
        run = await runner.launch()
        await asyncio.sleep(0.3)
        assert not run.process.exited
        assert len(await run.client.read()) == 200 * 65536 + 5
        await run.process.wait()
        await runner.remove(run)
        run = await runner.launch()
        await asyncio.sleep(0.1)
        run.client.close()
        assert (await asyncio.wait_for(run.process.wait(), 10)).exit_code == 0

    in_box(body)


def test_adoption_by_a_later_daemon() -> None:
    async def body(runner: Runner) -> None:
        runner.box.config(["sh", "-c", "read x; exit 9"])
        run = await runner.launch(stdin=True)
        pid = run.process.pid
        run.process.close()
        await runner.launcher.close()
        runner.launcher = Launcher()
        await asyncio.sleep(0.2)
        assert alive(pid)
        adopted = await adopt(run.rundir)
        assert isinstance(adopted, Process)
        assert (adopted.pid, adopted.id) == (pid, run.process.id)
        waiting = [asyncio.create_task(adopted.wait()) for _ in range(3)]
        run.client.mine.sendall(b"\n")
        assert {record.exit_code for record in await asyncio.gather(*waiting)} == {9}
        adopted.close()
        assert isinstance(await adopt(run.rundir), ExitRecord)
        with pytest.raises(Conflict):
            await adopted.resize(1, 1)

    in_box(body)


def test_exit_while_no_daemon_is_there() -> None:
    async def body(runner: Runner) -> None:
        runner.box.config(["sh", "-c", "sleep 0.2; exit 5"])
        run = await runner.launch()
        monitor = run.process.monitor_pid
        run.process.close()
        await eventually(lambda: not alive(monitor))
        found = await adopt(run.rundir)
        assert isinstance(found, ExitRecord) and found.exit_code == 5

    in_box(body)


def test_a_killed_monitor_takes_its_container_along() -> None:
    async def body(runner: Runner) -> None:
        runner.box.config(["sleep", "60"])
        run = await runner.launch()
        os.kill(run.process.monitor_pid, signal.SIGKILL)
        record = await asyncio.wait_for(run.process.wait(), 5)
        assert (record.exit_code, record.error) == (137, "the container's monitor was killed")
        await eventually(lambda: not alive(run.process.pid))
        assert isinstance(await adopt(run.rundir), ExitRecord)
        other = await runner.launch()
        rundir, pid, monitor = other.rundir, other.process.pid, other.process.monitor_pid
        other.process.close()
        os.kill(monitor, signal.SIGKILL)
        await eventually(lambda: not alive(pid))
        found = await adopt(rundir)
        assert isinstance(found, ExitRecord) and found.exit_code == 137
        assert await adopt(str(runner.box.path / "nothing")) is None

    in_box(body)


def test_a_killed_launcher_is_started_again() -> None:
    async def body(runner: Runner) -> None:
        await runner.run(["true"])
        assert runner.launcher._process is not None
        runner.launcher._process.kill()
        runner.launcher._process.wait()
        output, _ = await runner.run(["echo", "again"])
        assert output == b"again\n"

    in_box(body)


def test_hooks_run_with_the_state(tmp_path: Path) -> None:
    async def body(runner: Runner) -> None:
        def hook(name: str) -> list[dict[str, object]]:
            script = f"cat > {tmp_path}/{name}"
            return [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}]

        names = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
        inside = [{"path": "/bin/sh", "args": ["sh", "-c", "/bin/cat > /tmp/startContainer"]}]
        hooks = {**{name: hook(name) for name in names}, "startContainer": inside}
        await runner.run(["true"], changes={"hooks": hooks})
        for name in names:
            assert json.loads((tmp_path / name).read_text())["ociVersion"] == "1.2.0"
        assert json.loads((runner.box.rootfs / "tmp/startContainer").read_text())["id"]
        failing = {"createRuntime": [{"path": "/bin/false"}]}
        with pytest.raises(LaunchError, match="hook /bin/false: exit status 1"):
            await runner.run(["true"], changes={"hooks": failing})

    in_box(body)


def test_namespaces_by_path() -> None:
    async def body(runner: Runner) -> None:
        runner.box.config(["sleep", "60"])
        first = await runner.launch()
        pid = first.process.pid
        joined = [
            {"type": kind, "path": f"/proc/{pid}/ns/{file}"}
            for kind, file in (("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"))
        ]
        namespaces = [*joined, {"type": "mount"}, {"type": "cgroup"}]
        cgroup = runner.box.cgroup
        runner.box.cgroup += "-second"
        output, _ = await runner.run(
            ["ps"], changes={"linux": {"namespaces": namespaces, "cgroupsPath": runner.box.cgroup}}
        )
        runner.box.cgroup = cgroup
        assert b"sleep 60" in output
        runner.box.config(["true"])

    in_box(body)
