"""What a hostile image or process tries against the runtime, and what it finds."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path

import pytest

from sampan.linux import cgroups, syscalls
from sampan.linux.capabilities import mask
from sampan.linux.process import parent
from sampan.runtime import LaunchError, sealed_steps_program
from sampan.runtime.bundle import ProcessSpec
from sampan.runtime.init import Refused
from sampan.runtime.joining import begin_exec
from sampan.runtime.targets import Target
from sampan.runtime.told import BORN, GO, PROGRAM, SEARCHED, TERMINAL, TOLD
from support.bundles import CAPABILITIES, MOUNTS, Box, Runner, alive, eventually, in_box, process
from support.engine import SOURCE, TOKEN

pytestmark = pytest.mark.root
Message = tuple[bytes, list[tuple[int, int, bytes]]]

_SETS = ("bounding", "effective", "permitted")
ENVIRONMENT_MARK = "SAMPAN_TEST_SECRET_OF_THE_HOST"


def test_no_descriptor_environment_or_directory_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_MARK, "x")

    async def body(runner: Runner) -> None:
        # ls complains of the descriptor that it reads the directory from: not to be mixed with the rest.
        script = "ls -l /proc/self/fd 2>/dev/null; echo --; env; "
        script += "echo --; ls -l /proc/self/cwd /proc/self/root; ls /"
        output, _ = await runner.run(["sh", "-c", script])
        descriptors, environment, rest = output.decode().split("--\n")
        links = [line.split(" -> ")[1] for line in descriptors.splitlines() if " -> " in line]
        assert all(link in ("/dev/null", "/") or link.startswith(("pipe:", "/proc/")) for link in links)
        names = {line.partition("=")[0] for line in environment.splitlines()}
        assert names <= {"PATH", "HOME", "PWD", "SHLVL", "OLDPWD"}
        assert ENVIRONMENT_MARK not in output.decode()
        assert "work" not in rest.split()

    in_box(body)


def test_the_interpreter_cannot_be_overwritten(tmp_path: Path) -> None:
    """As in CVE-2019-5736: a program that links to /proc/self/exe, and a process that waits for our execs."""
    real = Path(os.path.realpath(sys.executable))
    before = hashlib.sha256(real.read_bytes()).digest()

    async def body(runner: Runner) -> None:
        (runner.box.rootfs / "bin/evil").symlink_to("/proc/self/exe")
        # Whatever runs here looks at every process that appears, and tries to write to its executable.
        watcher = (
            "echo up; while :; do for p in /proc/[0-9]*; do "
            "case $p in /proc/1) ;; *) { echo evil > $p/exe && echo WROTE $p; } 2>/dev/null;; esac; "
            "done; done"
        )
        runner.box.config(["sh", "-c", watcher], capabilities=None)
        main = await runner.launch()
        await main.client.read(b"up")
        for number in range(20):
            program = "/bin/evil" if number % 2 else "/bin/true"
            try:
                run = await runner.execute(main, process([program]))
            except LaunchError:
                continue
            await run.process.wait()
            await runner.remove(run)
        await asyncio.sleep(0.2)
        main.process.signal(9)
        assert b"WROTE" not in await main.client.read(timeout=60)

    in_box(body)
    assert hashlib.sha256(real.read_bytes()).digest() == before


def test_the_launcher_runs_sealed() -> None:
    async def body(runner: Runner) -> None:
        await runner.launcher.start()
        await runner.run(["true"])
        assert runner.launcher._process is not None
        pid = runner.launcher._process.pid
        with pytest.raises(OSError):
            os.open(f"/proc/{pid}/exe", os.O_WRONLY)
        libraries = [
            line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "libpython" in line
        ]
        assert not any(line.endswith(os.path.realpath(sys.executable)) for line in libraries)
        for name in os.listdir(f"/proc/{pid}/map_files"):
            path = f"/proc/{pid}/map_files/{name}"
            if "python3" in os.readlink(path).rpartition("/")[2]:
                with pytest.raises(OSError):
                    os.open(path, os.O_WRONLY)

    in_box(body)


def test_masked_and_readonly_paths_hold() -> None:
    async def body(runner: Runner) -> None:
        script = (
            "exec 2>&1; wc -c < /proc/keys; ls -A /proc/acpi /sys/firmware; "
            "echo 1 > /proc/sys/kernel/domainname; echo h > /proc/sysrq-trigger; "
            "chmod 0 /proc/keys; echo x > /proc/acpi/x; mount -t tmpfs x /proc/acpi"
        )
        output, _ = await runner.run(["sh", "-c", script])
        lines = output.decode().splitlines()
        if Path("/proc/keys").exists():
            assert lines[0] == "0"
        for path in ("/proc/sys/kernel/domainname", "/proc/sysrq-trigger"):
            if not Path(path).exists():
                continue
            assert any(path in line and "Read-only" in line for line in lines)
        assert any("/proc/keys" in line and "Read-only" in line for line in lines)
        assert stat.S_IMODE(os.stat("/dev/null").st_mode) == 0o666

    in_box(body)


def test_a_replaced_null_device_masks_nothing() -> None:
    """CVE-2025-31133: /dev/null of the image's own choice must not be what covers a masked path."""

    async def body(runner: Runner) -> None:
        mounts = [mount for mount in MOUNTS if mount["destination"] in ("/proc", "/sys")]
        target = runner.box.rootfs / "dev"
        target.mkdir()
        (target / "null").symlink_to("/proc/sys/kernel/core_pattern")
        with pytest.raises(LaunchError, match="/dev/null in the container is not the null device"):
            await runner.run(["true"], changes={"mounts": mounts})

    in_box(body)


@pytest.mark.parametrize("place", ["proc", "sys"])
def test_a_link_in_place_of_proc_or_sys_is_refused(place: str) -> None:
    async def body(runner: Runner) -> None:
        (runner.box.rootfs / "elsewhere").mkdir()
        (runner.box.rootfs / place).symlink_to("/elsewhere")
        with pytest.raises(LaunchError, match="must be an ordinary directory"):
            await runner.run(["true"])

    in_box(body)


def test_nothing_lies_over_proc_or_in_it(tmp_path: Path) -> None:
    """CVE-2019-16884: a VOLUME there hides what is masked, or feigns what attributes are written to."""
    (tmp_path / "file").touch()

    async def body(runner: Runner) -> None:
        (runner.box.rootfs / "p").symlink_to("/proc")

        async def mounted(place: str, source: Path, kind: str = "bind") -> bytes:
            options = ["rbind"] if kind == "bind" else []
            mount = {"destination": place, "type": kind, "source": str(source), "options": options}
            return (await runner.run(["cat", "/proc/1/comm"], changes={"mounts": [*MOUNTS, mount]}))[0]

        for place, kind in (("/proc", "bind"), ("/p", "bind"), ("/proc", "tmpfs")):
            with pytest.raises(LaunchError, match="over /proc because it is not of type proc"):
                await mounted(place, tmp_path, kind)
        with pytest.raises(LaunchError, match="not of type proc"):
            await mounted("/proc", Path("/proc/sys"))
        for place in ("/proc/sys", "/p/self", "/proc/1/attr", "/proc/sys/../tty"):
            with pytest.raises(LaunchError, match="its place is inside /proc"):
                await mounted(place, tmp_path)
        assert await mounted("/proc/uptime", tmp_path / "file") == b"cat\n"  # as lxcfs does
        assert await mounted("/proc", Path("/proc")) != b"cat\n"  # the host's

    in_box(body)


def test_links_in_the_image_stay_inside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()

    async def body(runner: Runner) -> None:
        (runner.box.rootfs / "dev").symlink_to("/etc")
        (runner.box.rootfs / "data").symlink_to(str(outside))
        (runner.box.rootfs / "up").symlink_to("../../../../../../.." + str(outside))
        (runner.box.rootfs / "loop").symlink_to("loop")
        source = tmp_path / "source"
        source.mkdir()
        (source / "file").write_text("bound")
        binds = [
            {"destination": f"/{name}/inner", "type": "bind", "source": str(source), "options": ["rbind"]}
            for name in ("data", "up")
        ]
        script = f"cat /data/inner/file; ls {outside}; ls -l /etc/null; cat /etc/passwd"
        output, _ = await runner.run(["sh", "-c", script], changes={"mounts": [*MOUNTS, *binds]})
        assert b"bound" in output and b"inner" in output and b"1,   3" in output
        assert list(outside.iterdir()) == []
        assert Path("/etc/passwd").exists() and not Path("/etc/null").exists()
        looping = [{"destination": "/loop/x", "type": "bind", "source": str(source), "options": ["rbind"]}]
        with pytest.raises(LaunchError):
            await runner.run(["true"], changes={"mounts": [*MOUNTS, *looping]})

    in_box(body)


@pytest.mark.parametrize("cwd", [f"/proc/self/fd/{number}" for number in range(3, 12)])
def test_a_working_directory_outside_is_refused(cwd: str) -> None:
    """CVE-2024-21626: a descriptor of the host's, entered as working directory."""

    async def body(runner: Runner) -> None:
        runner.box.config(["sleep", "60"])
        main = await runner.launch()
        with pytest.raises(LaunchError):
            await runner.execute(main, process(["pwd"], cwd=cwd))

    in_box(body)


def test_modules_in_the_image_are_never_imported() -> None:
    async def body(runner: Runner) -> None:
        library = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        for place in (f"usr/lib/{library}", f"root/lib/{library}", str(SOURCE).lstrip("/")):
            directory = runner.box.rootfs / place
            directory.mkdir(parents=True)
            for module in ("os", "errno", "struct", "traceback", "encodings", "sampan", "linecache"):
                (directory / f"{module}.py").write_text("open('/tmp/imported','w').close()")
        await runner.run(["true"], cwd=str(SOURCE))
        with pytest.raises(LaunchError):
            await runner.run(["nope"])
        assert not (runner.box.rootfs / "tmp/imported").exists()

    in_box(body)


def test_the_memory_copy_works_where_overlay_does_not() -> None:
    import subprocess

    from sampan.runtime import sealed

    for kind in ("overlay", "memory"):
        interpreter = sealed.interpreter(kind)
        try:
            code = "import json, os; os.open('/proc/self/exe', os.O_RDONLY); print(json.__name__)"
            done = subprocess.run(
                [interpreter.argv0, "-I", "-S", "-c", code],
                executable=interpreter.executable,
                pass_fds=interpreter.fds,
                env=interpreter.environment,
                capture_output=True,
                check=True,
            )
        finally:
            interpreter.close()
        assert done.stdout == b"json\n"


def test_nothing_is_left_of_a_failed_start() -> None:
    box = Box()
    before = Path("/proc/self/mountinfo").read_text()

    async def body(runner: Runner) -> None:
        for changes in (
            {"mounts": [{"destination": "/x", "type": "nosuchfs", "source": "x", "options": []}]},
            {"linux": {"sysctl": {"net.core.nothing": "1"}}},
            {"hooks": {"createContainer": [{"path": "/bin/false"}]}},
        ):
            with pytest.raises(LaunchError):
                await runner.run(["true"], changes=changes)
            assert not list(Path("/sys/fs/cgroup").glob(f"*{box.cgroup}"))

    in_box(body, box)
    assert Path("/proc/self/mountinfo").read_text() == before
    assert shutil.which("busybox")


def _strangers(space: str, mounts: str, allowed: int) -> list[str]:
    """Processes of a pid namespace that are in another mount namespace or have more rights."""
    found = []
    for process_id in os.listdir("/proc"):
        if not process_id.isdigit():
            continue
        try:
            if os.readlink(f"/proc/{process_id}/ns/pid") != space:
                continue
            status = Path(f"/proc/{process_id}/status").read_text()
            rights = int(status.split("CapPrm:", 1)[1].split()[0], 16)
            place = os.readlink(f"/proc/{process_id}/ns/mnt")
        except OSError:
            continue
        if place != mounts or rights & ~allowed:
            found.append(f"{process_id} {place} {rights:x}")
    return found


def test_an_exec_is_not_seen_by_tracers_before_it_gave_up_its_rights() -> None:
    """With CAP_SYS_PTRACE a container may seize what it sees, the program's reaper for one."""
    names = [*CAPABILITIES, "CAP_SYS_PTRACE"]
    sets = dict.fromkeys(_SETS, names)

    async def body(runner: Runner) -> None:
        runner.box.config(["sleep", "60"], capabilities=sets)
        main = await runner.launch()
        space, mounts = (os.readlink(f"/proc/{main.process.pid}/ns/{kind}") for kind in ("pid", "mnt"))
        seen: list[str] = []
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                seen.extend(_strangers(space, mounts, mask(names)))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            for number in range(30):
                terminal = number % 2 == 0
                run = await runner.execute(
                    main, process(["sh", "-c", "exit 3"], capabilities=sets, terminal=terminal)
                )
                assert (await run.process.wait()).exit_code == 3
                await runner.remove(run)
            assert not seen
            # What is looked for would be found.
            entered = ["nsenter", "--target", str(main.process.pid), "--pid", "sleep", "60"]
            with subprocess.Popen(entered) as stranger:
                await eventually(lambda: bool(seen))
                stranger.kill()
        finally:
            done.set()
            await asyncio.to_thread(watcher.join)

    in_box(body)


def test_an_exec_is_a_child_like_any_other_of_its_reaper() -> None:
    async def body(runner: Runner) -> None:
        names = [*CAPABILITIES, "CAP_SYS_PTRACE"]
        sets = dict.fromkeys(_SETS, names)
        runner.box.config(["sleep", "60"], capabilities=sets)
        main = await runner.launch()
        script = "cat /proc/$PPID/comm; cat /proc/self/cgroup; stty size; kill -TERM $$; sleep 9"
        run = await runner.execute(
            main, process(["sh", "-c", script], terminal=True), stdin=True, size=(12, 34)
        )
        lines = (await run.client.read()).decode().split()
        assert lines[0] == "sampan-reaper" and lines[-2:] == ["12", "34"]
        assert (await run.process.wait()).exit_code == 143
        with pytest.raises(LaunchError) as caught:
            await runner.execute(main, process(["nope"]))
        assert caught.value.exit_code == 127
        run = await runner.execute(main, process(["sleep", "60"]))
        assert parent(parent(run.process.pid)) == main.process.monitor_pid
        await run.process.kill(9)
        assert (await run.process.wait()).exit_code == 137

    in_box(body)


def test_who_kills_a_reaper_ends_its_exec_and_nothing_else() -> None:
    """The program dies with its parent; what has left it is in its cgroup."""

    async def body(runner: Runner) -> None:
        runner.box.config(["sleep", "60"])
        main = await runner.launch()
        run = await runner.execute(main, process(["sh", "-c", "(sleep 1002 &); echo up; sleep 1003; exit 3"]))
        await run.client.read(b"up")
        other = await runner.execute(main, process(["sleep", "60"]))
        reaper = parent(run.process.pid)
        killer = await runner.execute(
            main, process(["sh", "-c", "kill -9 $(pidof sampan-reaper | tr ' ' '\\n' | sort -n | head -n 1)"])
        )
        assert (await killer.process.wait()).exit_code == 0
        assert (await asyncio.wait_for(run.process.wait(), 10)).exit_code == 137
        assert not alive(reaper)
        await eventually(lambda: not alive(run.process.pid))  # its parent's end kills it
        assert alive(other.process.pid)
        assert (
            await asyncio.to_thread(subprocess.run, ["pgrep", "-f", "sleep 1002"], check=False)
        ).returncode

    in_box(body)


def test_a_report_that_is_taken_away_and_forged_holds_nobody_up() -> None:
    """As somebody in the container may who traces a reaper: to the monitor it is bytes like any others."""

    async def body(runner: Runner) -> None:
        runner.box.config(["sleep", "60"])
        main = await runner.launch()
        run = await runner.execute(main, process(["sleep", "1003"]))
        reaper = parent(run.process.pid)
        [number] = os.listdir(f"/proc/{reaper}/fd")  # it holds nothing else
        pidfd = os.pidfd_open(reaper)
        stolen = syscalls.syscall("pidfd_getfd", syscalls.SYS_PIDFD_GETFD, pidfd, int(number), 0)
        os.kill(reaper, signal.SIGKILL)  # its end of the report stays open
        assert (await asyncio.wait_for(run.process.wait(), 10)).exit_code == 137
        run = await runner.execute(main, process(["sleep", "1003"]))
        reaper = parent(run.process.pid)
        os.close(pidfd)
        pidfd = os.pidfd_open(reaper)
        [number] = os.listdir(f"/proc/{reaper}/fd")
        os.close(stolen)
        stolen = syscalls.syscall("pidfd_getfd", syscalls.SYS_PIDFD_GETFD, pidfd, int(number), 0)
        os.write(stolen, b"\xff" * 8)
        assert 0 <= (await asyncio.wait_for(run.process.wait(), 10)).exit_code <= 255
        os.close(stolen)
        os.close(pidfd)
        run = await runner.execute(main, process(["echo", "well"]))
        assert await run.client.read() == b"well\n"

    in_box(body)


def test_in_a_chroot_nothing_of_the_host_lies_below_the_root(tmp_path: Path) -> None:
    """pivot_root alone keeps what the chroot hides: an exec would land there, and chroot(2) climb there."""

    async def body(runner: Runner) -> None:
        runner.box.config(["sleep", "60"])
        main = await runner.launch()
        run = await runner.execute(main, process(["sh", "-c", "cat /proc/1/comm; ls /"]))
        assert (await run.client.read()).split()[:2] == [b"sleep", b"bin"]
        await run.process.wait()
        entered = ["nsenter", "--target", str(main.process.pid), "--mount", "/bin/ls", "/"]
        listed = await asyncio.to_thread(subprocess.run, entered, capture_output=True, text=True, check=True)
        assert listed.stdout.split() == ["bin", "dev", "etc", "proc", "root", "sys", "tmp"]

    child = os.fork()
    if child == 0:
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount(None, "/", None, syscalls.MS_PRIVATE | syscalls.MS_REC)
            (tmp_path / "root").mkdir()
            syscalls.mount("/", str(tmp_path / "root"), None, syscalls.MS_BIND | syscalls.MS_REC)
            os.chroot(tmp_path / "root")
            os.chdir("/")
            in_box(body)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_terminal_may_come_before_its_maker_has_told_of_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may let a process run on before the one that has made it writes a word."""
    monkeypatch.chdir("/")  # as who joins a mount namespace is
    where = Target([], f"/{TOKEN}-early", None)
    manager = cgroups.manager_for(where.cgroups_path)
    manager.create(None)
    newcomer = begin_exec(sealed_steps_program(), "early", os.getpid(), where, (0, 1, 2))
    real = newcomer.channel
    newcomer.channel, changed = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    newcomer.channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    messages: list[Message] = []
    try:
        if "" not in manager.paths():
            pytest.skip("no unified hierarchy: nobody is born into it")
        newcomer.go(ProcessSpec(["true"], "/", ["PATH=/usr/bin:/bin"], terminal=True), None)
        assert changed.recv(16) == GO
        real.send(GO)
        while (told := real.recvmsg(4096, 1024, socket.MSG_CMSG_CLOEXEC))[0]:
            messages.append(told[:2])
            if told[0] == TOLD.pack(PROGRAM, 0):
                break
        terminal = next(one for one in messages if one[0] == TOLD.pack(TERMINAL, 0))
        for data, ancillary in sorted(messages, key=lambda one: one is not terminal):
            changed.sendmsg([data], ancillary)
        while newcomer.program is None:
            newcomer.hear()
        assert newcomer.terminal is not None and os.isatty(newcomer.terminal)
    finally:
        for _, ancillary in messages:
            for kind, content in ((kind, content) for _, kind, content in ancillary):
                if kind == socket.SCM_RIGHTS:
                    os.close(struct.unpack("i", content)[0])
        newcomer.kill()
        newcomer.reap_makers()
        os.waitid(os.P_PID, newcomer.pid, os.WEXITED)
        os.close(newcomer.pidfd)
        assert newcomer.report is not None
        newcomer.report.close()
        newcomer.close()
        real.close()
        changed.close()
        manager.remove()


@pytest.mark.parametrize(
    ("forged", "answer"),
    [
        (TOLD.pack(BORN, 1), "well"),
        (TOLD.pack(PROGRAM, 0), "tampered"),
        (TOLD.pack(SEARCHED, 0), "not found in"),
        (TOLD.pack(0xFFFFFFFF, 7), "Success"),
        (b"x", "tampered"),
    ],
    ids=["birth", "program", "search", "nonsense", "short"],
)
def test_what_others_tell_of_an_exec_is_not_believed(forged: bytes, answer: str) -> None:
    """As a tracer in the container may who takes the channel of a reaper: no other process is followed."""
    program = sealed_steps_program()
    before = set(os.listdir("/proc/self/fd"))
    where = Target([], "", None)
    newcomer = begin_exec(program, "forged", os.getpid(), where, (0, 1, 2))
    waiting = newcomer.pid
    with open(os.pidfd_open(waiting), "rb", buffering=0) as pidfd:
        channel = _channel_of(waiting, pidfd.fileno())
    try:
        os.write(channel, forged)
        newcomer.go(ProcessSpec(["true"], "/", ["PATH=/usr/bin:/bin"]), None)
        os.close(channel)
        try:
            while not newcomer.hear():
                pass
            said = "well"
        except Refused as error:
            said = str(error)
    finally:
        newcomer.leave()
        newcomer.kill()
        newcomer.reap_makers()
        assert os.waitid(os.P_PID, newcomer.pid, os.WEXITED) is not None
        os.close(newcomer.pidfd)
        assert newcomer.report is not None
        newcomer.report.close()
        newcomer.close()
    assert answer in said
    assert newcomer.pid != 1
    assert set(os.listdir("/proc/self/fd")) == before


def _channel_of(pid: int, pidfd: int) -> int:
    """The process's end of its channel, taken from it: of its two sockets the first."""
    while True:  # what is closed by execve may be there a moment longer
        sockets = []
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                if os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
                    sockets.append(int(number))
        if len(sockets) == 2:
            return syscalls.syscall("pidfd_getfd", syscalls.SYS_PIDFD_GETFD, pidfd, min(sockets), 0)
