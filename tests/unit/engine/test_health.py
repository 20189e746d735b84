"""Health checks as decisions: what a result means, when the next probe is, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.engine import health, probes
from sampan.engine.model import Container, ContainerConfig, Health, HostConfig, Probe
from sampan.errors import InvalidParameter
from sampan.oci.image import Healthcheck

S = 10**9


def container(check: Healthcheck, on_failure: str | None = None) -> Container:
    config = ContainerConfig(healthcheck=check, health_on_failure=on_failure)
    one = Container("x" * 64, "one", 1, "sha256:0", config, HostConfig())
    one.state.status, one.state.started_at_ns, one.state.health = "running", 100 * S, Health()
    return one


def after(one: Container, *results: tuple[int, float]) -> list[tuple[str, int]]:
    """Status and streak after each probe, given as exit code and seconds since the start."""
    seen = []
    for code, at_s in results:
        health.record(one, Probe(100 * S + int(at_s * S), 100 * S + int(at_s * S), code, ""))
        assert one.state.health is not None
        seen.append((one.state.health.status, one.state.health.failing_streak))
    return seen


def test_three_failures_in_a_row() -> None:
    one = container(Healthcheck(test=["CMD", "x"]))
    assert after(one, (1, 1), (-1, 2), (0, 3), (1, 4), (2, 5), (1, 6), (0, 7)) == [
        ("starting", 1), ("starting", 2), ("healthy", 0), ("healthy", 1), ("healthy", 2), ("unhealthy", 3),
        ("healthy", 0),
    ]  # fmt: skip
    assert one.state.health is not None
    assert [probe.exit_code for probe in one.state.health.log] == [0, 1, 2, 1, 0]


def test_failures_in_the_start_period_do_not_count_until_it_was_healthy() -> None:
    check = Healthcheck(test=["CMD", "x"], start_period=10 * S, retries=1)
    assert after(container(check), (1, 1), (1, 9.9), (1, 10)) == [
        ("starting", 0), ("starting", 0), ("unhealthy", 1),
    ]  # fmt: skip
    assert after(container(check), (0, 1), (1, 2)) == [("healthy", 0), ("unhealthy", 1)]


@pytest.mark.parametrize(("action", "acts"), [(None, False), ("none", False), ("kill", True)])
def test_when_something_is_to_be_done(action: str | None, acts: bool) -> None:
    one = container(Healthcheck(test=["CMD", "x"], retries=2), action)
    assert health.record(one, Probe(exit_code=1)) is False
    assert health.record(one, Probe(exit_code=1)) is acts
    assert health.record(one, Probe(exit_code=0)) is False


def next_probe(one: Container, now_s: float) -> float:
    return health.seconds_to_next(one, int(now_s * S))


def test_when_the_next_probe_is() -> None:
    plain = container(Healthcheck(test=["CMD", "x"]))
    assert next_probe(plain, 100) == pytest.approx(30)
    assert next_probe(plain, 110) == pytest.approx(20)  # a daemon that has come up in between
    after(plain, (0, 30))
    assert next_probe(plain, 131) == pytest.approx(29)
    assert next_probe(plain, 500) == 0
    assert next_probe(plain, 10) == pytest.approx(30)  # the clock was set back
    slow = container(
        Healthcheck(test=["CMD", "x"], interval=60 * S, start_period=20 * S, start_interval=2 * S)
    )
    assert next_probe(slow, 100) == pytest.approx(2)
    after(slow, (1, 2))
    assert next_probe(slow, 102) == pytest.approx(2)
    assert next_probe(slow, 121) == pytest.approx(41)
    after(slow, (0, 4))
    assert next_probe(slow, 104) == pytest.approx(60)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"test": ["CMD", "x"], "interval": -1}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"test": ["CMD", "x"], "timeout": 999_999}, "Timeout in Healthcheck cannot be less than 1ms"),
        ({"start_period": 1}, "StartPeriod in Healthcheck"),
        ({"start_interval": 1}, "StartInterval in Healthcheck"),
        ({"retries": -1}, "Retries in Healthcheck cannot be negative"),
        ({"test": ["RUN", "x"]}, "'RUN'"),
        ({"test": ["CMD"]}, "no command after CMD"),
        ({"test": ["CMD-SHELL", ""]}, "no command after CMD-SHELL"),
        ({"test": ["NONE", "x"]}, "must be NONE"),
    ],
)
def test_what_is_refused(members: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidParameter, match=text):
        health.check(Healthcheck(**members), None)


def test_what_is_taken() -> None:
    health.check(None, None)
    health.check(Healthcheck(test=["NONE"]), "none")
    health.check(Healthcheck(test=["CMD-SHELL", "x"], interval=1_000_000, retries=1), "restart")
    for check in (None, Healthcheck(test=["NONE"])):
        with pytest.raises(InvalidParameter, match="has no health check"):
            health.check(check, "stop")


def test_what_the_image_adds() -> None:
    image = Healthcheck(["CMD", "image"], 1, 2, 3, 4, 5)
    assert health.merge(None, image) == image
    assert health.merge(Healthcheck(retries=9), image) == Healthcheck(["CMD", "image"], 1, 2, 3, 4, 9)
    assert health.merge(Healthcheck(["NONE"]), image) == Healthcheck(["NONE"], 1, 2, 3, 4, 5)
    assert health.merge(Healthcheck(["CMD", "own"]), None) == Healthcheck(["CMD", "own"])


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.3, "300ms"), (1, "1s"), (1.5, "1.5s"), (90, "1m30s"), (3600, "1h0m0s")]
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert probes.duration(seconds) == text
