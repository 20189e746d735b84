"""`create start stop restart kill rm ps attach wait logs exec inspect rename pause events info`."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.cli import Cli
from support.engine import Engine
from support.machine import alive, eventually, status_field

Names = Callable[[], str]
TICKER = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done"


@pytest.fixture
def sleeper(cli: Cli, busybox: str, name: Names) -> str:
    """A running container that ends on SIGTERM only by force."""
    one = name()
    cli("run", "-d", "--name", one, busybox, "sleep", "60")
    return one


def test_create_start_wait(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    created = cli("create", "--name", one, busybox, "sh", "-c", "echo hello; exit 5").out.strip()
    assert engine.api.inspect(one)["State"]["Status"] == "created"
    assert cli("start", one).out.strip() == one
    assert cli("wait", created).out.strip() == "5"
    assert cli("logs", one).out == "hello\n"


def test_start_attached_gives_output_and_status(cli: Cli, busybox: str, name: Names) -> None:
    one = name()
    cli("create", "-i", "--name", one, busybox, "sh", "-c", "cat; exit 6")
    assert cli("start", "-ai", one, stdin=b"through", code=6).raw == b"through"
    assert cli("start", "-ai", one, stdin=b"again", code=6).raw == b"again"


def test_the_writable_layer_stays(cli: Cli, busybox: str, name: Names) -> None:
    one = name()
    cli("create", "--name", one, busybox, "sh", "-c", "echo x >>/file; cat /file")
    assert cli("start", "-a", one).out == "x\n"
    assert cli("start", "-a", one).out == "x\nx\n"


def test_stop_kills_after_its_time(cli: Cli, engine: Engine, busybox: str, sleeper: str) -> None:
    pid = engine.api.pid(sleeper)
    begun = time.monotonic()
    assert cli("stop", "-t", "1", sleeper).out.strip() == sleeper
    assert 0.9 < time.monotonic() - begun < 8
    state = engine.api.inspect(sleeper)["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 137, 0)
    assert not alive(pid)
    cli("stop", sleeper)  # once more is no error


def test_stop_signal(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    script = "trap 'exit 9' USR1; while :; do sleep 0.05; done"
    cli(
        "run",
        "-d",
        "--name",
        one,
        "--stop-signal",
        "USR1",
        "--stop-timeout",
        "20",
        busybox,
        "sh",
        "-c",
        script,
    )
    time.sleep(0.2)
    cli("stop", one)
    assert engine.api.inspect(one)["State"]["ExitCode"] == 9


def test_kill_with_a_signal(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    script = "trap 'echo hup' HUP; echo up; while :; do sleep 0.05; done"
    cli("run", "-d", "--name", one, busybox, "sh", "-c", script)
    eventually(lambda: cli("logs", one).out == "up\n")
    cli("kill", "-s", "HUP", one)
    eventually(lambda: cli("logs", one).out == "up\nhup\n")
    cli("kill", one)
    eventually(lambda: engine.api.inspect(one)["State"]["ExitCode"] == 137)
    done = cli("kill", one, code=1)
    assert "is not running" in done.err


def test_restart(cli: Cli, engine: Engine, sleeper: str) -> None:
    before = engine.api.pid(sleeper)
    cli("restart", "-t", "0", sleeper)
    assert engine.api.pid(sleeper) != before
    assert not alive(before)


def test_pause(cli: Cli, engine: Engine, sleeper: str) -> None:
    cli("pause", sleeper)
    assert engine.api.inspect(sleeper)["State"]["Status"] == "paused"
    assert "(Paused)" in cli("ps", "--filter", f"name={sleeper}", "--format", "{{.Status}}").out
    cli("unpause", sleeper)
    assert engine.api.inspect(sleeper)["State"]["Status"] == "running"


def test_rm_refuses_what_runs_and_force_does_not(cli: Cli, engine: Engine, sleeper: str) -> None:
    pid = engine.api.pid(sleeper)
    assert "force remove" in cli("rm", sleeper, code=1).err
    assert cli("rm", "-f", sleeper).out.strip() == sleeper
    assert not alive(pid)
    assert "No such container" in cli("rm", sleeper, code=1).err


@pytest.mark.release28
def test_ps(cli: Cli, engine: Engine, busybox: str, name: Names, sleeper: str) -> None:
    ended = name()
    cli("run", "--name", ended, busybox, "sh", "-c", "exit 3", code=3)
    header, *rows = cli("ps").lines
    titles = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert re.split(r"\s{2,}", header.strip()) == titles
    (row,) = [row for row in rows if sleeper in row]
    assert row.startswith(engine.api.inspect(sleeper)["Id"][:12])
    assert '"sleep 60"' in row and " Up " in row
    assert not [row for row in rows if ended in row]
    (row,) = [row for row in cli("ps", "-a").lines if ended in row]
    assert "Exited (3)" in row
    assert (
        cli("ps", "-aq", "--no-trunc", "--filter", f"name={ended}").out.strip()
        == engine.api.inspect(ended)["Id"]
    )
    shown = cli("ps", "-a", "--filter", f"name={ended}", "--format", "{{.Names}} {{.Image}} {{.State}}").out
    assert shown == f"{ended} {busybox} exited\n"
    assert ended in cli("ps", "-a", "--filter", "exited=3", "--format", "{{.Names}}").lines
    assert ended not in cli("ps", "-a", "--filter", "status=running", "--format", "{{.Names}}").lines
    record = json.loads(cli("ps", "--filter", f"name={sleeper}", "--format", "json").out)
    assert record["Names"] == sleeper


def test_rename(cli: Cli, engine: Engine, name: Names, sleeper: str) -> None:
    other = name()
    cli("rename", sleeper, other)
    assert engine.api.inspect(other)["Name"] == f"/{other}"
    assert "No such container" in cli("rename", sleeper, name(), code=1).err
    assert cli("exec", other, "true").code == 0


def test_inspect(cli: Cli, sleeper: str, busybox: str) -> None:
    (shown,) = json.loads(cli("inspect", sleeper).out)
    assert shown["Name"] == f"/{sleeper}"
    assert shown["State"]["Running"] is True
    assert shown["Config"]["Image"] == busybox
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", shown["State"]["StartedAt"])
    assert (
        cli("inspect", "-f", "{{.State.Status}} {{.Path}} {{json .Args}}", sleeper).out
        == 'running sleep ["60"]\n'
    )
    done = cli("inspect", "no-such-thing", code=1)
    assert done.out.strip() == "[]"
    assert "no such object: no-such-thing" in done.err.lower()


def test_logs(cli: Cli, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "--name", one, busybox, "sh", "-c", "echo a; echo b >&2; sleep 0.1; echo c")
    done = cli("logs", one)
    assert (done.out, done.err) == ("a\nc\n", "b\n")
    assert cli("logs", "-n", "1", one).out == "c\n"
    for line in cli("logs", "-t", one).lines:
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z [ac]$", line)
    assert cli("logs", "--since", "1h", one).out == "a\nc\n"
    assert cli("logs", "--until", "1h", one).out == ""


def test_logs_follow_to_the_end(cli: Cli, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "-d", "--name", one, busybox, "sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.05; done")
    assert cli("logs", "-f", one).out == "1\n2\n3\n4\n5\n"


def test_logs_keep_long_lines_and_the_last_piece(cli: Cli, busybox: str, name: Names) -> None:
    one = name()
    cli(
        "run",
        "-d",
        "--name",
        one,
        busybox,
        "sh",
        "-c",
        "head -c 50000 /dev/zero | tr '\\0' x; echo; printf end",
    )
    cli("wait", one)
    assert cli("logs", one).out == "x" * 50000 + "\nend"


def test_wait_for_several(cli: Cli, busybox: str, name: Names) -> None:
    one, other = name(), name()
    cli("run", "-d", "--name", one, busybox, "sh", "-c", "sleep 0.2; exit 4")
    cli("run", "-d", "--name", other, busybox, "sh", "-c", "exit 5")
    assert cli("wait", one, other).lines == ["4", "5"]


def test_attach(cli: Cli, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "-d", "--name", one, busybox, "sh", "-c", "sleep 0.5; echo late; exit 8")
    assert cli("attach", "--no-stdin", one, code=8).out == "late\n"
    assert "cannot attach to a stopped container" in cli("attach", one, code=1).err.lower()


def test_attach_with_input(cli: Cli, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "-d", "-i", "--name", one, busybox, "cat")
    for word in (b"first\n", b"second\n"):  # without --attach at the start, its stdin outlives each client
        with cli.start("attach", one) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(word)
            process.stdin.flush()
            assert process.stdout.readline() == word
            process.kill()
            process.communicate()


def test_two_attached_clients_see_the_same(cli: Cli, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "-d", "--name", one, busybox, "sh", "-c", "sleep 0.7; seq 1 200")
    with cli.start("attach", "--no-stdin", one) as first, cli.start("attach", "--no-stdin", one) as second:
        outputs = [process.communicate()[0] for process in (first, second)]
    assert outputs[0] == outputs[1] == b"".join(b"%d\n" % n for n in range(1, 201))


def test_exec(cli: Cli, sleeper: str) -> None:
    done = cli("exec", sleeper, "sh", "-c", "echo out; echo err >&2; exit 12", code=12)
    assert (done.out, done.err) == ("out\n", "err\n")
    assert cli("exec", "-i", sleeper, "cat", stdin=b"in").raw == b"in"
    assert cli("exec", "-e", "A=b", sleeper, "sh", "-c", "echo $A").out == "b\n"
    assert cli("exec", "-w", "/etc", sleeper, "pwd").out == "/etc\n"
    assert cli("exec", "-u", "alice", sleeper, "id", "-un").out == "alice\n"
    cli("exec", sleeper, "sh", "-c", "kill -9 $$", code=137)


def test_exec_is_in_the_containers_world(cli: Cli, engine: Engine, sleeper: str) -> None:
    inside = cli(
        "exec", sleeper, "sh", "-c", "for n in mnt pid net ipc uts; do readlink /proc/self/ns/$n; done"
    )
    pid = engine.api.pid(sleeper)
    expected = [str(Path(f"/proc/{pid}/ns/{n}").readlink()) for n in ("mnt", "pid", "net", "ipc", "uts")]
    assert inside.lines == expected
    # It has a cgroup of its own below the container's, and sees that as the root: never the host's tree.
    places = cli("exec", sleeper, "cat", "/proc/self/cgroup").lines
    assert {place.rpartition(":")[2] for place in places} == {"/"}
    assert cli("exec", sleeper, "grep", "CapEff", "/proc/self/status").out.split()[1] == status_field(
        pid, "CapEff"
    )


def test_exec_privileged(cli: Cli, sleeper: str) -> None:
    plain = cli("exec", sleeper, "grep", "CapEff", "/proc/self/status").out
    assert cli("exec", "--privileged", sleeper, "grep", "CapEff", "/proc/self/status").out != plain


def test_exec_detached(cli: Cli, sleeper: str) -> None:
    cli("exec", "-d", sleeper, "touch", "/tmp/made")
    eventually(lambda: cli("exec", sleeper, "ls", "/tmp").out == "made\n")


def _running(engine: Engine, container: str, argument: str) -> list[str]:
    """The command lines in a container that have an argument beginning so, zombies included by name."""
    space = Path(f"/proc/{engine.api.pid(container)}/ns/pid").readlink()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns/pid").readlink() == space:
                line = (process / "cmdline").read_text().replace("\0", " ") or (process / "comm").read_text()
                found.append(line)
        except OSError:  # it has ended, or is the system's
            continue
    return [line for line in found if f" {argument}" in line]


def test_exec_with_a_time_limit(engine: Engine, sleeper: str) -> None:
    sampan = engine.sampan
    script = "(sleep 1000 >/dev/null 2>&1 &) ; trap '' TERM; echo up; sleep 1001"
    late = sampan("exec", "--timeout", "0.5", sleeper, "sh", "-c", script, code=124)
    assert (late.out, late.err) == ("up\n", "sampan: the command timed out after 0.5 s\n")
    assert not _running(engine, sleeper, "100")
    assert sampan("exec", "--timeout", "1m", sleeper, "sh", "-c", "echo ok; exit 5", code=5).out == "ok\n"
    assert "invalid" in sampan("exec", "--timeout", "soon", sleeper, "true", code=1).err
    assert "timeout" in sampan("exec", "--timeout", "-1", sleeper, "true", code=1).err


def test_exec_killed_through_the_api(engine: Engine, sleeper: str) -> None:
    api = engine.api
    script = "(sleep 1000 &) ; sleep 1001"
    made = api("POST", f"/containers/{sleeper}/exec", {"Cmd": ["sh", "-c", script]}).json()["Id"]
    assert api("POST", f"/exec/{made}/kill").status == 409
    assert api("POST", f"/exec/{made}/start", {"Detach": True}).status == 200
    assert api("POST", f"/exec/{made}/kill?signal=NOPE").status == 400
    assert api("POST", f"/exec/{made}/kill").status == 204
    eventually(lambda: api.get(f"/exec/{made}/json")["ExitCode"] == 137)
    assert not _running(engine, sleeper, "100")
    assert api("POST", f"/exec/{made}/kill").status == 409
    assert api("POST", "/exec/nope/kill").status == 404


def test_exec_errors(cli: Cli, busybox: str, name: Names, sleeper: str) -> None:
    assert "executable file not found" in str(cli("exec", sleeper, "no-such", code=127))
    assert "permission denied" in str(cli("exec", sleeper, "/etc/plain", code=126)).lower()
    ended = name()
    cli("run", "--name", ended, busybox, "true")
    assert "is not running" in cli("exec", ended, "true", code=1).err
    assert "No such container" in cli("exec", "no-such-container", "true", code=1).err


def test_exec_output_in_bulk(cli: Cli, sleeper: str) -> None:
    done = cli("exec", sleeper, "seq", "1", "100000")
    assert done.out == "".join(f"{n}\n" for n in range(1, 100001))


def test_exec_ends_with_the_container(cli: Cli, sleeper: str) -> None:
    with cli.start("exec", sleeper, "sleep", "60") as process:
        eventually(lambda: "sleep" in cli("exec", sleeper, "ps").out)
        time.sleep(0.3)
        cli("kill", sleeper)
        process.communicate(timeout=10)
    assert process.returncode == 137


def test_events(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    since = str(int(time.time()) - 1)
    cli("run", "--rm", "--name", one, busybox, "true")
    eventually(lambda: engine.api("GET", f"/containers/{one}/json").status == 404)
    until = str(int(time.time()) + 1)
    seen = cli(
        *("events", "--since", since, "--until", until, "--filter", f"container={one}"),
        *("--format", "{{.Type}} {{.Action}}"),
    )
    actions = [line.split()[1] for line in seen.lines if line.startswith("container ")]
    assert [action for action in actions if action != "attach"] == ["create", "start", "die", "destroy"]


def test_version_and_info(cli: Cli) -> None:
    assert re.search(r"API version: +1\.\d+", cli("version").out)
    assert json.loads(cli("version", "--format", "{{json .}}").out)["Server"]["Os"] == "linux"
    info = json.loads(cli("info", "--format", "{{json .}}").out)
    assert info["OSType"] == "linux" and info["Driver"]
    assert "Storage Driver:" in cli("info").out


def test_a_client_that_goes_away_leaves_the_container(
    cli: Cli, engine: Engine, busybox: str, name: Names
) -> None:
    one = name()
    with cli.start("run", "--name", one, busybox, "sh", "-c", TICKER) as process:
        assert process.stdout is not None and process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert engine.api.inspect(one)["State"]["Running"]
    count = len(cli("logs", one).lines)
    eventually(lambda: len(cli("logs", one).lines) > count + 5, what="it goes on writing")


@pytest.mark.parametrize("word", ["no-such-command", "--no-such-flag"])
def test_unknown_words_are_refused(cli: Cli, word: str) -> None:
    done = cli(word, code=None)
    assert done.code != 0 and word.lstrip("-") in done.err
