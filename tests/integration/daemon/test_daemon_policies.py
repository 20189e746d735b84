"""Restart policies, probes and removals through the end, the death and the reboot of a daemon."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.engine import Daemon
from support.machine import alive, eventually, mounts, status_field

POLICIES = ("no", "on-failure", "always", "unless-stopped")
LEAVE = {"SIGTERM": Daemon.stop, "SIGKILL": Daemon.kill9}


def state(own: Daemon, one: str) -> dict[str, Any]:
    shown: dict[str, Any] = own.api.inspect(one)["State"]
    return shown


def run(own: Daemon, name: str, policy: str, *words: str, flags: tuple[str, ...] = ()) -> None:
    own.docker("run", "-d", "--name", name, "--restart", policy, *flags, own.busybox, *words)


@pytest.mark.parametrize("leave", LEAVE)
def test_in_the_middle_of_a_back_off(own: Daemon, leave: str) -> None:
    run(own, "loops", "always", "false")
    run(own, "counted", "on-failure:6", "false")
    run(own, "stopped", "always", "false")
    eventually(lambda: own.api.inspect("loops")["RestartCount"] >= 4)
    own.docker("stop", "stopped")
    eventually(lambda: state(own, "counted")["Restarting"] and own.api.inspect("counted")["RestartCount"] > 3)
    begun = time.monotonic()
    LEAVE[leave](own)
    assert time.monotonic() - begun < 5
    own.start()
    eventually(lambda: state(own, "counted")["Status"] == "exited", timeout=20)
    assert own.api.inspect("counted")["RestartCount"] == 6
    eventually(lambda: state(own, "loops")["Restarting"])
    # `always` says so: what was stopped is started by a daemon that comes up
    eventually(lambda: own.api.inspect("stopped")["RestartCount"] >= 1)


def simulate_reboot(own: Daemon) -> None:
    """All processes gone, nothing mounted, and the exec root, a tmpfs, empty."""
    pids = [own.api.pid(container["Id"]) for container in own.api.get("/containers/json")]
    monitors = [int(status_field(pid, "PPid").split()[0]) for pid in pids]
    own.kill9()
    for pid in (*monitors, *pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(map(alive, (*monitors, *pids))))
    for point in reversed(mounts(str(own.base))):
        subprocess.run(["umount", "-l", point], check=True)
    shutil.rmtree(own.exec_root)


@pytest.mark.parametrize("how", ["reboot", "SIGTERM", "SIGKILL", "shutdown"])
def test_who_is_there_afterwards(make_daemon: Callable[..., Daemon], how: str) -> None:
    own = make_daemon(*(["--shutdown-containers"] if how == "shutdown" else [])).start()
    assert own.busybox
    trap = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done")
    for policy in POLICIES:
        run(own, f"{policy}-runs", policy, *trap)
        run(own, f"{policy}-stopped", policy, *trap)
        own.docker("create", "--name", f"{policy}-created", "--restart", policy, own.busybox, *trap)
    own.docker("run", "-d", "--rm", "--name", "rm-runs", own.busybox, *trap)
    own.docker("stop", *(f"{policy}-stopped" for policy in POLICIES))
    pids = {f"{policy}-runs": own.api.pid(f"{policy}-runs") for policy in POLICIES}
    if how == "reboot":
        simulate_reboot(own)
    elif how == "SIGKILL":
        own.kill9()
    else:
        own.stop()
    own.start()
    running = {container["Names"][0][1:] for container in own.api.get("/containers/json")}
    if how in ("SIGTERM", "SIGKILL"):
        assert running == {*(f"{policy}-runs" for policy in POLICIES), "always-stopped", "rm-runs"}
        assert {name: own.api.pid(name) for name in pids} == pids
    elif how == "reboot":
        assert running == {"on-failure-runs", "always-runs", "unless-stopped-runs", "always-stopped"}
        assert own.api("GET", "/containers/rm-runs/json").status == 404
        ended = state(own, "no-runs")
        assert (ended["Status"], ended["ExitCode"] != 0) == ("exited", True)
    else:  # they ended well, on SIGTERM
        assert running == {"always-runs", "unless-stopped-runs", "always-stopped"}
        assert state(own, "on-failure-runs")["ExitCode"] == 0
    for policy in POLICIES:
        assert state(own, f"{policy}-created")["Status"] == "created"
    own.end()


def test_a_stop_that_the_daemon_did_not_outlive(own: Daemon) -> None:
    """Whoever asked for the end is remembered, also when it comes while no daemon is there."""
    run(
        own,
        "slow",
        "unless-stopped",
        "sh",
        "-c",
        "trap 'sleep 1.5; exit 3' TERM; while :; do sleep 0.05; done",
    )
    time.sleep(0.3)
    with own.docker.start("stop", "-t", "30", "slow"):
        time.sleep(0.5)
        own.kill9()
    time.sleep(1.8)
    own.start()
    time.sleep(0.5)
    assert (state(own, "slow")["Status"], state(own, "slow")["ExitCode"]) == ("exited", 3)


def test_a_forced_removal_that_the_daemon_did_not_outlive(own: Daemon) -> None:
    """What it wrote down before it killed the container, is done by the next one."""
    run(own, "going", "always", "sleep", "100")
    pid = own.api.pid("going")
    own.kill9()
    with contextlib.closing(sqlite3.connect(own.data_root / "sampan.db")) as database, database:
        (document,) = database.execute("SELECT document FROM containers").fetchone()
        assert json.loads(document)["ToBeRemoved"] is False
        database.execute("UPDATE containers SET document = json_set(document, '$.ToBeRemoved', json('true'))")
    own.start()
    assert own.api.containers() == []
    assert not alive(pid)


def test_kills_in_the_middle_of_forced_removals(own: Daemon) -> None:
    for number in range(6):
        name = f"going-{number}"
        run(own, name, "always", "sleep", "100")
        pid = own.api.pid(name)
        removing = threading.Thread(target=_try_to_remove, args=(own, name))
        removing.start()
        time.sleep(0.004 * number)
        own.kill9()
        removing.join()
        own.start()
        if own.api("GET", f"/containers/{name}/json").status == 200:  # the request had not been read
            assert own.api.pid(name) == pid
            own.api.remove(name)
        assert not alive(pid)
        own.docker("create", "--name", name, own.busybox)


def _try_to_remove(own: Daemon, name: str) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        own.api.remove(name)


def health(own: Daemon, one: str) -> dict[str, Any]:
    shown: dict[str, Any] = state(own, one)["Health"]
    return shown


@pytest.mark.parametrize("leave", LEAVE)
def test_health_goes_on(own: Daemon, leave: str) -> None:
    check = ("--health-interval", "200ms", "--health-retries", "3", "--health-cmd", "test ! -e /tmp/ill")
    own.docker("run", "-d", "--name", "one", *check, own.busybox, "sleep", "100")
    eventually(lambda: len(health(own, "one")["Log"]) >= 3)
    before = health(own, "one")
    LEAVE[leave](own)
    own.start()
    after = health(own, "one")
    assert after["Status"] == "healthy"
    assert [probe["End"] for probe in before["Log"]][-2:] == [
        probe["End"] for probe in after["Log"] if probe["End"] <= before["Log"][-1]["End"]
    ][-2:]
    own.docker("exec", "one", "touch", "/tmp/ill")
    eventually(lambda: health(own, "one")["Status"] == "unhealthy")


def inside(own: Daemon, one: str) -> list[str]:
    """Command lines of the container's processes, zombies included."""
    namespace = Path(f"/proc/{own.api.pid(one)}/ns/pid").readlink()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns/pid").readlink() == namespace:
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                found.append(words or (process / "stat").read_text())
        except OSError:
            continue
    return found


@pytest.mark.parametrize("leave", LEAVE)
def test_in_the_middle_of_a_probe(own: Daemon, leave: str) -> None:
    """It is ended by the daemon that leaves, or else by its monitor; process 1 reaps nobody."""
    check = ("--health-interval", "300ms", "--health-timeout", "1s", "--health-retries", "1")
    own.docker(
        *("run", "-d", "--name", "one", *check, "--health-cmd", "sleep 1000 & sleep 1001"),
        *(own.busybox, "sleep", "100"),
    )
    eventually(lambda: any("1001" in words for words in inside(own, "one")))
    LEAVE[leave](own)
    own.start()
    eventually(lambda: health(own, "one")["Status"] == "unhealthy")
    own.docker("pause", "one")
    eventually(lambda: inside(own, "one") == ["sleep 100"], what=str(inside(own, "one")))


def test_a_joined_network_comes_back_after_a_reboot(own: Daemon) -> None:
    run(own, "first", "always", "sleep", "100")
    run(own, "second", "always", "sleep", "100", flags=("--network", "container:first"))
    simulate_reboot(own)
    own.start()
    one, two = (own.api.pid(name) for name in ("first", "second"))
    assert Path(f"/proc/{one}/ns/net").readlink() == Path(f"/proc/{two}/ns/net").readlink()


def test_starts_and_removals_in_a_storm(own: Daemon) -> None:
    """Several clients remove what restarts by force at once; a name is free when one returns."""
    failures: list[str] = []

    def worker(number: int) -> None:
        for round_ in range(6):
            name = f"storm-{number}"
            done = own.docker(
                *("run", "-d", "--restart", "always", "--name", name, own.busybox),
                *(("false",) if round_ % 2 else ("sleep", "100")),
                code=None,
            )
            if done.code:
                failures.append(done.err)
            removals = [threading.Thread(target=own.api.remove, args=(name,)) for _ in range(2)]
            for thread in removals:
                thread.start()
            answer = own.api("DELETE", f"/containers/{name}?force=1")
            if answer.status not in (204, 404):
                failures.append(f"{answer.status} {answer.body!r}")
            for thread in removals:
                thread.join()

    workers = [threading.Thread(target=worker, args=(number,)) for number in range(4)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    assert failures == []
    assert own.api.containers() == []
