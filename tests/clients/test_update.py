"""`update`: the kernel's limits change, contradictions are refused, and nothing is half done."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from support import needs
from support.cli import Cli
from support.engine import Daemon, Engine
from support.machine import cgroup_file, eventually, on_v2

Names = Callable[[], str]
MIB = 1024 * 1024


@pytest.fixture
def start(engine: Engine, busybox: str, name: Names) -> Callable[..., str]:
    """Starts a sleeping container with options; its name."""

    def run(*options: str, script: str = "exec sleep 600") -> str:
        one = name()
        engine.docker("run", "-d", "--name", one, *options, busybox, "sh", "-c", script)
        return one

    return run


def memory(pid: int) -> int:
    return int(cgroup_file(pid, "memory", "memory.limit_in_bytes", "memory.max"))


def with_swap(pid: int) -> str:
    """The limit of memory and swap together, as v1 counts; "max" for none."""
    if not on_v2(pid, "memory"):
        value = int(cgroup_file(pid, "memory", "memory.memsw.limit_in_bytes", ""))
        return "max" if value > 1 << 60 else str(value)
    value = cgroup_file(pid, "memory", "", "memory.swap.max")
    return value if value == "max" else str(int(value) + memory(pid))


@needs.controller("memory")
def test_memory_with_swap_both_ways(cli: Cli, engine: Engine, start: Callable[..., str]) -> None:
    """Whichever of the two has to be written first."""
    one = start("--memory", "64m")
    pid = engine.api.pid(one)
    assert memory(pid) == 64 * MIB
    for limit, swap in ((200, 400), (40, 50), (50, 300), (60, 60), (32, 64)):
        assert cli("update", "-m", f"{limit}m", "--memory-swap", f"{swap}m", one).out.strip() == one
        assert memory(pid) == limit * MIB
        if _counts_swap(engine):
            assert with_swap(pid) == str(swap * MIB)
        shown = engine.api.inspect(one)["HostConfig"]
        assert shown["Memory"] == limit * MIB
    cli("update", "--memory-swap", "-1", one)
    assert memory(pid) == 32 * MIB
    if _counts_swap(engine):
        assert with_swap(pid) == "max"
    cli("update", "--memory", "128m", "--memory-swap", "-1", one)
    assert memory(pid) == 128 * MIB


def _counts_swap(engine: Engine) -> bool:
    return bool(engine.api.get("/info")["SwapLimit"])


@needs.controller("memory")
def test_memory_above_swap_is_a_conflict(cli: Cli, engine: Engine, start: Callable[..., str]) -> None:
    one = start("--memory", "64m", "--memory-swap", "100m")
    said = cli("update", "--memory", "200m", one, code=1).err
    assert "Memory limit should be smaller than already set memoryswap limit" in said
    assert memory(engine.api.pid(one)) == 64 * MIB
    assert engine.api.inspect(one)["HostConfig"]["Memory"] == 64 * MIB
    refused = engine.api("POST", f"/containers/{one}/update", {"Memory": 200 * MIB})
    assert refused.status == 409


@needs.controller("cpu")
def test_processor(cli: Cli, engine: Engine, start: Callable[..., str]) -> None:
    one = start()
    pid = engine.api.pid(one)

    def limits() -> tuple[str, str]:
        if on_v2(pid, "cpu"):
            quota, period = cgroup_file(pid, "cpu", "", "cpu.max").split()
            return quota, period
        quota = cgroup_file(pid, "cpu", "cpu.cfs_quota_us", "")
        return "max" if quota == "-1" else quota, cgroup_file(pid, "cpu", "cpu.cfs_period_us", "")

    cli("update", "--cpu-quota", "20000", "--cpu-period", "50000", one)
    assert limits() == ("20000", "50000")
    cli("update", "--cpu-period", "40000", one)  # the quota stays
    assert limits() == ("20000", "40000")
    cli("update", "--cpu-quota", "-1", one)
    assert limits()[0] == "max"
    cli("update", "--cpu-shares", "512", one)
    shares = cgroup_file(pid, "cpu", "cpu.shares", "cpu.weight")
    assert shares in ("512", "59", "20")  # v1; v2 by either formula
    said = cli("update", "--cpus", "0.5", one, code=1).err
    assert "Nano CPUs cannot be updated as CPU Period has already been set" in said
    other = start("--cpus", "0.5")
    cli("update", "--cpus", "1.5", other)
    pid = engine.api.pid(other)
    assert limits() == ("150000", "100000")
    assert engine.api.inspect(other)["HostConfig"]["NanoCpus"] == 1_500_000_000
    said = cli("update", "--cpu-quota", "20000", other, code=1).err
    assert "CPU Quota cannot be updated as NanoCPUs has already been set" in said


@needs.controller("cpuset")
def test_cpuset(cli: Cli, engine: Engine, start: Callable[..., str]) -> None:
    one = start()
    cli("update", "--cpuset-cpus", "0", one)
    assert cgroup_file(engine.api.pid(one), "cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
    assert "Requested CPUs are not available" in cli("update", "--cpuset-cpus", "999", one, code=1).err


@needs.controller("pids")
def test_pids_limit(cli: Cli, engine: Engine, start: Callable[..., str]) -> None:
    one = start("--pids-limit", "17")
    pid = engine.api.pid(one)
    cli("update", "--pids-limit", "23", one)
    assert cgroup_file(pid, "pids", "pids.max", "pids.max") == "23"
    cli("update", "--memory-reservation", "10m", one)
    assert cgroup_file(pid, "pids", "pids.max", "pids.max") == "23"
    cli("update", "--pids-limit", "-1", one)
    assert cgroup_file(pid, "pids", "pids.max", "pids.max") == "max"


@needs.controller("pids")
@needs.controller("memory")
def test_nothing_is_half_changed(engine: Engine, start: Callable[..., str]) -> None:
    """The kernel takes the first limits and refuses one: 20 MB that cannot be given back."""
    script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null; exec sleep 600"
    one = start("--memory", "64m", "--memory-swap", "64m", "--pids-limit", "17", script=script)
    pid = engine.api.pid(one)
    if on_v2(pid, "memory"):
        pytest.skip("needs cgroup v1: v2 takes any memory limit and kills")
    eventually(lambda: int(cgroup_file(pid, "memory", "memory.usage_in_bytes", "")) > 20 * MIB)
    before = engine.api.inspect(one)["HostConfig"]
    body: dict[str, Any] = {"Memory": 8 * MIB, "MemorySwap": 8 * MIB, "PidsLimit": 99, "CpuShares": 77}
    refused = engine.api("POST", f"/containers/{one}/update", body)
    assert refused.status == 500
    assert refused.message.startswith("Cannot update container ")
    assert cgroup_file(pid, "pids", "pids.max", "") == "17"
    assert cgroup_file(pid, "cpu", "cpu.shares", "") == "1024"
    assert memory(pid) == 64 * MIB
    assert engine.api.inspect(one)["HostConfig"] == before


def test_restart_policy(cli: Cli, engine: Engine, start: Callable[..., str]) -> None:
    one = start(script="sleep 1; exit 1")
    cli("update", "--restart", "on-failure:2", one)
    policy = engine.api.inspect(one)["HostConfig"]["RestartPolicy"]
    assert policy == {"Name": "on-failure", "MaximumRetryCount": 2}
    eventually(lambda: engine.api.inspect(one)["RestartCount"] == 2, 30)
    assert "invalid restart policy" in cli("update", "--restart", "sometimes", one, code=1).err
    short_lived = start("--rm")
    said = cli("update", "--restart", "always", short_lived, code=1).err
    assert "Restart policy cannot be updated because AutoRemove is enabled for the container" in said


def test_a_stopped_container_starts_with_the_new_limits(
    cli: Cli, engine: Engine, busybox: str, name: Names
) -> None:
    one = name()
    engine.docker("create", "--name", one, busybox, "sleep", "600")
    cli("update", "--memory", "48m", "--memory-swap", "48m", "--pids-limit", "31", one)
    engine.docker("start", one)
    pid = engine.api.pid(one)
    assert memory(pid) == 48 * MIB
    assert cgroup_file(pid, "pids", "pids.max", "pids.max") == "31"


def test_several_and_mistakes(cli: Cli, engine: Engine, start: Callable[..., str]) -> None:
    first, second = start(), start()
    done = cli("update", "--pids-limit", "40", first, "nobody-is-called-so", second, code=1)
    assert done.lines[:2] == [first, second]
    assert "No such container: nobody-is-called-so" in done.err
    assert "you must provide one or more flags when using this command" in cli("update", first, code=1).err
    assert "Minimum memory limit allowed is 6MB" in cli("update", "--memory", "1m", first, code=1).err
    assert "Range of blkio weight is" in cli("update", "--blkio-weight", "5", first, code=1).err


def test_what_cannot_be_changed_is_refused(daemon: Daemon, start: Callable[..., str]) -> None:
    """Docker passes it over in silence."""
    one = start()
    body = {"BlkioDeviceReadBps": [{"Path": "/dev/null", "Rate": 5}]}
    refused = daemon.api("POST", f"/containers/{one}/update", body)
    assert (refused.status, "cannot be changed by update" in refused.message) == (400, True)


def test_the_event(engine: Engine, start: Callable[..., str]) -> None:
    one = start()
    since = f"{time.time():.9f}"
    engine.docker("update", "--pids-limit", "40", one)
    events = engine.docker(
        "events", "--since", since, "--until", f"{time.time():.9f}", "--format", "json"
    ).lines
    assert [json.loads(line)["Action"] for line in events] == ["update"]


def test_limits_survive_a_restart_of_the_daemon(daemon: Daemon, start: Callable[..., str]) -> None:
    one = start("--memory", "64m")
    daemon.docker("update", "--memory", "80m", "--memory-swap", "100m", one)
    daemon.restart()
    assert daemon.api.inspect(one)["HostConfig"]["Memory"] == 80 * MIB
    assert memory(daemon.api.pid(one)) == 80 * MIB
