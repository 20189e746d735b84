"""`docker stats`: what a container uses, from its cgroup and its network namespace, and only while asked.

A share of the processor is the difference of two samples. Docker samples every container that anybody asks
about once a second and lets a single question wait for the second sample. Here nothing samples by itself: the
last sample that anybody caused is remembered with the container. A question takes it as the earlier one when
it is at most `REMEMBERED_S` old, so its figure is the mean since then; else two samples are taken
`INTERVAL_S` apart. /proc/stat counts in hundredths of a second, so the short interval is good to a few per
cent of the figure. Clients that follow the same container share their samples.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from sampan.dataclasses import dataclass
from sampan.engine.core import Core, Live, in_thread
from sampan.engine.model import Container
from sampan.linux.accounting import InterfaceCounters, interfaces, machine_cpu
from sampan.linux.cgroups import CgroupStats, Manager

INTERVAL_S = 0.15
REMEMBERED_S = 5.0
PERIOD_S = 1.0
_SHARED_S = 0.4  # a follower takes another one's sample when it is no older


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a running container.

    Attributes:
        at_ns: when, nanoseconds since 1970.
        started_at_ns: the start of the run that it belongs to.
        usage: of its cgroup.
        cgroup_version: 1 or 2.
        machine_ns: time of all processors since boot.
        online_cpus: how many there are.
        networks: counters by interface; empty where the container has none of its own.
    """

    at_ns: int
    started_at_ns: int
    usage: CgroupStats
    cgroup_version: int
    machine_ns: int
    online_cpus: int
    networks: dict[str, InterfaceCounters]


@dataclass(frozen=True, slots=True)
class Frame:
    """A sample and the one before it; None for a container that does not run, or where none was asked for."""

    sample: Sample | None = None
    previous: Sample | None = None


async def once(core: Core, live: Live) -> Frame:
    """One sample and nothing to compare it with (the API's `one-shot`)."""
    return Frame(await _take(core, live))


async def snapshot(core: Core, live: Live) -> Frame:
    """A sample and an earlier one, at the latest after `INTERVAL_S`."""
    previous = _remembered(live)
    if previous is None:
        previous = await _take(core, live)
        if previous is None:
            return Frame()
    age_s = (time.time_ns() - previous.at_ns) / 1e9
    if 0 <= age_s < INTERVAL_S:
        await asyncio.sleep(INTERVAL_S - age_s)
    sample = await _take(core, live)
    if sample is None or sample.started_at_ns != previous.started_at_ns:
        return Frame(sample)
    return Frame(sample, previous)


async def follow(core: Core, live: Live) -> AsyncIterator[Frame]:
    """A frame at once and then one each second, also while it does not run, until it is removed."""
    frame = await snapshot(core, live)
    while True:
        yield frame
        # On the second: so all followers look at the same time, and one look is enough.
        wait_s = PERIOD_S - time.time() % PERIOD_S
        try:
            async with asyncio.timeout(wait_s if wait_s > PERIOD_S / 2 else wait_s + PERIOD_S):
                await live.removed.wait()
                return
        except TimeoutError:
            pass
        sample = await _take(core, live, _SHARED_S)
        previous = frame.sample
        if sample is None or previous is None or sample.started_at_ns != previous.started_at_ns:
            previous = None
        frame = Frame(sample, previous)


def _remembered(live: Live) -> Sample | None:
    sample: Sample | None = live.sample
    if sample is None or sample.started_at_ns != live.container.state.started_at_ns:
        return None
    age_s = (time.time_ns() - sample.at_ns) / 1e9
    return sample if 0 <= age_s <= REMEMBERED_S else None


async def _take(core: Core, live: Live, oldest_s: float = 0.0) -> Sample | None:
    """A sample; None when the container does not run. Questions at the same time share one."""
    if not live.container.state.running:
        return None
    known = _remembered(live)
    if known is not None and time.time_ns() - known.at_ns < oldest_s * 1e9:
        return known
    if live.sampling is None:
        shares_host = _on_host_network(core, live.container)
        manager, state = core.cgroup(live.container), live.container.state
        pid, started_at_ns = state.pid, state.started_at_ns
        live.sampling = asyncio.ensure_future(
            in_thread(lambda: _look(manager, 0 if shares_host else pid, started_at_ns))
        )
        live.sampling.add_done_callback(lambda _: setattr(live, "sampling", None))
    sample: Sample = await asyncio.shield(live.sampling)
    live.sample = sample
    return sample if live.container.state.running else None


def _look(manager: Manager, network_pid: int, started_at_ns: int) -> Sample:
    networks = interfaces(network_pid) if network_pid else {}
    usage = manager.stats()
    machine_ns, online = machine_cpu()  # beside the look at the cgroup: their differences are compared
    return Sample(time.time_ns(), started_at_ns, usage, manager.version, machine_ns, online, networks)


def _on_host_network(core: Core, container: Container) -> bool:
    """Whether its interfaces are the machine's: Docker counts those for nobody."""
    for _ in range(8):
        mode = container.host_config.network_mode
        if not mode.startswith("container:"):
            return mode == "host"
        other = core.find(mode.removeprefix("container:"))
        if other is None:
            return False
        container = other.container
    return False
