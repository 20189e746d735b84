"""cgroup v2 with live controllers, none of them enabled before the daemon came (cgroup-v2.rst)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from sampan.linux import cgroups
from support.engine import Daemon
from support.entering import enter_cgroup, enter_root
from support.machine import eventually

Delegated = Callable[..., tuple[Daemon, Path]]
ROOT = Path("/sys/fs/cgroup")
Names = Callable[[], str]
MIB = 1 << 20
LAST_CPU = str(os.sysconf("SC_NPROCESSORS_ONLN") - 1)  # an emulated machine has one


@pytest.fixture
def run(daemon: Daemon, name: Names) -> Callable[..., str]:
    """Starts a container that stays, and gives its name."""

    def start(*options: str, command: tuple[str, ...] = ("sleep", "600")) -> str:
        one = name()
        daemon.docker("run", "-d", "--name", one, *options, daemon.busybox, *command)
        return one

    return start


def cgroup(daemon: Daemon, container: str) -> Path:
    """The directory of the cgroup that a container's first process is in."""
    (line,) = Path(f"/proc/{daemon.api.pid(container)}/cgroup").read_text().splitlines()
    return ROOT / line.removeprefix("0::/")


def manager(place: Path) -> cgroups.Manager:
    """Our own hand on a cgroup."""
    return cgroups.manager_for(f"/{place.relative_to(ROOT)}")


def one_of_each() -> list[str]:
    """Options that need every controller, for the disk that /tmp is on."""
    return [
        *("--memory", "64m", "--memory-swap", "96m", "--memory-reservation", "32m", "--cpus", "0.5"),
        *("--cpu-shares", "512", "--cpuset-cpus", LAST_CPU, "--pids-limit", "30"),
        *("--device-read-bps", "/dev/vda:4mb", "--device-write-iops", "/dev/vda:900"),
    ]


def test_info_has_no_warning(daemon: Daemon) -> None:
    info = daemon.api.get("/info")
    assert info["CgroupVersion"] == "2"
    assert info["Warnings"] in (None, [])
    assert info["Driver"] == "overlay2"


def test_every_limit_reaches_the_kernel(daemon: Daemon, run: Callable[..., str]) -> None:
    place = cgroup(daemon, run(*one_of_each()))
    found = {file: (place / file).read_text().strip() for file in ("memory.max", "memory.swap.max")}
    assert found == {"memory.max": str(64 * MIB), "memory.swap.max": str(32 * MIB)}
    assert (place / "memory.low").read_text().strip() == str(32 * MIB)
    assert (place / "cpu.max").read_text().split() == ["50000", "100000"]
    assert 50 <= int((place / "cpu.weight").read_text()) < 100
    assert (place / "cpuset.cpus").read_text().strip() == LAST_CPU
    assert (place / "pids.max").read_text().strip() == "30"
    device = "{}:{}".format(*(int(part) for part in _number_of("/dev/vda")))
    assert (place / "io.max").read_text().strip() == f"{device} rbps=4194304 wbps=max riops=max wiops=900"


def _number_of(path: str) -> tuple[int, int]:
    found = os.stat(path).st_rdev
    return os.major(found), os.minor(found)


def test_limits_of_a_running_container_can_change(daemon: Daemon, run: Callable[..., str]) -> None:
    one = run("--memory", "64m", "--memory-swap", "64m")
    place = cgroup(daemon, one)
    daemon.docker("update", "-m", "128m", "--memory-swap", "256m", "--pids-limit", "7", one)
    daemon.docker("update", "--cpu-quota", "30000", "--cpu-period", "100000", one)
    assert (place / "memory.max").read_text().strip() == str(128 * MIB)
    assert (place / "memory.swap.max").read_text().strip() == str(128 * MIB)
    assert (place / "pids.max").read_text().strip() == "7"
    assert (place / "cpu.max").read_text().split() == ["30000", "100000"]
    daemon.docker("update", "-m", "96m", one)  # the sum stays: more of it is swap
    assert (place / "memory.swap.max").read_text().strip() == str(160 * MIB)
    daemon.docker("update", "--cpu-quota", "-1", "--pids-limit", "-1", "--memory-swap", "-1", one)
    assert (place / "cpu.max").read_text().split() == ["max", "100000"]
    assert (place / "pids.max").read_text().strip() == "max"
    assert (place / "memory.swap.max").read_text().strip() == "max"


def test_stats_in_the_shape_for_v2(daemon: Daemon, run: Callable[..., str]) -> None:
    one = run(
        "--memory", "64m", command=("sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=9; sleep 600")
    )
    place = cgroup(daemon, one)
    eventually(lambda: Path(f"/proc/{daemon.api.pid(one)}/comm").read_text().strip() == "sleep")
    seen = daemon.api.get(f"/containers/{one}/stats?stream=0")
    memory = seen["memory_stats"]
    assert memory["limit"] == 64 * MIB and "max_usage" not in memory
    assert abs(memory["usage"] - int((place / "memory.current").read_text())) < MIB
    rows = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
    assert memory["stats"]["shmem"] == int(rows["shmem"]) == 9 * MIB
    assert memory["stats"].keys() <= rows.keys() and "total_inactive_file" not in memory["stats"]
    assert seen["pids_stats"] == {"current": 1, "limit": 2**64 - 1}
    usage = dict(line.split() for line in (place / "cpu.stat").read_text().splitlines())
    told = seen["cpu_stats"]["cpu_usage"]
    assert 0 < told["total_usage"] <= int(usage["usage_usec"]) * 1000
    assert "percpu_usage" not in told
    assert seen["blkio_stats"]["io_serviced_recursive"] is None


def test_out_of_memory_kills_and_is_told(daemon: Daemon, name: Names) -> None:
    one = name()
    eater = ("dd", "if=/dev/zero", "of=/dev/null", "bs=60M", "count=1")  # its buffer
    limits = ("--memory", "20m", "--memory-swap", "20m")
    done = daemon.docker("run", "--name", one, *limits, daemon.busybox, *eater, code=None)
    assert done.code == 137
    assert daemon.api.inspect(one)["State"]["OOMKilled"]


def test_too_many_processes_are_refused(daemon: Daemon) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done 2>&1; wait"
    shown = daemon.docker("run", "--rm", "--pids-limit", "4", daemon.busybox, "sh", "-c", script, code=None)
    assert "can't fork" in shown.out + shown.err


def test_the_processor_is_throttled(daemon: Daemon, run: Callable[..., str]) -> None:
    one = run("--cpus", "0.1", command=("sh", "-c", "while :; do :; done"))
    place = cgroup(daemon, one)

    def throttled() -> int:
        table = dict(line.split() for line in (place / "cpu.stat").read_text().splitlines())
        return int(table["nr_throttled"])

    eventually(lambda: throttled() > 3, timeout=30)
    assert manager(place).stats().throttled_periods > 3


def test_devices_are_filtered_by_a_program(daemon: Daemon) -> None:
    script = (
        "mknod /d b $0 $1 && cat /d >/dev/null; mknod /kmsg c 1 11 && cat /kmsg;"
        "mknod /null2 c 1 3 && echo fine >/null2 && echo null-works"
    )
    major, minor = _number_of("/dev/vda")
    numbers = [str(major), str(minor)]
    shown = daemon.docker("run", "--rm", daemon.busybox, "sh", "-c", script, *numbers, code=None)
    assert shown.lines == ["null-works"]
    assert shown.err.count("Operation not permitted") == 2, shown.err
    read = ["head", "-c", "4", "/dev/vda"]
    denied = daemon.docker("run", "--rm", "--device", "/dev/vda:/dev/vda:w", daemon.busybox, *read, code=None)
    assert "not permitted" in denied.err
    assert (
        len(daemon.docker("run", "--rm", "--device", "/dev/vda:/dev/vda:r", daemon.busybox, *read).raw) == 4
    )
    assert len(daemon.docker("run", "--rm", "--privileged", daemon.busybox, *read).raw) == 4


def test_pause_freezes(daemon: Daemon, run: Callable[..., str]) -> None:
    one = run(command=("sh", "-c", "while :; do :; done"))
    place = cgroup(daemon, one)
    daemon.docker("pause", one)
    assert "frozen 1" in (place / "cgroup.events").read_text()
    used = (place / "cpu.stat").read_text().splitlines()[0]
    time.sleep(0.5)
    assert (place / "cpu.stat").read_text().splitlines()[0] == used
    daemon.docker("unpause", one)
    assert "frozen 0" in (place / "cgroup.events").read_text()
    daemon.docker("pause", one)
    daemon.docker("rm", "-f", one)
    eventually(lambda: not place.exists())


def test_a_container_sees_its_own_cgroup_as_the_root(daemon: Daemon, run: Callable[..., str]) -> None:
    one = run("--memory", "77m")
    shown = daemon.docker("exec", one, "cat", "/proc/self/cgroup", "/sys/fs/cgroup/memory.max").lines
    assert shown == ["0::/", str(77 * MIB)]
    refused = daemon.docker("exec", one, "mkdir", "/sys/fs/cgroup/x", code=1)
    assert "Read-only file system" in refused.err
    host = daemon.docker("run", "--rm", "--cgroupns", "host", daemon.busybox, "cat", "/proc/self/cgroup").out
    assert host.startswith("0::/sampan-test-")


def test_stats_are_the_kernels(daemon: Daemon, run: Callable[..., str]) -> None:
    script = "dd if=/dev/zero of=/f bs=1M count=8; sync; sleep 600; :"
    place = cgroup(daemon, run("--memory", "200m", command=("sh", "-c", script)))
    written = partial(_written, manager(place))
    eventually(lambda: written() >= 8 * MIB, timeout=60)
    stats = manager(place).stats()
    assert stats.memory_limit_bytes == 200 * MIB
    assert abs(stats.memory_usage_bytes - int((place / "memory.current").read_text())) < 4 * MIB
    assert stats.memory["file"] >= 7 * MIB  # counted in batches by each processor
    assert stats.pids_current == int((place / "pids.current").read_text())
    assert stats.cpu_total_ns > 0


def _written(manager: cgroups.Manager) -> int:
    return sum(entry.value for entry in manager.stats().blkio_bytes if entry.operation == "Write")


def test_exec_where_the_container_made_cgroups_of_its_own(daemon: Daemon, run: Callable[..., str]) -> None:
    """As systemd or an engine inside does: its cgroup may then not hold processes itself."""
    script = (
        "cd /sys/fs/cgroup && mkdir inner leaf && echo 1 >inner/cgroup.procs && "
        "echo +memory +pids >cgroup.subtree_control && echo ready && sleep 600; :"
    )
    one = run("--privileged", "--pids-limit", "50", command=("sh", "-c", script))
    eventually(lambda: daemon.docker("logs", one).out == "ready\n")
    own = cgroup(daemon, one).parent
    # An exec's cgroup holds processes and nothing else, and is the root to it.
    assert daemon.docker("exec", one, "cat", "/proc/self/cgroup").out == "0::/\n"
    daemon.docker("exec", "-d", one, "sh", "-c", "echo 0 >/sys/fs/cgroup/leaf/cgroup.procs; sleep 600; :")
    eventually(lambda: (own / "leaf/cgroup.procs").read_text())
    daemon.docker("pause", one)
    daemon.docker("unpause", one)
    # Two shells, two programs of theirs and the exec's reaper.
    assert manager(own).stats().pids_current == len(manager(own).pids()) == 5
    daemon.docker("rm", "-f", one)
    eventually(lambda: not own.exists())


def test_a_daemon_in_a_cgroup_of_its_own(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """As a systemd service is; no process of a container's stays in it, and it can be restarted alone."""
    service = ROOT / "system.slice/sampan.service"
    service.mkdir(parents=True)
    daemon = make_daemon()
    daemon.before = partial(enter_cgroup, service)
    daemon.start()
    try:
        daemon.docker("run", "-d", "--name", "kept", *one_of_each(), daemon.busybox, "sleep", "600")
        place = cgroup(daemon, "kept")
        assert (place / "memory.max").read_text().strip() == str(64 * MIB)
        assert not place.is_relative_to(service)
        daemon.kill9()
        daemon.start()
        assert daemon.api.inspect("kept")["State"]["Running"]
        daemon.docker("exec", "kept", "true")
    finally:
        daemon.end()
    eventually(lambda: not (service / "cgroup.procs").read_text())
    service.rmdir()
    service.parent.rmdir()


@pytest.fixture
def delegated(make_daemon: Callable[..., Daemon]) -> Iterator[Delegated]:
    """Starts a daemon whose root of cgroups is one of ours, and holds its processes, as in a container."""
    outer = ROOT / "outer"
    inner = outer / "inner"
    inner.mkdir(parents=True)
    daemon = make_daemon()

    def start(controllers: str, hidden: str | None = None) -> tuple[Daemon, Path]:
        (ROOT / "cgroup.subtree_control").write_text(controllers)
        (outer / "cgroup.subtree_control").write_text(controllers)

        daemon.before = partial(enter_root, inner, hidden)
        return daemon.start(), inner

    yield start
    daemon.end()
    eventually(lambda: "populated 0" in (outer / "cgroup.events").read_text())
    for directory, _, _ in os.walk(outer, topdown=False):
        os.rmdir(directory)


def test_a_daemon_below_a_cgroup_namespace(delegated: Delegated) -> None:
    daemon, inner = delegated("+cpu +cpuset +io +memory +pids")
    daemon.docker("run", "-d", "--name", "kept", *one_of_each(), daemon.busybox, "sleep", "600")
    place = cgroup(daemon, "kept")
    assert place.is_relative_to(inner)
    assert (place / "pids.max").read_text().strip() == "30"
    assert daemon.docker("exec", "kept", "cat", "/sys/fs/cgroup/pids.max").out == "30\n"


def test_what_is_not_there_is_a_warning_each(no_veth: None, delegated: Delegated) -> None:
    """The limit is discarded in Docker's words, there is no profile, and the container runs."""
    daemon, _ = delegated("+memory +pids", "/sbin")
    order = ("veth", "AppArmor")
    *lacks, veth, apparmor = sorted(
        daemon.api.get("/info")["Warnings"],
        key=lambda line: next((number for number, word in enumerate(order, 1) if word in line), 0),
    )
    assert sorted(lacks) == [
        "WARNING: No blkio throttle support",
        "WARNING: No cpu cfs quota support",
        "WARNING: No cpu shares support",
        "WARNING: No cpuset support",
    ]
    assert "no veth pairs" in veth
    assert "containers run without a profile" in apparmor and "install the package apparmor" in apparmor
    assert "name=apparmor" not in daemon.api.get("/info")["SecurityOptions"]
    options = ("--rm", "--network", "none", "--cpu-shares", "100", "--memory", "32m", daemon.busybox)
    done = daemon.docker("run", *options, "cat", "/proc/self/attr/apparmor/current")
    assert done.err.count("WARNING") == 1 and "CPU shares" in done.err
    assert done.out.strip("\0\n") == "unconfined"


def test_out_of_memory_is_told_at_once(daemon: Daemon, run: Callable[..., str]) -> None:
    one = run("-m", "16m", "--memory-swap", "16m")
    begun = time.time()
    daemon.docker("exec", one, "sh", "-c", "x=x; while :; do x=$x$x; done", code=None)
    eventually(lambda: daemon.api.inspect(one)["State"]["OOMKilled"], timeout=60)
    assert daemon.api.inspect(one)["State"]["Running"]
    events = daemon.docker(
        *("events", "--since", f"{begun:.3f}", "--until", f"{time.time():.3f}", "-f", f"container={one}"),
        *("-f", "event=oom", "--format", "{{.Action}}"),
    )
    assert events.lines == ["oom"]


def test_a_late_probe_leaves_nothing(daemon: Daemon, run: Callable[..., str]) -> None:
    """Process 1 reaps nobody."""
    one = run(
        *("--health-interval", "1s", "--health-timeout", "2s", "--health-retries", "1"),
        *("--health-cmd", "(sleep 1001 & sleep 1002 &) ; sleep 1003"),
    )
    eventually(lambda: daemon.api.inspect(one)["State"]["Health"]["Status"] == "unhealthy", timeout=120)
    assert "exceeded timeout (2s)" in daemon.api.inspect(one)["State"]["Health"]["Log"][0]["Output"]
    place = cgroup(daemon, one)
    daemon.docker("pause", one)
    eventually(lambda: len(manager(place).pids()) == 1, timeout=60)
    assert [path for path in place.iterdir() if path.is_dir()] in ([], [place / "exec"])
    daemon.docker("unpause", one)
