"""Bundles with a real busybox root file system, and runs of them through the runtime itself, no daemon."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from sampan.runtime import (
    Attachment,
    ExecRequest,
    ExitRecord,
    Launcher,
    LaunchRequest,
    LogSpec,
    Process,
    remove_run,
    sealed_steps_program,
)

APPLETS = (
    "sh true false cat ls echo sleep env id mount ps yes head stty tty kill touch wc printf dd pwd".split()
)
CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
    "CAP_AUDIT_WRITE",
]  # fmt: skip
MOUNTS: list[dict[str, Any]] = [
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {
        "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts", "type": "devpts", "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {
        "destination": "/sys", "type": "sysfs", "source": "sysfs",
        "options": ["nosuid", "noexec", "nodev", "ro"],
    },
    {
        "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["ro", "nosuid", "noexec", "nodev"],
    },
    {
        "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
        "options": ["nosuid", "noexec", "nodev"],
    },
    {
        "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"],
    },
]  # fmt: skip
MASKED = [
    "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/nothing-here", "/sys/firmware",
]  # fmt: skip
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def process(args: list[str], **changes: Any) -> dict[str, Any]:
    """An OCI `process` object as Docker would make it; keywords replace members."""
    return {
        "terminal": False,
        "args": args,
        "cwd": "/",
        "env": ["PATH=/bin:/usr/bin", "HOME=/root"],
        "user": {"uid": 0, "gid": 0},
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
        "oomScoreAdj": 0,
        **changes,
    }


class Box:
    """A temporary directory with a bundle; `close` fails the test if something of the runs stayed."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=f"sampan-test-{os.getpid()}-"))
        self.rootfs = self.path / "rootfs"
        self.cgroup = f"/sampan-test/{self.path.name}"
        self.count = 0
        for directory in ("bin", "etc", "tmp", "root"):
            (self.rootfs / directory).mkdir(parents=True)
        shutil.copy("/bin/busybox", self.rootfs / "bin/busybox")
        for applet in APPLETS:
            (self.rootfs / "bin" / applet).symlink_to("busybox")
        (self.rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")

    def config(self, args: list[str], changes: dict[str, Any] | None = None, **process_changes: Any) -> Path:
        """Write config.json; `changes` are merged into it and into its `linux`."""
        value: dict[str, Any] = {
            "ociVersion": "1.2.0",
            "process": process(args, **process_changes),
            "root": {"path": "rootfs"},
            "hostname": "box",
            "mounts": list(MOUNTS),
            "linux": {
                "cgroupsPath": self.cgroup,
                "resources": {"pids": {"limit": 100}},
                "namespaces": [
                    {"type": kind} for kind in ("mount", "pid", "ipc", "uts", "network", "cgroup")
                ],
                "maskedPaths": MASKED,
                "readonlyPaths": READONLY,
            },
        }
        for name, item in (changes or {}).items():
            if name == "linux":
                value["linux"].update(item)
            else:
                value[name] = item
        path = self.path / "config.json"
        path.write_text(json.dumps(value))
        return path

    def rundir(self) -> str:
        """A new run's directory."""
        self.count += 1
        path = self.path / f"run{self.count}"
        path.mkdir()
        return str(path)

    def close(self) -> None:
        """Remove all of it."""
        mounts = Path("/proc/self/mountinfo").read_text()
        shutil.rmtree(self.path)
        assert str(self.path) not in mounts
        left = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*{self.cgroup}")]
        for parent in Path("/sys/fs/cgroup").glob("*/sampan-test"):
            try:
                parent.rmdir()
            except OSError:
                pass  # another test's is in it
        assert left == []


class Client:
    """One attached client, as a daemon would hand it over."""

    def __init__(self) -> None:
        self.mine, self.theirs = socket.socketpair()

    async def read(self, until: bytes | None = None, timeout: float = 10) -> bytes:
        """All output until the end, or until some bytes came."""
        loop = asyncio.get_running_loop()
        self.mine.setblocking(False)
        data = b""
        async with asyncio.timeout(timeout):
            while until is None or until not in data:
                try:
                    piece = await loop.sock_recv(self.mine, 65536)
                except ConnectionResetError:
                    break
                if not piece:
                    break
                data += piece
        return data

    def close(self) -> None:
        self.mine.close()
        self.theirs.close()


class Run:
    """One launched process and the client that was attached from the start."""

    def __init__(self, process: Process, client: Client, rundir: str) -> None:
        self.process = process
        self.client = client
        self.rundir = rundir


class Runner:
    """A launcher with a box, inside one event loop."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.launcher = Launcher()
        self.runs: list[Run] = []

    async def launch(
        self,
        *,
        stdin: bool = False,
        framed: bool = False,
        stdin_once: bool = True,
        log: LogSpec | None = None,
        detach_keys: bytes = b"",
        size: tuple[int, int] | None = None,
        prefix: bytes = b"",
    ) -> Run:
        rundir = self.box.rundir()
        client = Client()
        request = LaunchRequest(
            f"id{self.box.count}", str(self.box.path), rundir, open_stdin=stdin, stdin_once=stdin_once,
            log=log, terminal_size=size,
            attachments=(Attachment(stdin, True, True, framed, detach_keys, prefix),),
        )  # fmt: skip
        return await self._started(self.launcher.launch(request, [client.theirs.fileno()]), client, rundir)

    async def execute(
        self,
        main: Run,
        process_object: dict[str, Any],
        *,
        stdin: bool = False,
        size: tuple[int, int] | None = None,
        timeout_s: float = 0,
        ends_all: bool = False,
    ) -> Run:
        """One more process in a container that runs."""
        rundir = self.box.rundir()
        client = Client()
        request = ExecRequest(
            f"id{self.box.count}", rundir, open_stdin=stdin, terminal=bool(process_object.get("terminal")),
            terminal_size=size, timeout_s=timeout_s, ends_all=ends_all,
        )  # fmt: skip

        async def begin() -> Process:
            beginning = await main.process.begin_exec(request, [sealed_steps_program()])
            Path(rundir, "exec.json").write_text(json.dumps({"process": process_object}))
            return await beginning.go([Attachment(stdin, True, True, False)], [client.theirs.fileno()])

        return await self._started(begin(), client, rundir)

    async def _started(self, launching: Coroutine[Any, Any, Process], client: Client, rundir: str) -> Run:
        try:
            started = await launching
        except BaseException:
            client.close()
            remove_run(rundir, None)
            raise
        client.theirs.close()
        run = Run(started, client, rundir)
        self.runs.append(run)
        return run

    async def run(self, args: list[str], **changes: Any) -> tuple[bytes, ExitRecord]:
        """Run a container to its end: its output and how it ended."""
        config_changes = changes.pop("changes", None)
        self.box.config(args, config_changes, **changes)
        run = await self.launch()
        output = await run.client.read()
        record = await asyncio.wait_for(run.process.wait(), 10)
        await self.remove(run)
        return output, record

    async def remove(self, run: Run) -> None:
        self.runs.remove(run)
        run.process.close()
        run.client.close()
        container = not Path(run.rundir, "exec.json").exists()
        await asyncio.to_thread(remove_run, run.rundir, self.box.cgroup if container else None)

    async def close(self) -> None:
        for run in list(self.runs):
            await self.remove(run)
        await self.launcher.close()


def in_box(body: Callable[[Runner], Coroutine[Any, Any, None]], box: Box | None = None) -> None:
    """Run a test's coroutine with a fresh box, and clean up."""
    box = box or Box()

    async def main() -> None:
        runner = Runner(box)
        try:
            async with asyncio.timeout(60):
                await body(runner)
        finally:
            await runner.close()

    try:
        asyncio.run(main())
    finally:
        box.close()


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def eventually(condition: Callable[[], bool], timeout: float = 5) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.02)


__all__ = ["Box", "Client", "Run", "Runner", "alive", "eventually", "in_box", "process"]
