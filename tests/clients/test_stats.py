"""`stats`: the figures against the kernel's own, their shape, and the tables that are made of them."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.api import UnixConnection
from support.cli import Cli
from support.engine import Engine
from support.machine import cgroup_file, eventually, on_v2

Names = Callable[[], str]
ZERO = "0001-01-01T00:00:00Z"
BUSY = "while :; do :; done"


@pytest.fixture
def start(engine: Engine, busybox: str, name: Names) -> Callable[..., str]:
    """Starts a container with options and a shell script; its name."""

    def run(script: str = "exec sleep 600", *options: str) -> str:
        one = name()
        engine.docker("run", "-d", "--name", one, *options, busybox, "sh", "-c", script)
        return one

    return run


def frame(engine: Engine, container: str, query: str = "stream=0") -> dict[str, Any]:
    answer: dict[str, Any] = engine.api.get(f"/containers/{container}/stats?{query}")
    return answer


def table_of(text: str) -> dict[str, int]:
    return {row.split()[0]: int(row.split()[1]) for row in text.splitlines() if len(row.split()) == 2}


def test_memory_and_pids_are_the_kernels(engine: Engine, start: Callable[..., str]) -> None:
    script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null; sleep 600 & sleep 600 & wait"
    one = start(script, "--memory", "64m", "--pids-limit", "50")
    pid = engine.api.pid(one)
    eventually(lambda: cgroup_file(pid, "pids", "pids.current", "pids.current") == "3")
    seen = frame(engine, one)
    assert seen["pids_stats"] == {"current": 3, "limit": 50}
    memory = seen["memory_stats"]
    assert memory["limit"] == 64 << 20
    now = int(cgroup_file(pid, "memory", "memory.usage_in_bytes", "memory.current"))
    assert memory["usage"] > 20 << 20 and abs(memory["usage"] - now) < 1 << 20
    rows = table_of(cgroup_file(pid, "memory", "memory.stat", "memory.stat"))
    assert memory["stats"].keys() <= rows.keys()
    held = "shmem" if on_v2(pid, "memory") else "cache"
    assert rows[held] >= 20 << 20 and abs(memory["stats"][held] - rows[held]) < 1 << 20
    if on_v2(pid, "memory"):
        assert "total_inactive_file" not in memory["stats"] and "inactive_file" in memory["stats"]
        assert "max_usage" not in memory
    else:
        assert "total_inactive_file" in memory["stats"] and "shmem" not in memory["stats"]
        assert memory["max_usage"] == int(cgroup_file(pid, "memory", "memory.max_usage_in_bytes", ""))


def test_without_a_limit_memory_is_the_machines(engine: Engine, start: Callable[..., str]) -> None:
    seen = frame(engine, start())
    total = re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())
    assert total is not None
    assert seen["memory_stats"]["limit"] == int(total[1]) * 1024


def test_processor_time_is_the_kernels(engine: Engine, start: Callable[..., str]) -> None:
    one = start(BUSY, "--cpus", "0.5")
    pid = engine.api.pid(one)

    def used() -> int:
        if on_v2(pid, "cpuacct"):
            return table_of(cgroup_file(pid, "cpuacct", "", "cpu.stat"))["usage_usec"] * 1000
        return int(cgroup_file(pid, "cpuacct", "cpuacct.usage", ""))

    before = used()
    seen = frame(engine, one)
    after = used()
    now, earlier = seen["cpu_stats"], seen["precpu_stats"]
    assert before <= earlier["cpu_usage"]["total_usage"] <= now["cpu_usage"]["total_usage"] <= after
    ticks = sum(int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:8])
    assert abs(now["system_cpu_usage"] - ticks * 10_000_000) < 5_000_000_000
    cores = Path("/proc/stat").read_text().count("\ncpu")
    assert now["online_cpus"] == cores
    first = table_of(cgroup_file(pid, "cpu", "cpu.stat", "cpu.stat"))
    told = frame(engine, one)["cpu_stats"]["throttling_data"]
    second = table_of(cgroup_file(pid, "cpu", "cpu.stat", "cpu.stat"))
    for mine, kernels in (("periods", "nr_periods"), ("throttled_periods", "nr_throttled")):
        assert first[kernels] <= told[mine] <= second[kernels]
    assert "throttled_time" in told
    assert ("percpu_usage" in now["cpu_usage"]) is not on_v2(pid, "cpuacct")


def test_a_single_figure_is_honest_and_comes_at_once(engine: Engine, start: Callable[..., str]) -> None:
    """A container held to half a processor; nobody has asked about it before."""
    one = start(BUSY, "--cpus", "0.5")
    time.sleep(0.5)
    begun = time.monotonic()
    seen = frame(engine, one)
    took = time.monotonic() - begun
    now, earlier = seen["cpu_stats"], seen["precpu_stats"]
    used = now["cpu_usage"]["total_usage"] - earlier["cpu_usage"]["total_usage"]
    machine = now["system_cpu_usage"] - earlier["system_cpu_usage"]
    share = used / machine * now["online_cpus"]
    assert 0.15 < share < 0.85, seen
    assert took < 0.9, "Docker waits for its next second"
    assert seen["preread"] < seen["read"] and seen["preread"] != ZERO


def test_network_counters_are_those_of_the_namespace(engine: Engine, start: Callable[..., str]) -> None:
    one = start()
    pid = engine.api.pid(one)
    gateway = engine.api.inspect(one)["NetworkSettings"]["Gateway"]
    engine.docker("exec", one, "ping", "-c", "3", "-i", "0.2", gateway)
    seen = frame(engine, one)["networks"]
    assert list(seen) == ["eth0"]
    line = next(x for x in Path(f"/proc/{pid}/net/dev").read_text().splitlines() if "eth0:" in x)
    counts = [int(word) for word in line.partition(":")[2].split()]
    assert seen["eth0"]["tx_packets"] >= 3
    names = ["bytes", "packets", "errors", "dropped"]
    for prefix, offset in (("rx", 0), ("tx", 8)):
        told = [seen["eth0"][f"{prefix}_{name}"] for name in names]
        assert told[2:] == counts[offset + 2 : offset + 4]
        for mine, kernels in zip(told[:2], counts[offset : offset + 2], strict=True):
            assert 0 <= kernels - mine < 3000  # a neighbour solicitation may have come since
    assert "networks" not in frame(engine, start("exec sleep 600", "--network", "host"))
    assert "networks" not in frame(engine, start("exec sleep 600", "--network", "none"))
    joined = frame(engine, start("exec sleep 600", "--network", f"container:{one}"))["networks"]
    assert joined["eth0"]["tx_packets"] >= 3


def test_one_shot_has_no_earlier_sample(engine: Engine, start: Callable[..., str]) -> None:
    one = start()
    seen = frame(engine, one, "stream=false&one-shot=true")
    assert seen["preread"] == ZERO
    assert seen["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert seen["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert (seen["name"], seen["id"]) == (f"/{one}", engine.api.inspect(one)["Id"])
    refused = engine.api("GET", f"/containers/{one}/stats?one-shot=true")
    assert (refused.status, refused.message) == (400, "cannot have stream=true and one-shot=true")


def test_a_stopped_container_has_zeros(engine: Engine, start: Callable[..., str]) -> None:
    one = start("exit 3")
    eventually(lambda: not engine.api.inspect(one)["State"]["Running"])
    seen = frame(engine, one)
    assert (seen["name"], seen["read"], seen["preread"]) == (f"/{one}", ZERO, ZERO)
    assert seen["memory_stats"] == seen["pids_stats"] == seen["storage_stats"] == {}
    assert seen["cpu_stats"] == seen["precpu_stats"]
    assert seen["cpu_stats"]["cpu_usage"]["total_usage"] == 0 and "system_cpu_usage" not in seen["cpu_stats"]
    assert set(seen["blkio_stats"].values()) == {None}
    assert "networks" not in seen


def test_the_stream_goes_on_until_the_removal(engine: Engine, start: Callable[..., str]) -> None:
    one = start(BUSY, "--cpus", "0.5")
    connection = UnixConnection(engine.socket)
    connection.request("GET", f"/containers/{one}/stats")
    answer = connection.getresponse()
    frames = [json.loads(answer.readline()) for _ in range(3)]
    for first, second in itertools.pairwise(frames):
        assert second["preread"] == first["read"]
        assert second["precpu_stats"] == first["cpu_stats"]
    engine.api.remove(one)
    rest = answer.read().splitlines()
    assert len(rest) <= 3
    connection.close()


def test_nobody_there(engine: Engine, cli: Cli) -> None:
    said = cli("stats", "--no-stream", "nobody-is-called-so", code=1).err
    assert "No such container: nobody-is-called-so" in said


def test_the_table(cli: Cli, engine: Engine, start: Callable[..., str]) -> None:
    busy, idle = start(BUSY, "--cpus", "0.5", "--memory", "64m"), start("exit 0")
    eventually(lambda: not engine.api.inspect(idle)["State"]["Running"])
    lines = cli("stats", "--no-stream").lines
    assert re.split(r" {2,}", lines[0].strip()) == [
        *("CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS")
    ]
    assert any(re.search(rf"^[0-9a-f]{{12}} +{busy} +\d+\.\d\d% .*/ 64MiB ", line) for line in lines)
    assert not any(idle in line for line in lines)
    everything = cli("stats", "-a", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}").lines
    assert f"{idle} 0 0B / 0B" in everything
    whole = engine.api.inspect(busy)["Id"]
    seen = json.loads(cli("stats", "--no-stream", "--no-trunc", "--format", "json", busy).out)
    assert seen.keys() == {
        *("BlockIO", "CPUPerc", "Container", "ID", "MemPerc", "MemUsage", "Name", "NetIO", "PIDs")
    }
    assert (seen["ID"], seen["Container"], seen["PIDs"]) == (whole, busy, "1")
    assert 5 < float(seen["CPUPerc"].rstrip("%")) < 90


def test_the_live_table_follows_the_containers(cli: Cli, engine: Engine, start: Callable[..., str]) -> None:
    first = start()
    with cli.start("stats", "--format", "{{.Name}}") as client:
        try:
            assert client.stdout is not None
            text = b""

            def until(condition: Callable[[str], bool]) -> None:
                """Read redraws until one is as wanted."""
                nonlocal text
                deadline = time.monotonic() + 20
                while time.monotonic() < deadline:
                    text += client.stdout.read1(65536)  # type: ignore[union-attr]
                    drawn = text.decode().split("\x1b[H")
                    if len(drawn) > 2 and condition(drawn[-2]):
                        return
                raise AssertionError(text[-2000:])

            until(lambda drawn: first in drawn)
            second = start()
            until(lambda drawn: first in drawn and second in drawn)
            engine.api.remove(second)
            until(lambda drawn: first in drawn and second not in drawn)
        finally:
            client.kill()


def test_nothing_is_sampled_when_nobody_asks(engine: Engine, start: Callable[..., str]) -> None:
    """The daemon's processor time stands still beside busy containers."""
    pid = getattr(engine, "pid", None)
    if pid is None:
        pytest.skip("needs a daemon whose process is known")
    one = start(BUSY, "--cpus", "0.1")
    frame(engine, one)

    def ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    time.sleep(1)
    before = ticks()
    time.sleep(3)
    assert ticks() - before <= 3


def test_graphs(engine: Engine, start: Callable[..., str]) -> None:
    busy = start(BUSY, "--cpus", "0.5")
    with engine.sampan.terminal("stats", "--graph", busy) as terminal:
        seen = terminal.expect("█".encode(), timeout=30)  # the largest so far fills its cell
        assert busy.encode() in seen and b"MEM USAGE" in seen
        terminal.send(b"\x03")
        terminal.wait()
    refused = engine.sampan("stats", "--graph", "--no-stream", busy, code=1).err
    assert "--no-stream" in refused
