"""`GET /metrics`, on an address of its own: the numbers of the engine and its process.

Prometheus' text format 0.0.4; names and labels are dockerd's, and client_golang's for the process.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sampan.engine import Engine
from sampan.engine.machine import machine
from sampan.engine.metrics import BUCKETS_S, Histogram
from sampan.http import Request, Response, Routes

routes = Routes()

_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Sample = tuple[Mapping[str, str], float]


@routes.get("/metrics")
async def metrics(request: Request) -> Response:
    """All of them."""
    engine: Engine = request.engine
    lines = [*_engine(engine, request.server.version), *_process()]
    return Response(200, ("\n".join(lines) + "\n").encode(), _TYPE)


def _engine(engine: Engine, version: str) -> Iterator[str]:
    counted, here = engine.metrics, machine()
    yield from _histograms(
        "engine_daemon_container_actions_seconds",
        "The number of seconds it takes to process each container action",
        [({"action": name}, histogram) for name, histogram in counted.container_actions.items()],
    )
    states = {"paused": 0, "running": 0, "stopped": 0}
    for live in engine.containers.values():
        state = live.container.state
        states[state.status if state.status in states else "running" if state.running else "stopped"] += 1
    yield from _family(
        "engine_daemon_container_states_containers",
        "gauge",
        "The count of containers in various states",
        [({"state": name}, count) for name, count in states.items()],
    )
    yield from _one("engine_daemon_engine_cpus_cpus", "gauge", "The number of cpus of the machine", here.cpus)
    facts = {
        "architecture": here.architecture,
        "commit": "",
        "daemon_id": engine.id,
        "graphdriver": engine.driver.name,
        "kernel": here.kernel,
        "os": here.operating_system,
        "os_type": "linux",
        "os_version": here.os_version,
        "version": version,
    }
    yield from _family("engine_daemon_engine_info", "gauge", "What engine this is", [(facts, 1)])
    yield from _one(
        "engine_daemon_engine_memory_bytes", "gauge", "The memory of the machine", here.memory_bytes
    )
    events = engine.events
    yield from _one(
        "engine_daemon_events_subscribers_total", "gauge", "Who listens to events now", events.listeners
    )
    yield from _one("engine_daemon_events_total", "counter", "The number of events", events.published)
    yield from _histograms(
        "engine_daemon_health_check_start_duration_seconds",
        "The number of seconds it takes to prepare to run health checks",
        [({}, counted.health_starts)],
    )
    yield from _one(
        "engine_daemon_health_checks_failed_total", "counter", "Health checks that failed",
        counted.health_checks_failed,
    )  # fmt: skip
    yield from _one(
        "engine_daemon_health_checks_total", "counter", "The number of health checks", counted.health_checks
    )


def _process() -> Iterator[str]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime
    pages = [int(word) for word in Path("/proc/self/statm").read_text().split()]
    page = os.sysconf("SC_PAGE_SIZE")
    yield from _one("process_cpu_seconds_total", "counter", "User and system CPU time", round(seconds, 6))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield from _one("process_max_fds", "gauge", "How many file descriptors it may have", limit)
    yield from _one(
        "process_open_fds", "gauge", "How many it has", len(os.listdir("/proc/self/fd")) - 1
    )  # less the one that lists
    yield from _one("process_resident_memory_bytes", "gauge", "Resident memory", pages[1] * page)
    yield from _one(
        "process_start_time_seconds", "gauge", "When it was started, seconds since 1970", _started_at()
    )
    yield from _one("process_virtual_memory_bytes", "gauge", "Virtual memory", pages[0] * page)


def _started_at() -> float:
    """proc(5): `starttime` in clock ticks after boot, and the time of the boot."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    stat = Path("/proc/stat").read_text().splitlines()
    boot = next(int(line.split()[1]) for line in stat if line.startswith("btime "))
    return boot + ticks / os.sysconf("SC_CLK_TCK")


# --- the format ---


def _one(name: str, kind: str, about: str, value: float) -> Iterator[str]:
    return _family(name, kind, about, [({}, value)])


def _family(name: str, kind: str, about: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{_labels(labels)} {value}"


def _histograms(name: str, about: str, samples: Iterable[tuple[dict[str, str], Histogram]]) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} histogram"
    for labels, histogram in samples:
        total = 0
        for bound, count in zip((*map("{:g}".format, BUCKETS_S), "+Inf"), histogram.counts, strict=True):
            total += count
            yield f"{name}_bucket{_labels({**labels, 'le': bound})} {total}"
        yield f"{name}_sum{_labels(labels)} {histogram.sum_s}"
        yield f"{name}_count{_labels(labels)} {total}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
