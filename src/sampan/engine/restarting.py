"""Restart policies (`docker run --restart`): whether a container that has ended is started again, and when.

The back-off is Docker's: 100 ms, doubled with each restart up to a minute, forgotten after ten seconds of
running. The policy is read when it is needed, so that a change of it counts from the next end on.
"""

from __future__ import annotations

import asyncio
import logging

from sampan.engine import starting
from sampan.engine.core import Core, Live
from sampan.engine.model import Container
from sampan.errors import SampanError

FIRST_S = 0.1
LONGEST_S = 60.0
GOOD_RUN_S = 10.0
_log = logging.getLogger("sampan.engine")


def wanted(container: Container, exit_code: int) -> bool:
    """Whether the policy has a container that ended with this code started again."""
    policy = container.host_config.restart_policy
    if container.stopped_by_user:
        return False
    if policy.name == "on-failure":
        within = not policy.maximum_retry_count or container.restart_count < policy.maximum_retry_count
        return exit_code != 0 and within
    return policy.name in ("always", "unless-stopped")


def wanted_at_start(container: Container) -> bool:
    """Whether a container that does not run is started by a daemon that comes up.

    `always` speaks of those too that were stopped by request; none speaks of one that was never started.
    """
    if not container.state.started_at_ns:
        return False
    if container.host_config.restart_policy.name == "always":
        return True
    return wanted(container, container.state.exit_code)


def next_delay(previous_s: float, ran_s: float) -> float:
    """Seconds to wait before the next start.

    Args:
        previous_s: what was waited before the last one, 0 for none.
        ran_s: how long the container ran.
    """
    if not previous_s or ran_s >= GOOD_RUN_S:
        return FIRST_S
    return min(previous_s * 2, LONGEST_S)


def schedule(core: Core, live: Live, ran_s: float) -> None:
    """Start the container again when its back-off has passed; its state says `restarting` from now on."""
    live.backoff_s = next_delay(live.backoff_s, ran_s)
    live.container.restart_count += 1
    live.container.state.status = "restarting"
    again = asyncio.create_task(_start_again(core, live, live.backoff_s), name=f"restart {live.id[:12]}")
    live.restart = core.spawn(again)


async def _start_again(core: Core, live: Live, delay_s: float) -> None:
    await asyncio.sleep(delay_s)
    async with live.lock:
        if live.restart is not asyncio.current_task():
            return  # called off while it waited for the lock
        live.restart = None
        if live.container.host_config.restart_policy.name in ("", "no"):
            _stay_ended(core, live)
            return
        try:
            await starting.start_locked(core, live)
        except (SampanError, OSError) as error:
            _log.error("cannot restart container %s: %s", live.id[:12], error)
            if live.container.state.status == "restarting":
                _stay_ended(core, live)


def call_off(core: Core, live: Live) -> bool:
    """Leave a container ended that was about to be started again; False when it was not."""
    if live.restart is None:
        return False
    live.restart.cancel()
    live.restart = None
    live.container.stopped_by_user = True
    _stay_ended(core, live)
    return True


def _stay_ended(core: Core, live: Live) -> None:
    live.container.state.status = "exited"
    core.write_down(live.container)
    live.tell_ended()
