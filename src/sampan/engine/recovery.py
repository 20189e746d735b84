"""Start-up after anything: what lived on is adopted, what nobody owns is removed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from functools import partial

from sampan.engine import (
    ending,
    execs,
    health,
    links,
    oom,
    removal,
    resolution,
    restarting,
    sources,
    starting,
)
from sampan.engine.core import Core, Live, in_thread
from sampan.engine.shipping import owes
from sampan.errors import NotFound, NotModified, SampanError
from sampan.runtime import ExitRecord, Process, adopt

PATIENCE_S = 30.0  # one whose start hangs (a mount of a dead server) must not keep the daemon from serving
_log = logging.getLogger("sampan.engine")


async def recover(core: Core) -> None:
    """Bring memory, database and kernel to agree again. Called once, before the first request."""
    for container in core.store.load():
        core.containers[container.id] = live = Live(container)
        live.ended.set()
        links.index(core, container)
        for point in container.mounts:
            if point.type == "volume":
                with contextlib.suppress(NotFound):  # told when it is started
                    core.volumes.refer(point.name, container.id)
    running: set[str] = set()
    gone: list[tuple[Live, ExitRecord]] = []
    for live in list(core.containers.values()):
        rundir = core.rundir(live.id)
        found = await adopt(str(rundir)) if rundir.is_dir() else None
        if isinstance(found, Process):
            running.add(live.id)
            _adopted(core, live, found)
            await execs.adopt_all(core, live)
        elif found is not None and not _known(live, found):
            gone.append((live, found))
        elif live.container.state.running:
            gone.append((live, ExitRecord(255, time.time_ns(), error="it ended while no daemon was there")))
    for live in core.containers.values():
        _send_on(core, live)
    ended = {live.id for live, _ in gone}
    await in_thread(lambda: _sweep(core, running, ended))
    for container_id in running:
        await _recall(core, container_id)
    await in_thread(core.resolving.settle)
    for live, record in gone:
        await ending.ended(core, live, None, record)
    rest = [
        live for live in core.containers.values() if live.container.to_be_removed or live.id not in running
    ]
    bringing_up = core.spawn(asyncio.create_task(_bring_up(core, rest), name="bring up"))
    await asyncio.wait([bringing_up], timeout=PATIENCE_S)
    core.spawn(asyncio.create_task(in_thread(lambda: _clear_store(core)), name="purge"))


async def _recall(core: Core, container_id: str) -> None:
    """Know the network of a container that runs; it may end meanwhile, and be gone if that removes it."""
    live = core.containers.get(container_id)
    if live is None:
        return
    async with live.lock:
        if live.removed.is_set() or not live.container.state.running:
            return
        if starting.recall_network(core, live.container):
            core.store.save(live.container)
        await in_thread(partial(_serve_names, core, live))


def _serve_names(core: Core, live: Live) -> None:
    """Have the resolver that lived on serve a running container as before, or a new one."""
    try:
        resolution.follow(core, live.container)
    except (OSError, SampanError) as error:
        _log.error("container %s cannot resolve names: %s", live.id[:12], error)
    process = live.process
    tell = resolution.telling_life(core, live.container, process) if process is not None else None
    if tell is not None:
        tell()


def _known(live: Live, record: ExitRecord) -> bool:
    """Whether this end was written down already, and only the clean-up after it was cut short."""
    state = live.container.state
    return not state.running and record.finished_at_ns == state.finished_at_ns


def _send_on(core: Core, live: Live) -> None:
    """Go on with lines that are for a remote log driver, also with those that an ended run still owes."""
    job = core.log_job(live.container)
    if job is not None and (live.process is not None or owes(job)):
        core.shipping.follow(job)
        if live.process is None:
            core.shipping.ended(live.id)


def _adopted(core: Core, live: Live, process: Process) -> None:
    state = live.container.state
    live.process = process
    live.ended.clear()
    if not state.running:
        state.status, state.started_at_ns = "running", process.started_at_ns
        state.exit_code, state.error, state.finished_at_ns = 0, "", 0
    state.pid = process.pid
    if state.status == "running":  # a commit that a crash cut short had it frozen
        with contextlib.suppress(OSError):
            core.cgroup(live.container).thaw()
    core.store.save(live.container)
    ending.watch(core, live, process)
    health.begin(core, live)
    oom.watch(core, live)


async def _bring_up(core: Core, rest: list[Live]) -> None:
    """What does not run, in the order in which it was made: who joins another's namespaces comes later."""
    for live in rest:
        if core.containers.get(live.id) is not live:
            continue
        if live.container.to_be_removed:
            await _finish_removal(core, live)
        else:
            await _left_over(core, live)


async def _finish_removal(core: Core, live: Live) -> None:
    """A forced removal that the last daemon had begun."""
    try:
        await removal.remove(core, live, force=True)
    except (SampanError, OSError) as error:
        _log.error("cannot remove container %s: %s", live.id[:12], error)


async def _left_over(core: Core, live: Live) -> None:
    """A container that does not run: removed if it was to be, started if its policy says so."""
    container = live.container
    owed = container.state.status == "restarting"  # the back-off was cut short
    if owed:
        container.state.status = "exited"
        core.store.save(container)
    if container.state.status != "exited":
        return
    if container.host_config.auto_remove:
        await removal.auto_remove(core, live)
    elif owed or restarting.wanted_at_start(container):
        try:
            if owed:
                await _start_owed(core, live)
            else:
                await starting.start(core, live)
        except NotModified:
            pass  # somebody was faster
        except (SampanError, OSError) as error:
            _log.error("cannot start container %s: %s", live.id[:12], error)


async def _start_owed(core: Core, live: Live) -> None:
    """Start it as at the end of its back-off: the count of its restarts goes on."""
    async with live.lock:
        if not live.container.state.active:
            await starting.start_locked(core, live)


def _sweep(core: Core, running: set[str], ended: set[str]) -> None:
    """Remove what no container owns; `ended` ones are cleaned up by the usual way."""
    base = core.options.exec_root / "containers"
    if base.is_dir():
        for rundir in base.iterdir():
            live = core.containers.get(rundir.name)
            if live is None:
                parent = core.options.cgroup_parent
                ending.clear_run(rundir, f"{parent.rstrip('/')}/{rundir.name}" if parent else "")
            elif rundir.name not in running and rundir.name not in ended:
                ending.release(core, live.container)
    known = set(core.containers)
    data = core.options.data_root / "containers"
    if data.is_dir():
        for directory in data.iterdir():
            if directory.name not in known:
                shutil.rmtree(directory, ignore_errors=True)
    core.driver.repair(known)
    for container_id in core.driver.mounted() - running:
        core.driver.unmount(container_id)
    sources.sweep(core)
    core.build_caches.repair()
    mounts = {container_id: core.containers[container_id].container.mounts for container_id in running}
    core.volumes.adopt({owner: [point.name for point in points] for owner, points in mounts.items()})
    core.networks.start(running)


def _clear_store(core: Core) -> None:
    """Free what only the file systems held that were just dropped, and empty the trash."""
    core.images.collect_garbage()
    core.driver.purge_trash()
    core.volumes.purge_trash()
    core.build_caches.purge_trash()
