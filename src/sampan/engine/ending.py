"""How containers end: on their own, by signal, by stop, by removal; and what is cleaned up after each.

The answer comes before the clean-up: state, waiters and events first, then network, mounts and cgroup in a
background task that a later start or removal waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from pathlib import Path

from sampan.engine import starting
from sampan.engine.core import Core, Live, check_not_removing, in_thread
from sampan.engine.metrics import timed
from sampan.engine.model import Container
from sampan.engine.names import check_name
from sampan.engine.signals import parse_signal
from sampan.errors import Conflict, InvalidParameter, NotFound, NotModified, SampanError
from sampan.linux.cgroups import manager_for
from sampan.linux.syscalls import MNT_DETACH, umount2
from sampan.runtime import ExitRecord, Process, remove_run

DEFAULT_STOP_TIMEOUT_S = 10
RETRY_S = 2.0
_log = logging.getLogger("sampan.engine")


# --- the end of a run ---


def watch(core: Core, live: Live, process: Process) -> None:
    """See to a running process's end, whenever it comes."""

    async def until_end() -> None:
        record = await process.wait()
        await ended(core, live, process, record)

    core.spawn(asyncio.create_task(until_end(), name=f"watch {live.id[:12]}"))


async def ended(core: Core, live: Live, process: Process | None, record: ExitRecord) -> None:
    """Record a run's end, tell everybody, clean up, and start again where the restart policy says so."""
    if live.process is not process:
        return  # somebody has seen to it already
    container = live.container
    state = container.state
    ran_s = max(0.0, (record.finished_at_ns - state.started_at_ns) / 1e9)
    state.status, state.pid = "exited", 0
    state.exit_code, state.finished_at_ns = record.exit_code, record.finished_at_ns
    state.oom_killed, state.error = record.oom_killed, record.error
    live.process = None
    _write_down(core, container)
    again = _restarts(live, record)
    live.tell_ended()
    for session in live.execs.values():
        if session.process is None:
            session.ended = session.ended or record
    if record.oom_killed:
        core.publish(live, "oom")
    core.publish(live, "die", exitCode=str(record.exit_code), execDuration=str(int(ran_s)))
    live.settled = core.spawn(
        asyncio.create_task(_settle(core, container, process), name=f"settle {live.id[:12]}")
    )
    if again:
        live.restart = core.spawn(asyncio.create_task(_start_again(core, live, ran_s)))
    elif container.host_config.auto_remove and not live.removing and not live.kept:
        # Without the lock: whoever holds it is waiting for exactly this end.
        core.spawn(asyncio.create_task(_auto_remove(core, live)))


def _write_down(core: Core, container: Container) -> None:
    """Record the end; on a full disk once there is room, as nobody may be kept waiting for that."""
    try:
        core.store.save(container)
    except OSError as error:
        _log.error("the end of container %s could not be written down yet: %s", container.id[:12], error)
        core.spawn(asyncio.create_task(_write_down_later(core, container), name="watch for room on the disk"))


async def _write_down_later(core: Core, container: Container) -> None:
    while container.id in core.containers:
        await asyncio.sleep(RETRY_S)
        try:
            core.store.save(container)
        except OSError:
            continue
        return


async def _auto_remove(core: Core, live: Live) -> None:
    try:
        await remove_locked(core, live, volumes=True)
    except (SampanError, OSError) as error:
        _log.error("cannot remove container %s after its end: %s", live.id[:12], error)


async def _settle(core: Core, container: Container, process: Process | None) -> None:
    if process is not None:
        process.close()
    try:
        await in_thread(lambda: release(core, container))
    except (SampanError, OSError) as error:
        _log.error("cleaning up after container %s: %s", container.id[:12], error)


def release(core: Core, container: Container) -> None:
    """Take down what a run leaves: cgroup and rundir, the network sandbox, the mounts. Idempotent."""
    clear_run(core.rundir(container.id), core.cgroups_path(container))
    core.networks.remove_sandbox(container.id)
    core.driver.unmount(container.id)


def clear_run(rundir: Path, cgroups_path: str) -> None:
    """Remove a run's processes, cgroup and directory, our own files in it included."""
    remove_run(str(rundir), cgroups_path)
    if os.path.ismount(rundir / "shm"):
        umount2(str(rundir / "shm"), MNT_DETACH)
    shutil.rmtree(rundir, ignore_errors=True)


def _restarts(live: Live, record: ExitRecord) -> bool:
    container = live.container
    policy = container.host_config.restart_policy
    if live.removing or container.stopped_by_user:
        return False
    if policy.name == "on-failure":
        within = not policy.maximum_retry_count or container.restart_count < policy.maximum_retry_count
        return record.exit_code != 0 and within
    return policy.name in ("always", "unless-stopped")


async def _start_again(core: Core, live: Live, ran_s: float) -> None:
    """Docker's back-off: 100 ms, doubled each time up to a minute, forgotten after ten good seconds."""
    container = live.container
    container.restart_count = 0 if ran_s > 10 else container.restart_count
    delay_s = min(0.1 * 2 ** min(container.restart_count, 10), 60.0)
    container.state.status = "restarting"
    await asyncio.sleep(delay_s)
    async with live.lock:
        if live.removing or container.stopped_by_user or container.state.running:
            return
        live.restart = None
        container.restart_count += 1
        try:
            await starting.start_locked(core, live)
        except (SampanError, OSError) as error:
            container.state.status = "exited"
            core.store.save(container)
            _log.error("cannot restart container %s: %s", live.id[:12], error)


# --- by request ---


async def kill(core: Core, live: Live, signal_text: str = "KILL") -> None:
    """Send a signal to the container's init.

    Raises:
        Conflict: the container is not running.
    """
    number = parse_signal(signal_text or "KILL")
    process = live.process
    if process is None or not live.container.state.running:
        raise Conflict(f"cannot kill container: {live.container.name}: container {live.id} is not running")
    if number in (signal.SIGKILL, _stop_signal(live)):
        live.container.stopped_by_user = True
    with contextlib.suppress(ProcessLookupError):
        process.signal(number)
    core.publish(live, "kill", signal=str(number))
    if number == signal.SIGKILL:
        await _thaw(core, live)
        await live.ended.wait()


async def stop(core: Core, live: Live, timeout_s: int | None = None, signal_text: str = "") -> None:
    """Ask a container to end, and make it end when the time is up.

    Args:
        timeout_s: seconds to wait before SIGKILL; negative for ever; None for the container's own or 10.
        signal_text: another signal than the container's stop signal.

    Raises:
        NotModified: it is not running.
    """
    async with live.lock:
        check_not_removing(live)
        if live.restart is not None:
            live.container.stopped_by_user = True
            live.restart.cancel()
            live.restart = None
            live.container.state.status = "exited"
            core.store.save(live.container)
            return
        if not live.container.state.running:
            raise NotModified(f"container {live.id} is not running")
        await stop_locked(core, live, timeout_s, signal_text)
        core.publish(live, "stop")


def _stop_signal(live: Live) -> int:
    return parse_signal(live.container.config.stop_signal or "TERM")


async def stop_locked(core: Core, live: Live, timeout_s: int | None = None, signal_text: str = "") -> None:
    """As `stop`, for callers that hold the lock and know that it runs."""
    live.container.stopped_by_user = True
    number = parse_signal(signal_text) if signal_text else _stop_signal(live)
    if timeout_s is None:
        configured = live.container.config.stop_timeout
        timeout_s = DEFAULT_STOP_TIMEOUT_S if configured is None else configured
    process = live.process
    if process is None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.signal(number)
    core.publish(live, "kill", signal=str(number))
    await _thaw(core, live)
    try:
        async with asyncio.timeout(None if timeout_s < 0 else timeout_s):
            await live.ended.wait()
    except TimeoutError:
        await _kill_and_wait(core, live, process)


async def _kill_and_wait(core: Core, live: Live, process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.signal(signal.SIGKILL)
    core.publish(live, "kill", signal=str(int(signal.SIGKILL)))
    await _thaw(core, live)
    await live.ended.wait()


async def _thaw(core: Core, live: Live) -> None:
    """Let a paused container feel its signal: a frozen process does not even die of SIGKILL on cgroup v1."""
    if live.container.state.status == "paused":
        await in_thread(manager_for(core.cgroups_path(live.container)).thaw)


async def restart(core: Core, live: Live, timeout_s: int | None = None, signal_text: str = "") -> None:
    """Stop a container if it runs, and start it."""
    async with live.lock:
        check_not_removing(live)
        if live.container.state.running:
            live.kept = True
            try:
                await stop_locked(core, live, timeout_s, signal_text)
            finally:
                live.kept = False
        live.container.stopped_by_user = False
        await starting.start_locked(core, live)
    core.publish(live, "restart")


async def remove(core: Core, live: Live, force: bool = False, volumes: bool = False) -> None:
    """Remove a container; with `force` also a running one.

    Args:
        volumes: remove its anonymous volumes as well.

    Raises:
        Conflict: it runs and `force` is not given, or another removal is under way.
    """
    check_not_removing(live)
    if live.container.state.running and not force:
        what = "paused" if live.container.state.status == "paused" else "running"
        raise Conflict(
            f'cannot remove container "{live.container.name}": container is {what}: '
            + ("unpause and then stop" if what == "paused" else "stop")
            + " the container before removing or force remove"
        )
    async with live.lock:
        check_not_removing(live)
        live.removing = True
        try:
            if live.restart is not None:
                live.restart.cancel()
                live.restart = None
            if live.process is not None:
                await _kill_and_wait(core, live, live.process)
            live.removing = False
            await remove_locked(core, live, volumes)
        except BaseException:
            live.removing = False
            raise


@timed("delete")
async def remove_locked(core: Core, live: Live, volumes: bool) -> None:
    """Forget a stopped container: the name is free and the record gone at the return, the rest follows."""
    if live.removing or core.containers.get(live.id) is not live:
        return
    live.removing = True
    live.drop_parked()
    if volumes and any(point.type == "volume" for point in live.container.mounts):
        try:
            if live.settled is not None:
                await live.settled  # the volumes are in use until then
            await in_thread(lambda: _remove_anonymous_volumes(core, live.container))
        except BaseException:
            live.removing = False  # so that the removal can be tried again
            raise
    core.store.delete(live.id)
    del core.containers[live.id]
    live.removed.set()
    live.tell_ended()
    core.publish(live, "destroy")
    settled = live.settled

    async def sweep() -> None:
        if settled is not None:
            await settled
        try:
            await in_thread(lambda: discard(core, live.container))
        except (SampanError, OSError) as error:
            _log.error("removing the files of container %s: %s", live.id[:12], error)

    live.settled = core.spawn(asyncio.create_task(sweep(), name=f"sweep {live.id[:12]}"))


def discard(core: Core, container: Container) -> None:
    """Delete a container's files: its writable layer and its directory."""
    release(core, container)
    core.driver.remove_container(container.id)
    shutil.rmtree(core.directory(container.id), ignore_errors=True)
    core.driver.purge_trash()
    try:
        core.images.resolve(container.image_id)
    except NotFound:
        core.images.collect_garbage()  # the image was removed by force before; its layers are free now


def _remove_anonymous_volumes(core: Core, container: Container) -> None:
    """Remove the nameless volumes that were made for this container and that no other one uses."""
    others = [live.container for live in list(core.containers.values()) if live.id != container.id]
    for point in container.mounts:
        used = any(point.name == theirs.name for other in others for theirs in other.mounts)
        if point.type == "volume" and not used:
            with contextlib.suppress(Conflict, NotFound):
                if core.volumes.get(point.name).anonymous:
                    core.volumes.remove(point.name)


async def rename(core: Core, live: Live, name: str) -> None:
    """Give a container another name.

    Raises:
        InvalidParameter, Conflict: the name is no name, is the old one, or is taken.
    """
    name = check_name(name)
    async with live.lock:
        check_not_removing(live)
        old = live.container.name
        if name == old:
            raise InvalidParameter("Renaming a container with the same name as its current name")
        live.container.name = name
        try:
            core.store.save(live.container)
        except SampanError:
            live.container.name = old
            raise
    core.publish(live, "rename", oldName=f"/{old}")


async def wait(core: Core, live: Live, condition: str) -> int:
    """Wait until a container is `not-running`, has its `next-exit`, or is `removed`.

    Returns:
        Its exit code.
    """
    if condition == "removed":
        await live.removed.wait()
    elif condition == "next-exit":
        await asyncio.shield(live.next_exit)
    elif live.container.state.running or live.container.state.status == "restarting":
        await live.ended.wait()
    return live.container.state.exit_code
