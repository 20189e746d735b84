"""Health checks: a command run in the container again and again, and what follows from its exit codes.

As `HEALTHCHECK` of the Dockerfile reference and `docker run --health-cmd` have it; `probes` runs one. What to
do with a container that has turned unhealthy (`--health-on-failure`) is podman's.
"""

from __future__ import annotations

import asyncio
import logging
import time

from sampan.engine import ending
from sampan.engine.core import Core, Live
from sampan.engine.model import Container, Health, Probe
from sampan.engine.probes import run_probe
from sampan.errors import InvalidParameter, SampanError
from sampan.oci.image import Healthcheck

INTERVAL_S = 30.0
TIMEOUT_S = 30.0
START_INTERVAL_S = 5.0
RETRIES = 3
KEPT_PROBES = 5
ACTIONS = ("none", "kill", "restart", "stop")
_LONGEST_S = 366 * 86400.0
_HALT_S = 5.0
_log = logging.getLogger("sampan.engine")


# --- the configuration ---


def check(health: Healthcheck | None, on_failure: str | None) -> None:
    """Refuse a health check that cannot be.

    Raises:
        InvalidParameter.
    """
    if on_failure is not None and on_failure not in ACTIONS:
        raise InvalidParameter(
            f"invalid health-on-failure action {on_failure!r}: use one of {', '.join(ACTIONS)}"
        )
    if on_failure not in (None, "none") and _words(health) is None:
        raise InvalidParameter(
            f"cannot set the health-on-failure action to {on_failure}: the container has no health check"
        )
    if health is None:
        return
    for name, value in (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ):
        if value != 0 and value < 1_000_000:
            raise InvalidParameter(f"{name} in Healthcheck cannot be less than 1ms")
    if health.retries < 0:
        raise InvalidParameter("Retries in Healthcheck cannot be negative")
    if not health.test or health.test == ["NONE"]:
        return
    if health.test[0] not in ("CMD", "CMD-SHELL"):
        raise InvalidParameter(
            f"Test in Healthcheck must be NONE, or begin with CMD or CMD-SHELL, not {health.test[0]!r}"
        )
    if not any(health.test[1:]):
        raise InvalidParameter(f"Test in Healthcheck has no command after {health.test[0]}")


def merge(own: Healthcheck | None, image: Healthcheck | None) -> Healthcheck | None:
    """The container's health check, completed from its image's."""
    if own is None or image is None:
        return own or image
    return Healthcheck(
        test=own.test or image.test,
        interval=own.interval or image.interval,
        timeout=own.timeout or image.timeout,
        start_period=own.start_period or image.start_period,
        start_interval=own.start_interval or image.start_interval,
        retries=own.retries or image.retries,
    )


def _words(health: Healthcheck | None, shell: list[str] | None = None) -> list[str] | None:
    """The command line of a probe; None when there is none."""
    if health is None or not health.test or health.test[0] == "NONE":
        return None
    if health.test[0] == "CMD-SHELL":
        return [*(shell or ["/bin/sh", "-c"]), *health.test[1:]]
    return health.test[1:]


def _seconds(nanoseconds: int, default: float) -> float:
    return min(nanoseconds / 1e9, _LONGEST_S) if nanoseconds else default


def status(container: Container) -> str:
    """What filters and lists call it: starting, healthy, unhealthy, or none without a health check."""
    return container.state.health.status if container.state.health is not None else "none"


# --- the checks ---


class Monitor:
    """Runs the checks of one run of a container, until it is told to stop."""

    def __init__(self, core: Core, live: Live, words: list[str]) -> None:
        self._core = core
        self._live = live
        self._words = words
        self.stopping = asyncio.Event()
        self.task = core.spawn(asyncio.create_task(self._run(), name=f"watch health {live.id[:12]}"))

    async def _run(self) -> None:
        live, container = self._live, self._live.container
        check_ = container.config.healthcheck
        assert check_ is not None
        timeout_s = _seconds(check_.timeout, TIMEOUT_S)
        while not await self._stopped_within(seconds_to_next(container, time.time_ns())):
            probe = Probe(start_ns=time.time_ns())
            self._core.metrics.health_checks += 1
            try:
                probe.exit_code, probe.output = await run_probe(
                    self._core, live, self._words, timeout_s, self.stopping
                )
            except (SampanError, OSError) as error:
                probe.exit_code, probe.output = -1, str(error)
                self._core.metrics.health_checks_failed += 1
            probe.end_ns = time.time_ns()
            if self.stopping.is_set() or not container.state.running:
                return
            before = status(container)
            acts = record(container, probe)
            self._core.write_down(container)
            after = status(container)
            if before != after:
                self._core.publish(live, f"health_status: {after}")
            if acts:
                act = asyncio.create_task(_act(self._core, live), name=f"watch unhealthy {live.id[:12]}")
                self._core.spawn(act)
                return

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return False
        return True


def seconds_to_next(container: Container, now_ns: int) -> float:
    """How long to wait for the next probe: an interval after the last one's end, or after the start."""
    check_, health = container.config.healthcheck, container.state.health
    started_ns = container.state.started_at_ns
    assert check_ is not None and health is not None
    interval_s = _seconds(check_.interval, INTERVAL_S)
    period_s = _seconds(check_.start_period, 0.0)
    if health.status == "starting" and (now_ns - started_ns) / 1e9 < period_s:
        interval_s = _seconds(check_.start_interval, START_INTERVAL_S)
    last_ns = max([started_ns, *(probe.end_ns for probe in health.log)])
    return min(max(0.0, last_ns / 1e9 + interval_s - now_ns / 1e9), interval_s)


def record(container: Container, probe: Probe) -> bool:
    """Take a probe's result down; whether it says that something is to be done about the container."""
    check_, health = container.config.healthcheck, container.state.health
    assert check_ is not None and health is not None
    health.log = [*health.log, probe][-KEPT_PROBES:]
    if probe.exit_code == 0:
        health.failing_streak = 0
        health.status = "healthy"
        return False
    since_start_s = (probe.start_ns - container.state.started_at_ns) / 1e9
    period_s = _seconds(check_.start_period, 0.0)
    if health.status == "starting" and period_s and since_start_s < period_s:
        return False
    health.failing_streak += 1
    if health.failing_streak < (check_.retries or RETRIES):
        return False
    health.status = "unhealthy"
    return container.config.health_on_failure not in (None, "none")


async def _act(core: Core, live: Live) -> None:
    """What `--health-on-failure` asks for."""
    action = live.container.config.health_on_failure
    if live.container.stopped_by_user:
        return  # it is ending as it is, and not to come back
    _log.info("container %s is unhealthy: %s", live.id[:12], action)
    try:
        if action == "kill":
            await ending.kill(core, live)
        elif action == "stop":
            await ending.stop(core, live)
        elif action == "restart":
            await ending.restart(core, live)
    except (SampanError, OSError) as error:
        _log.error("%s of the unhealthy container %s: %s", action, live.id[:12], error)


# --- when they run ---


def reset(live: Live) -> None:
    """A new run begins: nothing is known of its health yet. What earlier probes said stays readable."""
    container = live.container
    if _words(container.config.healthcheck) is None:
        container.state.health = None
        return
    log = container.state.health.log if container.state.health is not None else []
    container.state.health = Health(log=log)


def begin(core: Core, live: Live) -> None:
    """Start to check a running container that has a health check; also one that an earlier daemon started."""
    container = live.container
    words = _words(container.config.healthcheck, container.config.shell)
    if words is None or live.health is not None or container.state.status != "running":
        return
    if container.state.health is None:
        container.state.health = Health()
    live.health = Monitor(core, live, words)


def drop(live: Live) -> None:
    """The container has ended, and with it the probe that may have been running."""
    monitor, live.health = live.health, None
    if monitor is not None:
        monitor.stopping.set()
        if live.container.state.health is not None:
            live.container.state.health.status = "unhealthy"  # as Docker says of what is checked no more


async def halt(live: Live) -> None:
    """Stop checking, and wait until no probe is left; not for one that the kernel cannot end."""
    monitor = live.health
    drop(live)
    if monitor is not None:
        await asyncio.wait([monitor.task], timeout=_HALT_S)


async def leave(core: Core) -> None:
    """The daemon ends: stop checking everywhere, and leave what is known to the next one."""
    monitors = [live.health for live in core.containers.values() if live.health is not None]
    for monitor in monitors:
        monitor.stopping.set()
    if monitors:
        await asyncio.wait([monitor.task for monitor in monitors], timeout=_HALT_S)
