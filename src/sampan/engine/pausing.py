"""`docker pause` and `unpause`: the cgroup freezer."""

from __future__ import annotations

from sampan.engine import health
from sampan.engine.core import Core, Live, check_not_removing, check_not_restarting, in_thread
from sampan.engine.errors import NotRunning
from sampan.errors import Conflict


async def pause(core: Core, live: Live) -> None:
    """Freeze every process of a running container.

    Raises:
        Conflict: it does not run, or is frozen already.
    """
    async with live.lock:
        check_not_removing(live)
        if live.container.state.status == "paused":
            raise Conflict(f"Container {live.id} is already paused")
        check_not_restarting(live)
        if not live.container.state.running:
            raise NotRunning(live.id)
        await health.halt(live)  # a frozen probe would be ended for being late
        try:
            await in_thread(core.cgroup(live.container).freeze)
        except FileNotFoundError:
            raise NotRunning(live.id) from None  # it has just ended, and its cgroup with it
        except BaseException:
            health.begin(core, live)
            raise
        if live.container.state.running:
            live.container.state.status = "paused"
            core.store.save(live.container)
    core.publish(live, "pause")


async def unpause(core: Core, live: Live) -> None:
    """Let the processes go on.

    Raises:
        Conflict: it is not paused.
    """
    async with live.lock:
        if live.container.state.status != "paused":
            raise Conflict(f"Container {live.id} is not paused")
        await in_thread(core.cgroup(live.container).thaw)
        if live.container.state.running:
            live.container.state.status = "running"
            core.store.save(live.container)
            health.begin(core, live)
    core.publish(live, "unpause")
