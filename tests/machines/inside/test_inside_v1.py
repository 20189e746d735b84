"""cgroup v1, with the unified hierarchy beside it and without."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from sampan.linux import cgroups
from support.engine import Daemon
from support.machine import eventually

ROOT = Path("/sys/fs/cgroup")
UNIFIED = ROOT / "unified/cgroup.procs"
Names = Callable[[], str]
MIB = 1 << 20
LAST_CPU = str(os.sysconf("SC_NPROCESSORS_ONLN") - 1)  # an emulated machine has one


def place(daemon: Daemon, container: str, controller: str) -> Path:
    for line in Path(f"/proc/{daemon.api.pid(container)}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return ROOT / controllers / path.lstrip("/")
    raise AssertionError(controller)


def test_info(daemon: Daemon) -> None:
    info = daemon.api.get("/info")
    assert info["CgroupVersion"] == "1"
    assert not [line for line in info["Warnings"] or () if "cgroup" in line or "limit capabilities" in line]
    apparmor = "name=apparmor" in info["SecurityOptions"]
    assert apparmor == Path("/sys/kernel/security/apparmor/profiles").exists()


def test_limits(daemon: Daemon, name: Names) -> None:
    one = name()
    disk = next(path for path in Path("/dev").iterdir() if re.fullmatch("[vsx]v?d[a-z]|nvme0n1", path.name))
    major, minor = os.major(disk.stat().st_rdev), os.minor(disk.stat().st_rdev)
    options = [
        *("--memory", "64m", "--memory-swap", "96m", "--memory-reservation", "32m", "--cpus", "0.5"),
        *("--cpu-shares", "512", "--cpuset-cpus", LAST_CPU, "--pids-limit", "30"),
        *("--memory-swappiness", "10", "--device-read-bps", f"{disk}:4mb"),
    ]
    daemon.docker("run", "-d", "--name", one, *options, daemon.busybox, "sleep", "600")
    for controller, file, value in (
        ("memory", "memory.limit_in_bytes", str(64 * MIB)),
        ("memory", "memory.memsw.limit_in_bytes", str(96 * MIB)),
        ("memory", "memory.soft_limit_in_bytes", str(32 * MIB)),
        ("memory", "memory.swappiness", "10"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpu", "cpu.shares", "512"),
        ("cpuset", "cpuset.cpus", LAST_CPU),
        ("pids", "pids.max", "30"),
        ("blkio", "blkio.throttle.read_bps_device", f"{major}:{minor} 4194304"),
    ):
        assert (place(daemon, one, controller) / file).read_text().strip() == value, file
    daemon.docker("pause", one)
    assert (place(daemon, one, "freezer") / "freezer.state").read_text() == "FROZEN\n"
    daemon.docker("unpause", one)
    shown = daemon.docker("exec", one, "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes").out
    assert shown == f"{64 * MIB}\n"
    own = str(place(daemon, one, "memory").relative_to(ROOT / "memory"))
    assert cgroups.manager_for(own).stats().memory_limit_bytes == 64 * MIB
    places = [place(daemon, one, controller) for controller in ("memory", "pids", "freezer", "cpuset")]
    daemon.docker("rm", "-f", one)
    eventually(lambda: not any(directory.exists() for directory in places))


def test_the_unified_hierarchy_is_used_where_there_is_one(daemon: Daemon, name: Names) -> None:
    one = name()
    daemon.docker("run", "-d", "--name", one, daemon.busybox, "sleep", "600")
    lines = Path(f"/proc/{daemon.api.pid(one)}/cgroup").read_text().splitlines()
    unified = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    if UNIFIED.exists():
        assert one and unified[0].endswith(daemon.api.inspect(one)["Id"])
    else:
        assert unified in ([], ["/"])
    daemon.docker("rm", "-f", one)


def test_out_of_memory_kills_and_is_told(daemon: Daemon, name: Names) -> None:
    one = name()
    eater = "x=$(head -c 60000000 /dev/zero | tr '\\0' x); echo ${#x}"
    options = ("--memory", "20m", "--memory-swap", "20m")
    done = daemon.docker("run", "--name", one, *options, daemon.busybox, "sh", "-c", eater, code=None)
    assert done.code == 137
    assert daemon.api.inspect(one)["State"]["OOMKilled"]


def test_devices_are_refused(daemon: Daemon) -> None:
    script = "mknod /kmsg c 1 11 && cat /kmsg; mknod /null2 c 1 3 && echo fine >/null2 && echo null-works"
    shown = daemon.docker("run", "--rm", daemon.busybox, "sh", "-c", script, code=None)
    assert shown.lines == ["null-works"]
    assert "Operation not permitted" in shown.err


def test_it_lives_through_a_daemon_that_dies(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    try:
        daemon.docker("run", "-d", "--name", "kept", "--memory", "64m", daemon.busybox, "sleep", "600")
        daemon.kill9()
        daemon.start()
        assert daemon.docker("exec", "kept", "echo", "alive").out == "alive\n"
        daemon.docker("stop", "-t", "0", "kept")
        eventually(lambda: not daemon.api.inspect("kept")["State"]["Running"])
    finally:
        daemon.end()
