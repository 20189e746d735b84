"""The daemon as a service: flags, sockets, two side by side, idle exit, bounded logs, one-line errors."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.engine import Daemon
from support.machine import eventually

Names = Callable[[], str]
Maker = Callable[..., Daemon]


def resident_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def test_the_socket_is_not_for_everyone(daemon: Daemon) -> None:
    mode = os.stat(daemon.socket).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660


def test_pidfile(daemon: Daemon) -> None:
    assert int(daemon.pidfile.read_text()) == daemon.pid


def test_the_store_starts_with_hello_world(make_daemon: Maker) -> None:
    own = make_daemon().start()
    try:
        for cli in (own.docker, own.sampan):
            done = cli("run", "--rm", "hello-world")
            assert "Sampan" in done.out and "/hello" in done.out
        own.docker("rmi", "hello-world")
        own.restart()
        assert own.docker("images", "-q").out == "", "an image that was removed stays removed"
    finally:
        own.end()


def test_two_daemons_side_by_side(daemon: Daemon, make_daemon: Maker, name: Names) -> None:
    other = make_daemon().start()
    try:
        one = name()
        for each in (daemon, other):
            each.docker("run", "-d", "--name", one, each.busybox, "sleep", "60")
        assert daemon.api.inspect(one)["Id"] != other.api.inspect(one)["Id"]
        first, second = (
            each.api.inspect(one)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
            for each in (daemon, other)
        )
        assert first.rpartition(".")[0] != second.rpartition(".")[0]
    finally:
        other.end()
    assert daemon.docker("exec", one, "echo", "unharmed").out == "unharmed\n"


def test_a_second_daemon_on_the_same_roots_is_refused(daemon: Daemon) -> None:
    second = Daemon.__new__(Daemon)
    second.__dict__.update(daemon.__dict__)
    second.process, second.log = None, daemon.base / "second.log"
    second.spawn()
    assert second.process is not None
    assert second.process.wait(20) != 0
    assert daemon.answers()


def test_configuration_file(make_daemon: Maker) -> None:
    own = make_daemon(config=json.dumps({"log-opts": {"max-size": "100k", "max-file": "2"}})).start()
    try:
        own.docker("run", "--name", "one", own.busybox, "true")
        options = own.api.inspect("one")["HostConfig"]["LogConfig"]["Config"]
        assert options == {"max-size": "100k", "max-file": "2"}
    finally:
        own.end()


@pytest.mark.parametrize(
    ("flags", "config"),
    [
        (["--no-such-flag"], None),
        (["--bip", "not-an-address"], None),
        (["--ipv6", "--bip6", "not-an-address"], None),
        ([], '{"fixed-cidr-v6": "fd00:1::/64"}'),
        (["--storage-driver", "no-such-driver"], None),
        ([], "{ this is no json"),
        ([], '{"no-such-key": 1}'),
        (["-H", "tcp://127.0.0.1:0"], None),
    ],
    ids=["flag", "bip", "bip6", "fixed without ipv6", "driver", "json", "key", "tcp without tls"],
)
def test_a_wrong_configuration_is_one_line(make_daemon: Maker, flags: list[str], config: str | None) -> None:
    own = make_daemon(*flags, config=config or "{}")
    own.spawn()
    assert own.process is not None
    try:
        assert own.process.wait(20) != 0
    finally:
        own.kill9()
    text = own.log_text()
    assert "Traceback" not in text
    assert text.strip()


def test_idle_exit(make_daemon: Maker) -> None:
    own = make_daemon("--idle-exit", "2").start()
    process = own.process
    assert process is not None
    own.docker("run", "-d", "--rm", "--name", "busy", own.busybox, "sleep", "3.5")
    time.sleep(3)
    assert process.poll() is None, "it leaves while a container runs"
    eventually(lambda: process.poll() is not None, timeout=15, what="it leaves when idle")
    assert process.returncode == 0
    own.process = None
    own.end()


def test_logs_are_bounded_and_fast_output_costs_no_memory(daemon: Daemon, name: Names) -> None:
    one = name()
    options = ["--log-opt", "max-size=1m", "--log-opt", "max-file=3"]
    before = resident_kb(daemon.pid)
    line = "this line is printed over and over again, as fast as can be, to see who gives in"
    daemon.docker("run", "-d", "--name", one, *options, daemon.busybox, "yes", line)
    for _ in range(20):
        begun = time.monotonic()
        assert daemon.answers()
        assert time.monotonic() - begun < 2
        time.sleep(0.1)
    shown = daemon.api.inspect(one)
    folder = Path(shown["LogPath"]).parent
    files = [file for file in folder.iterdir() if file.name.startswith(Path(shown["LogPath"]).name)]
    assert 2 <= len(files) <= 3
    assert all(file.stat().st_size < 1_100_000 for file in files)
    assert resident_kb(daemon.pid) < before + 30_000
    daemon.docker("kill", one)
    whole, last = daemon.docker("logs", "-n", "2", one).lines
    assert whole == line
    assert line.startswith(last)  # it was killed in the middle of a word, it may be


def test_log_files_are_json_lines(daemon: Daemon, name: Names) -> None:
    one = name()
    daemon.docker("run", "--name", one, daemon.busybox, "sh", "-c", "echo a; echo b >&2")
    records = [json.loads(line) for line in Path(daemon.api.inspect(one)["LogPath"]).read_text().splitlines()]
    assert sorted((record["stream"], record["log"]) for record in records) == [
        ("stderr", "b\n"),
        ("stdout", "a\n"),
    ]
    assert all(record["time"].endswith("Z") for record in records)


def test_who_may_not_use_the_socket_is_told_what_to_do(daemon: Daemon) -> None:
    command = [*daemon.sampan.argv("ps")]
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *command],
        capture_output=True,
        text=True,
        env=daemon.sampan.environment,
        check=False,
    )
    if "No module named" in done.stderr or "ermission denied: '" in done.stderr:
        pytest.skip("needs a checkout that other users can read")
    assert done.returncode != 0
    assert "sudo" in done.stderr or "group" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("method", "target", "body", "status"),
    [
        ("GET", "/containers/no-such/json", None, 404),
        ("POST", "/containers/no-such/start", None, 404),
        ("DELETE", "/containers/no-such", None, 404),
        ("GET", "/images/no-such/json", None, 404),
        ("POST", "/containers/create", {"Image": "no-such"}, 404),
        ("POST", "/containers/create?name=-bad-", {"Image": "busybox"}, 400),
        ("POST", "/containers/create", b"{ no json", 400),
        ("POST", "/containers/create", {"Image": 7}, 400),
        ("POST", "/exec/no-such/start", {}, 404),
        ("GET", "/no/such/page", None, 404),
        ("GET", "/v1.99/version", None, 400),
        ("GET", "/v1.10/version", None, 400),
        ("GET", "/containers/json?filters=nonsense", None, 400),
    ],
)
def test_errors_have_dockers_status_and_a_message(
    daemon: Daemon, method: str, target: str, body: object, status: int
) -> None:
    assert daemon.busybox
    headers = {"Content-Type": "application/json"}
    answer = daemon.api(method, target, body, headers=headers)
    assert answer.status == status, answer.body
    assert answer.message and "\n" not in answer.message.strip()


def test_starting_twice_is_not_modified(daemon: Daemon, name: Names) -> None:
    one = name()
    daemon.docker("run", "-d", "--name", one, daemon.busybox, "sleep", "30")
    assert daemon.api("POST", f"/containers/{one}/start").status == 304
    assert daemon.api("POST", f"/containers/{one}/stop?t=0").status == 204
    assert daemon.api("POST", f"/containers/{one}/stop?t=0").status == 304


def test_a_container_that_cannot_start_holds_nothing(daemon: Daemon, name: Names) -> None:
    one = name()
    daemon.docker("create", "--name", one, daemon.busybox, "no-such-program")
    answer = daemon.api("POST", f"/containers/{one}/start")
    assert answer.status == 400
    assert "executable file not found" in answer.message
    state = daemon.api.inspect(one)["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("created", 127, 0)
