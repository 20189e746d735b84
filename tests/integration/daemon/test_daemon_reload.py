"""Reloading with SIGHUP, the daemon's log, debug pages and metrics, as an administrator meets them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from support.engine import SOURCE, Daemon
from support.machine import eventually

Maker = Callable[..., Daemon]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def own(make_daemon: Maker, port: int) -> Iterator[Daemon]:
    daemon = make_daemon("--metrics-addr", f"127.0.0.1:{port}", "--log-format", "json")
    daemon.arguments = [word for word in daemon.arguments if word not in ("--log-level", "debug")]
    yield daemon.start()
    daemon.end()


def write(own: Daemon, text: str) -> None:
    (own.base / "daemon.json").write_text(text)


def hang_up(own: Daemon, said: str) -> None:
    """SIGHUP, and wait for the log's line about it."""
    before = len(own.log_text())
    os.kill(own.pid, signal.SIGHUP)
    eventually(lambda: said in own.log_text()[before:], what=f"the log says {said!r}")


def scrape(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    samples = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            found = re.fullmatch(r"([a-z_]+(?:\{.*\})?) (\S+)", line)
            assert found, line
            assert found[1] not in samples
            samples[found[1]] = float(found[2])
    return samples


def test_reload(own: Daemon) -> None:
    with own.docker.start("events", "--filter", "type=daemon", "--format", "{{json .}}") as listening:
        eventually(lambda: own.api.get("/info")["NEventsListener"] == 1, what="docker listens")
        write(own, '{"labels": ["tier=test"], "registry-mirrors": ["https://mirror.example"], "debug": true}')
        hang_up(own, "reloaded")
        assert listening.stdout is not None
        event = json.loads(listening.stdout.readline())
        listening.terminate()
    assert (event["Type"], event["Action"]) == ("daemon", "reload")
    assert event["Actor"]["ID"] == own.api.get("/info")["ID"]
    assert event["Actor"]["Attributes"]["labels"] == '["tier=test"]'
    info = own.api.get("/info")
    assert (info["Labels"], info["Debug"]) == (["tier=test"], True)
    assert info["RegistryConfig"]["Mirrors"] == ["https://mirror.example/"]
    for broken in ("{ no json", '{"labels": ["x"]}', '{"no-such": 1}', "[]"):
        write(own, broken)
        hang_up(own, "the configuration is kept as it was")
        assert own.api.get("/info")["Labels"] == ["tier=test"]
    write(own, "{}")
    hang_up(own, "reloaded")
    info = own.api.get("/info")
    assert (info["Labels"], info["Debug"], info["RegistryConfig"]["Mirrors"]) == ([], False, [])


def test_killed_in_the_midst_of_reloads(make_daemon: Maker) -> None:
    one = make_daemon().start()
    try:
        one.docker("run", "-d", "--name", "lives", one.busybox, "sleep", "60")
        pid = one.api.pid("lives")
        for number in range(3):
            write(one, json.dumps({"labels": [f"round={number}"]}))
            for _ in range(20):
                os.kill(one.pid, signal.SIGHUP)
            one.kill9()
            one.start()
            assert one.api.get("/info")["Labels"] == [f"round={number}"]
            assert one.api.pid("lives") == pid
        write(one, "{ broken")
        os.kill(one.pid, signal.SIGHUP)
        one.kill9()
        one.spawn()
        assert one.process is not None and one.process.wait(20) == 1
        one.process = None
        assert "invalid JSON" in one.log_text().splitlines()[-1]
        write(one, "{}")
        one.start()
        assert one.docker("exec", "lives", "echo", "yes").out == "yes\n"
    finally:
        one.end()


def test_validate(own: Daemon) -> None:
    def validate(text: str, *flags: str) -> subprocess.CompletedProcess[str]:
        path = own.base / "candidate.json"
        path.write_text(text)
        return subprocess.run(
            [sys.executable, "-m", "sampan.daemon", "--validate", "--config-file", str(path), *flags],
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(SOURCE)}, check=False,
        )  # fmt: skip

    good = validate('{"debug": true}')
    assert (good.returncode, good.stdout) == (0, "configuration OK\n")
    for text, flags, said in (
        ("{", (), "invalid JSON"),
        ('{"bip": 3}', (), "bip: expected a text"),
        ('{"debug": true}', ("--debug",), "both as a flag and in the configuration file"),
        ('{"default-runtime": "nope"}', (), "does not exist"),
    ):
        bad = validate(text, *flags)
        assert bad.returncode == 1 and said in bad.stderr and len(bad.stderr.splitlines()) == 1
    assert own.answers(), "nobody was disturbed"


def test_the_log_is_json_lines(own: Daemon) -> None:
    lines = [json.loads(line) for line in own.log_text().splitlines()]
    assert all({"level", "msg", "time", "logger"} <= set(line) for line in lines)
    assert any(line["level"] == "info" and "listens on" in line["msg"] for line in lines)


def test_debug_pages_are_there_while_debugging(own: Daemon) -> None:
    for page in ("/debug/stacks", "/debug/vars"):
        answer = own.api("GET", page)
        assert (answer.status, answer.message) == (404, "page not found")
    write(own, '{"debug": true}')
    hang_up(own, "reloaded")
    text = own.api("GET", "/debug/stacks").body.decode()
    assert "shown_stacks" in text and "thread MainThread: " in text
    counters = own.api.get("/v1.51/debug/vars")
    assert counters["file_descriptors"] == pytest.approx(len(os.listdir(f"/proc/{own.pid}/fd")), abs=3)
    assert counters["containers"] == len(own.api.containers())
    write(own, "{}")
    hang_up(own, "reloaded")
    assert own.api("GET", "/debug/vars").status == 404


def test_metrics(own: Daemon, port: int) -> None:
    assert own.busybox
    before = scrape(port)
    own.docker("run", "-d", "--name", "one", own.busybox, "sleep", "60")
    own.docker("create", "--name", "two", own.busybox, "true")
    own.docker("pause", "one")
    own.docker("commit", "two", "made:1")
    own.docker("diff", "two")
    own.docker("rm", "two")
    after = scrape(port)

    def more(name: str) -> float:
        return after[name] - before[name]

    action = "engine_daemon_container_actions_seconds_count{action=%s}"
    actions = ("create", "start", "commit", "changes", "delete")
    assert [more(action % f'"{name}"') for name in actions] == [2, 1, 1, 1, 1]
    state = "engine_daemon_container_states_containers{state=%s}"
    assert [more(state % f'"{name}"') for name in ("paused", "running", "stopped")] == [1, 0, 0]
    assert more("engine_daemon_events_total") >= 6
    assert after["process_open_fds"] == pytest.approx(len(os.listdir(f"/proc/{own.pid}/fd")), abs=3)
    info = next(name for name in after if name.startswith("engine_daemon_engine_info"))
    assert f'daemon_id="{own.api.get("/info")["ID"]}"' in info
    own.docker("rm", "-f", "one")
    own.docker("rmi", "made:1")


def test_the_metrics_address_gives_nothing_else(own: Daemon, port: int) -> None:
    for page in ("/info", "/v1.51/containers/json", "/_ping", "/debug/vars"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=10)
        assert caught.value.code == 404
        caught.value.close()


def test_a_metrics_address_that_is_taken_is_one_line(make_daemon: Maker, port: int, own: Daemon) -> None:
    other = make_daemon("--metrics-addr", f"127.0.0.1:{port}")
    other.spawn()
    assert other.process is not None and other.process.wait(20) == 1
    other.process = None
    last = other.log_text().splitlines()[-1]
    assert f"cannot listen on metrics-addr 127.0.0.1:{port}" in last
