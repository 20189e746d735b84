"""How containers end: on their own, by signal, by stop; and what is cleaned up after each.

The answer comes before the clean-up: state, waiters and events first, then network, mounts and cgroup in a
background task that a later start or removal waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import shutil
import signal
from collections.abc import Awaitable
from pathlib import Path

from sampan.engine import endpoints, health, networks, oom, removal, restarting, sources, starting
from sampan.engine.core import Core, Live, check_not_removing, in_thread
from sampan.engine.model import Container
from sampan.engine.names import check_name
from sampan.engine.signals import parse_signal
from sampan.errors import Conflict, InvalidParameter, NotModified, SampanError
from sampan.linux.syscalls import MNT_DETACH, umount2
from sampan.runtime import ExitRecord, Process, remove_run

DEFAULT_STOP_TIMEOUT_S = 10
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
    container = live.container
    if live.process is process and container.ports:
        # Free for the next one before anybody hears of this end; beside the loop, as a proxy must die first.
        with contextlib.suppress(OSError, SampanError):  # `release` tries again
            await in_thread(lambda: core.networks.withdraw(container.id))
    if live.process is not process:
        return  # somebody has seen to it already
    state = container.state
    ran_s = max(0.0, (record.finished_at_ns - state.started_at_ns) / 1e9)
    health.drop(live)
    oom.unwatch(live)
    state.status, state.pid = "exited", 0
    state.exit_code, state.finished_at_ns = record.exit_code, record.finished_at_ns
    state.error = record.error
    oom_told, state.oom_killed = state.oom_killed, state.oom_killed or record.oom_killed
    live.process = None
    again = process is not None and not live.removing and not core.leaving
    again = again and restarting.wanted(container, record.exit_code)
    if again:
        restarting.schedule(core, live, ran_s)
    endpoints.clear_all(container)
    core.networks.expect_removal(container.id)
    core.write_down(container)
    core.shipping.ended(live.id)
    core.resolving.ended(container.id)
    live.tell_ended()
    for session in live.execs.values():
        if session.process is None:
            session.ended = session.ended or record
    if state.oom_killed and not oom_told:
        core.publish(live, "oom")
    core.publish(live, "die", exitCode=str(record.exit_code), execDuration=str(int(ran_s)))
    networks.tell(core, container, "disconnect")
    live.settled = core.spawn(
        asyncio.create_task(_settle(core, container, process), name=f"settle {live.id[:12]}")
    )
    if not again and container.host_config.auto_remove and not live.removing and not live.kept:
        # Without the lock: whoever holds it is waiting for exactly this end.
        core.spawn(asyncio.create_task(removal.auto_remove(core, live)))


async def _settle(core: Core, container: Container, process: Process | None) -> None:
    if process is not None:
        process.close()
    try:
        await in_thread(lambda: release(core, container))
        sources.tell(core, container, "unmount")
    except (SampanError, OSError) as error:
        _log.error("cleaning up after container %s: %s", container.id[:12], error)


def release(core: Core, container: Container) -> None:
    """Take down what a run leaves: cgroup and rundir, the network sandbox, the mounts. Idempotent."""
    clear_run(core.rundir(container.id), core.cgroups_path(container))
    core.networks.remove_sandbox(container.id)
    core.driver.unmount(container.id)
    core.volumes.let_go(container.id)


def clear_run(rundir: Path, cgroups_path: str) -> None:
    """Remove a run's processes, cgroup and directory, our own files in it included."""
    remove_run(str(rundir), cgroups_path)
    if os.path.ismount(rundir / "shm"):
        umount2(str(rundir / "shm"), MNT_DETACH)
    shutil.rmtree(rundir, ignore_errors=True)


# --- by request ---


async def kill(core: Core, live: Live, signal_text: str = "KILL") -> None:
    """Send a signal to the container's init. One that is about to be started again is left ended instead.

    Raises:
        Conflict: the container is not running.
    """
    number = parse_signal(signal_text or "KILL")
    if restarting.call_off(core, live):
        return
    process = live.process
    if process is None or not live.container.state.running:
        raise Conflict(f"cannot kill container: {live.container.name}: container {live.id} is not running")
    if number in (signal.SIGKILL, _stop_signal(live)):
        _stopped_by_request(core, live)
    with contextlib.suppress(ProcessLookupError):
        process.signal(number)
    core.publish(live, "kill", signal=str(number))
    if number in (signal.SIGKILL, _stop_signal(live)):
        await _thaw(core, live)
    if number == signal.SIGKILL:
        await live.ended.wait()


def _stopped_by_request(core: Core, live: Live) -> None:
    """Keep the restart policy away; written down first, as the daemon may be killed before the end.

    A daemon that leaves does not speak for the user: what it stops is started again by the next one.
    """
    container = live.container
    if core.leaving or container.stopped_by_user:
        return
    container.stopped_by_user = True
    if container.host_config.restart_policy.name not in ("", "no"):
        core.write_down(container)


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
        if not restarting.call_off(core, live) and not live.container.state.running:
            raise NotModified(f"container {live.id} is not running")
    # Without the lock: a second stop may have less patience.
    await stop_locked(core, live, timeout_s, signal_text)
    core.publish(live, "stop")


def _stop_signal(live: Live) -> int:
    return parse_signal(live.container.config.stop_signal or "TERM")


async def stop_locked(core: Core, live: Live, timeout_s: int | None = None, signal_text: str = "") -> None:
    """As `stop`, for callers that know that it runs, or has run a moment ago."""
    _stopped_by_request(core, live)
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
        await kill_and_wait(core, live, process)


async def kill_and_wait(core: Core, live: Live, process: Process) -> None:
    """SIGKILL, and wait until the end is known."""
    with contextlib.suppress(ProcessLookupError):
        process.signal(signal.SIGKILL)
    core.publish(live, "kill", signal=str(int(signal.SIGKILL)))
    await _thaw(core, live)
    if live.process is process:
        await live.ended.wait()


async def _thaw(core: Core, live: Live) -> None:
    """Let a paused container feel its signal: a frozen process does not even die of SIGKILL on cgroup v1."""
    state = live.container.state
    if state.status == "paused":
        try:
            await in_thread(core.cgroup(live.container).thaw)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
            # It has ended of it, and its cgroup is cleared away already.
        if state.status == "paused":  # it has not ended of it yet
            state.status = "running"
            core.store.save(live.container)
        core.publish(live, "unpause")


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
        starting.begin_anew(core, live)
        await starting.start_locked(core, live)
    core.publish(live, "restart")


async def rename(core: Core, live: Live, name: str) -> None:
    """Give a container another name.

    Raises:
        InvalidParameter, Conflict: the name is no name, is the old one, or is taken.
    """
    async with live.lock:
        check_not_removing(live)
        old = live.container.name
        if name.removeprefix("/") == old:
            raise InvalidParameter("Renaming a container with the same name as its current name")
        try:
            live.container.name = check_name(name)
            core.store.save(live.container)
        except SampanError as error:
            live.container.name = old
            error.message = f"Error when allocating new name: {error.message}"
            error.args = (error.message,)
            raise
        core.publish(live, "rename", oldName=f"/{old}")
        await networks.renamed(core, live)


def wait(live: Live, condition: str) -> Awaitable[int]:
    """The exit code, once a container is `not-running`, has its `next-exit`, or is `removed`.

    What happens from the call on counts, not from when the result is awaited.
    """
    next_exit = live.next_exit

    async def code() -> int:
        if condition == "removed":
            await live.removed.wait()
        elif condition == "next-exit" or running:
            return await asyncio.shield(next_exit)
        return live.container.state.exit_code

    running = live.container.state.active
    return code()
