"""A container's states and those who wait for its end."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from sampan.api.shapes.containers import status_text
from sampan.engine import ending, starting
from sampan.engine.core import Core, Live, check_not_removing, check_not_restarting
from sampan.engine.errors import RemovalInProgress, Restarting
from sampan.engine.model import Container, ContainerConfig, Health, HostConfig
from sampan.errors import Conflict

NO_CORE = cast("Core", None)


def live(status: str, code: int = 0) -> Live:
    one = Container("x" * 64, "one", 1, "sha256:0", ContainerConfig(), HostConfig())
    one.state.status, one.state.exit_code, one.state.started_at_ns = status, code, 1
    return Live(one)


def in_loop(check: Any) -> None:
    asyncio.run(check())


def test_a_removal() -> None:
    async def check() -> None:
        one = live("exited")
        one.begin_removal()
        assert one.status == "removing"
        assert status_text(one.container.state, one.removing) == "Removal In Progress"
        with pytest.raises(RemovalInProgress):
            check_not_removing(one)
        with pytest.raises(Conflict, match="marked for removal and cannot be started"):
            await starting.start(NO_CORE, one)
        waiting = one.removal
        one.end_removal()
        assert waiting is not None and waiting.done()
        assert one.status == "exited"
        check_not_removing(one)
        running = live("running")
        running.begin_removal()
        assert running.status == "running"

    in_loop(check)


def test_what_cannot_be_done_while_it_restarts() -> None:
    async def check() -> None:
        one = live("restarting")
        with pytest.raises(Restarting, match="is restarting, wait until the container is running"):
            check_not_restarting(one)
        with pytest.raises(Restarting):
            starting.require_running(one)

    in_loop(check)


@pytest.mark.parametrize("status", ["running", "paused", "restarting"])
def test_several_wait_for_one_end(status: str) -> None:
    """Each gets the code of the end that it waited for, though another run has begun before it is told."""

    async def check() -> None:
        one = live(status)
        waiting = [ending.wait(one, "not-running"), ending.wait(one, "next-exit")]
        one.container.state.exit_code = 7
        one.tell_ended()
        one.container.state.status, one.container.state.exit_code = "running", 0
        assert [await each for each in waiting] == [7, 7]

    in_loop(check)


def test_one_that_stops_waiting_does_not_disturb_the_others() -> None:
    async def check() -> None:
        one = live("running")
        tasks = [asyncio.ensure_future(ending.wait(one, "next-exit")) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        one.container.state.exit_code = 3
        one.tell_ended()
        assert tasks[1].cancelled()
        assert (await tasks[0], await tasks[2]) == (3, 3)

    in_loop(check)


@pytest.mark.parametrize("status", ["created", "exited"])
def test_not_running_is_true_at_once(status: str) -> None:
    async def check() -> None:
        one = live(status, code=5)
        assert await ending.wait(one, "not-running") == 5
        next_exit = asyncio.ensure_future(ending.wait(one, "next-exit"))
        removed = asyncio.ensure_future(ending.wait(one, "removed"))
        await asyncio.sleep(0.01)
        assert not next_exit.done() and not removed.done()
        one.removed.set()
        one.tell_ended()
        assert (await next_exit, await removed) == (5, 5)

    in_loop(check)


def test_the_status_column() -> None:
    async def check() -> None:
        one = live("running").container.state
        one.health = Health()
        assert status_text(one).endswith(" (health: starting)")
        one.health.status = "unhealthy"
        assert status_text(one).endswith(" (unhealthy)")
        one.status = "paused"
        assert status_text(one).endswith(" (Paused)")
        one.status, one.exit_code = "restarting", 9
        assert status_text(one).startswith("Restarting (9) ")

    in_loop(check)
