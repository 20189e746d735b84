"""Health checks: their results in inspect, ps and events, what stops them, and that nothing stays of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cli import Cli
from support.engine import Engine
from support.machine import eventually

Names = Callable[[], str]
QUICK = ("--health-interval", "100ms")


def health(engine: Engine, one: str) -> dict[str, Any]:
    shown: dict[str, Any] = engine.api.inspect(one)["State"]["Health"]
    return shown


def status(cli: Cli, one: str) -> str:
    return cli("ps", "-a", "-f", f"name={one}", "--format", "{{.Status}}").out.strip()


def test_healthy_then_unhealthy_then_healthy(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    begun = time.time()
    cli(
        *("run", "-d", "--name", one, *QUICK, "--health-retries", "2"),
        *("--health-cmd", "echo looked; test ! -e /tmp/ill", busybox, "sleep", "100"),
    )
    assert health(engine, one)["Status"] == "starting"
    assert status(cli, one).endswith("(health: starting)") or status(cli, one).endswith("(healthy)")
    eventually(lambda: health(engine, one)["Status"] == "healthy")
    assert status(cli, one).endswith("(healthy)")
    cli("exec", one, "touch", "/tmp/ill")
    eventually(lambda: health(engine, one)["Status"] == "unhealthy")
    now = health(engine, one)
    assert now["FailingStreak"] >= 2
    assert (now["Log"][-1]["ExitCode"], now["Log"][-1]["Output"]) == (1, "looked\n")
    assert status(cli, one).endswith("(unhealthy)")
    for value in ("unhealthy", "healthy", "none", "starting"):
        found = cli("ps", "-q", "-f", f"health={value}", "-f", f"name={one}").out.strip()
        assert bool(found) is (value == "unhealthy"), value
    assert "health" in cli("ps", "-f", "health=fine", code=1).err
    cli("exec", one, "rm", "/tmp/ill")
    eventually(lambda: health(engine, one)["Status"] == "healthy")
    eventually(lambda: len(health(engine, one)["Log"]) == 5)
    assert health(engine, one)["FailingStreak"] == 0
    lines = cli(
        *("events", "--since", f"{begun:.3f}", "--until", f"{time.time():.3f}", "-f", f"container={one}"),
        *("-f", "event=health_status", "--format", "{{json .}}"),
    ).lines
    actions = [json.loads(line).get("Action") or json.loads(line)["status"] for line in lines]
    assert actions == [f"health_status: {word}" for word in ("healthy", "unhealthy", "healthy")]


def test_a_probe_is_run_as_the_container(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    cli(
        *("run", "-d", "--name", one, *QUICK, "-u", "1000", "-w", "/tmp", "-e", "WORD=ahoy"),
        *("--health-cmd", "echo $(id -u) $PWD $WORD; echo err >&2; exit 7", busybox, "sleep", "100"),
    )
    eventually(lambda: health(engine, one)["Log"])
    probe = health(engine, one)["Log"][0]
    assert (probe["ExitCode"], sorted(probe["Output"].splitlines())) == (7, ["1000 /tmp ahoy", "err"])
    assert probe["Start"] < probe["End"]


def test_output_is_cut_and_a_missing_program_told(engine: Engine, busybox: str, name: Names) -> None:
    long, missing = name(), name()
    docker = engine.docker
    docker("run", "-d", "--name", long, *QUICK, "--health-cmd", "seq 1 100000", busybox, "sleep", "100")
    body = {
        "Image": busybox,
        "Cmd": ["sleep", "100"],
        "Healthcheck": {"Test": ["CMD", "no-such-program"], "Interval": 10**8},
    }
    assert engine.api("POST", f"/containers/create?name={missing}", body).status == 201
    docker("start", missing)
    eventually(lambda: health(engine, long)["Log"] and health(engine, missing)["Log"])
    output = health(engine, long)["Log"][0]["Output"]
    assert output == "".join(f"{n}\n" for n in range(1, 2000))[:4096] + "..."
    probe = health(engine, missing)["Log"][0]
    assert probe["ExitCode"] == -1 and "executable file not found" in probe["Output"]


def processes(engine: Engine, one: str) -> list[str]:
    """Command line, or name and state of a zombie, of all processes in the container's pid namespace."""
    inside = Path(f"/proc/{engine.api.pid(one)}/ns/pid").readlink()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns/pid").readlink() == inside:
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                found.append(words or (process / "stat").read_text())
        except OSError:
            continue
    return found


def test_a_late_probe_leaves_nothing(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    """Process 1 is `sleep`, which never reaps: a zombie would stay."""
    one = name()
    script = "trap '' TERM; (sleep 1001 & sleep 1002 &) ; echo before; sleep 1003"
    cli(
        *("run", "-d", "--name", one, *QUICK, "--health-timeout", "300ms", "--health-retries", "1"),
        *("--health-cmd", script, busybox, "sleep", "100"),
    )
    eventually(lambda: len(health(engine, one)["Log"]) >= 3, timeout=20)
    probe = health(engine, one)["Log"][0]
    assert (probe["ExitCode"], probe["Output"]) == (-1, "Health check exceeded timeout (300ms): before\n")
    assert health(engine, one)["Status"] == "unhealthy"
    cli("pause", one)  # no probe runs, and none is left
    assert processes(engine, one) == ["sleep 100"]
    cli("unpause", one)
    count = len(engine.api.inspect(one)["State"]["Health"]["Log"])
    assert count <= 5


def test_a_probe_in_time_leaves_nothing(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    """What its command leaves behind ends with it, and process 1, which never reaps, hears of none of it."""
    one = name()
    script = "(sleep 1001 & sleep 1002 &) ; sh -c 'true & true &' ; echo fine; exit 0"
    cli(
        *("run", "-d", "--name", one, *QUICK, "--health-timeout", "30s", "--health-retries", "1"),
        *("--health-cmd", script, busybox, "sleep", "100"),
    )
    eventually(lambda: len(health(engine, one)["Log"]) >= 4, timeout=20)
    assert {(probe["ExitCode"], probe["Output"]) for probe in health(engine, one)["Log"]} == {(0, "fine\n")}
    assert health(engine, one)["Status"] == "healthy"
    cli("pause", one)  # no probe runs, and none is left
    assert processes(engine, one) == ["sleep 100"]


def test_pause_and_stop_end_the_checks(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "-d", "--name", one, *QUICK, "--health-cmd", "true", busybox, "sleep", "100")
    eventually(lambda: health(engine, one)["Status"] == "healthy")
    cli("pause", one)
    last = health(engine, one)["Log"][-1]["End"]
    time.sleep(0.4)
    assert health(engine, one)["Log"][-1]["End"] == last
    cli("unpause", one)
    eventually(lambda: health(engine, one)["Log"][-1]["End"] != last)
    eventually(lambda: health(engine, one)["Status"] == "healthy")
    cli("stop", "-t", "0", one)
    last = health(engine, one)["Log"][-1]["End"]
    time.sleep(0.3)
    assert health(engine, one)["Log"][-1]["End"] == last
    cli("start", one)
    assert health(engine, one)["Status"] in ("starting", "healthy")
    eventually(lambda: health(engine, one)["Status"] == "healthy")


@pytest.mark.release28
def test_the_start_period(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    cli(
        *("run", "-d", "--name", one, "--health-interval", "1h", "--health-start-period", "1h"),
        *("--health-start-interval", "100ms", "--health-retries", "1"),
        *("--health-cmd", "test -e /tmp/up", busybox, "sleep", "100"),
    )
    eventually(lambda: len(health(engine, one)["Log"]) >= 3)
    assert (health(engine, one)["Status"], health(engine, one)["FailingStreak"]) == ("starting", 0)
    cli("exec", one, "touch", "/tmp/up")
    eventually(lambda: health(engine, one)["Status"] == "healthy")


def test_the_images_own(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    image, source = f"{name()}-image", name()
    cli("create", "--name", source, busybox, "sleep", "100")
    cli("commit", "--change", 'HEALTHCHECK --interval=100ms CMD ["echo", "from the image"]', source, image)
    try:
        plain, more, none = name(), name(), name()
        cli("run", "-d", "--name", plain, image)
        eventually(lambda: health(engine, plain)["Status"] == "healthy")
        assert health(engine, plain)["Log"][0]["Output"] == "from the image\n"
        cli("run", "-d", "--name", more, "--health-retries", "7", image)
        shown = engine.api.inspect(more)["Config"]["Healthcheck"]
        assert shown == {"Test": ["CMD", "echo", "from the image"], "Interval": 10**8, "Retries": 7}
        cli("run", "-d", "--name", none, "--no-healthcheck", image)
        assert "Health" not in engine.api.inspect(none)["State"]
        assert cli("ps", "-q", "-f", "health=none", "-f", f"name={none}").out.strip()
    finally:
        for one in (source, plain, more, none):
            engine.api.remove(one)
        cli("rmi", image)


def test_what_is_refused(cli: Cli, busybox: str, name: Names) -> None:
    def refused(*flags: str) -> str:
        done = cli("create", "--name", name(), *flags, busybox, "true", code=None)
        assert done.code != 0
        return done.err

    assert "--no-healthcheck conflicts" in refused("--no-healthcheck", "--health-cmd", "true")
    assert "cannot be negative" in refused("--health-cmd", "true", "--health-interval", "-1s")
    assert "Interval in Healthcheck cannot be less than 1ms" in refused(
        "--health-cmd", "true", "--health-interval", "10us"
    )


@pytest.mark.parametrize(
    ("action", "ended"), [("none", False), ("kill", True), ("stop", True), ("restart", False)]
)
def test_on_failure(engine: Engine, busybox: str, name: Names, action: str, ended: bool) -> None:
    one = name()
    engine.sampan(
        *("run", "-d", "--name", one, *QUICK, "--health-retries", "2", "--health-on-failure", action),
        *(
            "--stop-timeout",
            "0",
            "--health-cmd",
            "test ! -e /tmp/ill",
            busybox,
            "sh",
            "-c",
            "rm -f /tmp/ill; exec sleep 100",
        ),
    )
    assert engine.api.inspect(one)["Config"]["HealthcheckOnFailureAction"] == action
    eventually(lambda: health(engine, one)["Status"] == "healthy")
    pid = engine.api.pid(one)
    engine.docker("exec", one, "touch", "/tmp/ill")
    if ended:
        eventually(lambda: engine.api.inspect(one)["State"]["Status"] == "exited")
    elif action == "none":
        eventually(lambda: health(engine, one)["Status"] == "unhealthy")
        time.sleep(0.3)
        assert engine.api.pid(one) == pid
    else:
        eventually(lambda: engine.api.inspect(one)["State"]["Pid"] not in (0, pid))
        eventually(lambda: health(engine, one)["Status"] == "healthy")


def test_on_failure_does_not_bring_back_what_is_being_stopped(
    engine: Engine, busybox: str, name: Names
) -> None:
    one = name()
    script = "trap 'touch /tmp/ill' TERM; while :; do sleep 0.05; done"
    engine.sampan(
        *("run", "-d", "--name", one, *QUICK, "--health-retries", "1", "--health-on-failure", "restart"),
        *("--stop-timeout", "1", "--health-cmd", "test ! -e /tmp/ill", busybox, "sh", "-c", script),
    )
    eventually(lambda: health(engine, one)["Status"] == "healthy")
    begun = time.time()
    engine.docker("stop", "-t", "3", one)
    time.sleep(0.3)
    shown = engine.api.inspect(one)["State"]
    assert (shown["Status"], shown["ExitCode"]) == ("exited", 137)
    assert time.time() - begun > 3
    assert health(engine, one)["FailingStreak"] >= 1


def test_on_failure_is_refused_without_a_check(engine: Engine, busybox: str, name: Names) -> None:
    sampan, one = engine.sampan, name()
    assert (
        "has no health check"
        in sampan("create", "--name", one, "--health-on-failure", "kill", busybox, code=None).err
    )
    assert (
        "none, kill, restart, stop"
        in sampan(
            "create", "--name", one, "--health-cmd", "x", "--health-on-failure", "pray", busybox, code=None
        ).err
    )


def test_many_probes_at_once(engine: Engine, busybox: str, name: Names) -> None:
    """Six containers, probed all the time; process 1 never reaps."""
    ones = [name() for _ in range(6)]
    for one in ones:
        engine.docker(
            "run", "-d", "--name", one, *QUICK, "--health-cmd", "true | cat", busybox, "sleep", "100"
        )
    for one in ones:
        eventually(lambda one=one: len(health(engine, one)["Log"]) == 5, timeout=30)
        assert {probe["ExitCode"] for probe in health(engine, one)["Log"]} == {0}
    for one in ones:
        engine.docker("pause", one)
        assert processes(engine, one) == ["sleep 100"]
