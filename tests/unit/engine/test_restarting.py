"""Restart policies as decisions: who, when, and who at the start of a daemon."""

from __future__ import annotations

import pytest

from sampan.engine import restarting
from sampan.engine.model import Container, ContainerConfig, HostConfig, RestartPolicy


def container(policy: str, most: int = 0, count: int = 0, stopped: bool = False, code: int = 1) -> Container:
    one = Container("x" * 64, "one", 1, "sha256:0", ContainerConfig(), HostConfig())
    one.host_config.restart_policy = RestartPolicy(policy, most)
    one.restart_count, one.stopped_by_user = count, stopped
    one.state.status, one.state.started_at_ns, one.state.exit_code = "exited", 1, code
    return one


def test_the_back_off_doubles_up_to_a_minute_and_is_forgotten() -> None:
    delays, last = [], 0.0
    for _ in range(12):
        last = restarting.next_delay(last, 0.5)
        delays.append(last)
    assert delays[:5] == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert delays[9] == pytest.approx(51.2)
    assert delays[10:] == [60.0, 60.0]
    assert restarting.next_delay(60.0, 9.9) == 60.0
    assert restarting.next_delay(60.0, 10.0) == 0.1


@pytest.mark.parametrize(
    ("one", "code", "wanted"),
    [
        (container("no"), 1, False),
        (container(""), 1, False),
        (container("always"), 0, True),
        (container("unless-stopped"), 0, True),
        (container("on-failure"), 0, False),
        (container("on-failure", count=1000), 1, True),
        (container("on-failure", 3, 2), 1, True),
        (container("on-failure", 3, 3), 1, False),
        (container("always", stopped=True), 137, False),
        (container("unless-stopped", stopped=True), 137, False),
        (container("on-failure", stopped=True), 137, False),
    ],
)
def test_who_is_started_again(one: Container, code: int, wanted: bool) -> None:
    assert restarting.wanted(one, code) is wanted


@pytest.mark.parametrize(
    ("one", "wanted"),
    [
        (container("no"), False),
        (container("always", stopped=True), True),
        (container("unless-stopped"), True),
        (container("unless-stopped", stopped=True), False),
        (container("on-failure", code=255), True),
        (container("on-failure", code=0), False),
        (container("on-failure", stopped=True), False),
        (container("on-failure", 2, 2), False),
    ],
)
def test_whom_a_daemon_that_comes_up_starts(one: Container, wanted: bool) -> None:
    assert restarting.wanted_at_start(one) is wanted
    one.state.status, one.state.started_at_ns = "created", 0
    assert restarting.wanted_at_start(one) is False
