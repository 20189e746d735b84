"""`--runtime`: what a container does is the same with our own runtime, with runc and with crun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import needs
from support.engine import Daemon
from support.machine import alive, cgroup_file, eventually, status_field

pytestmark = [needs.program("runc"), needs.program("crun")]

Names = Callable[[], str]
Maker = Callable[..., Daemon]
UNIFIED = Path("/sys/fs/cgroup/unified")


@pytest.fixture(scope="module")
def where() -> Iterator[list[str]]:
    """What to put before a daemon's command line.

    crun wants no controller in the unified hierarchy where there are others: such a one is hidden from it,
    in a mount namespace that outlives the daemons.
    """
    controllers = UNIFIED / "cgroup.controllers"
    if not controllers.exists() or not controllers.read_text().strip():
        yield []
        return
    # The tests' own /sys covers the machine's, where it is mounted too.
    hidden = f"umount -l /sys; umount {UNIFIED}; ! grep -q {UNIFIED} /proc/self/mountinfo"
    scratch = f"mount -t tmpfs none {UNIFIED}"  # crun makes directories there all the same
    script = f"mount --make-rprivate /; {hidden} && {scratch} && echo ready && exec sleep infinity"
    with subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        yield ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"]
        holder.kill()


@pytest.fixture(scope="module")
def make(make_daemon: Maker, where: list[str]) -> Maker:
    """As `make_daemon`, for daemons whose machine all runtimes can work on."""

    def made(*flags: str, config: str = "{}") -> Daemon:
        daemon = make_daemon(*flags, config=config)
        daemon.wrapper = where
        return daemon

    return made


@pytest.fixture(scope="module")
def daemon(make: Maker) -> Iterator[Daemon]:
    """One daemon for all that needs none of its own."""
    started = make().start()
    yield started
    started.end()


@pytest.fixture(params=["sampan", "runc", "crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


# For what other files prove of our own, which all of them run with.
others = pytest.mark.parametrize("runtime", ["runc", "crun"], indirect=True)


@pytest.fixture
def run(daemon: Daemon, runtime: str, name: Names) -> Callable[..., str]:
    """`docker run -d` of a busybox with the runtime; the container's name."""

    def start(*words: str, options: tuple[str, ...] = ()) -> str:
        one = name()
        daemon.docker("run", "-d", "--name", one, "--runtime", runtime, *options, daemon.busybox, *words)
        return one

    return start


def exit_code(daemon: Daemon, one: str) -> int:
    return int(daemon.docker("wait", one).out)


@others
def test_output_input_and_exit_code(daemon: Daemon, runtime: str) -> None:
    for cli in (daemon.docker, daemon.sampan):
        script = "cat; echo out; echo err >&2; exit 7"
        words = ("run", "--rm", "-i", "--runtime", runtime, daemon.busybox, "sh", "-c", script)
        done = cli(*words, stdin=b"in\n", code=7)
        assert (done.out, done.err) == ("in\nout\n", "err\n")


def test_it_is_this_runtime(daemon: Daemon, runtime: str, run: Callable[..., str]) -> None:
    one = run("sleep", "60")
    assert daemon.api.inspect(one)["HostConfig"]["Runtime"] == runtime
    rundir = daemon.exec_root / "containers" / daemon.api.inspect(one)["Id"]
    assert (rundir / "runtime").exists() == (runtime != "sampan")
    parent = status_field(daemon.api.pid(one), "PPid")
    assert Path(f"/proc/{parent}/comm").read_text().startswith("sampan-monitor")


@others
def test_a_terminal(daemon: Daemon, runtime: str) -> None:
    words = (
        "run",
        "--rm",
        "-it",
        "--runtime",
        runtime,
        daemon.busybox,
        "sh",
        "-c",
        "tty; stty size; read x; exit $x",
    )
    with daemon.docker.terminal(*words, rows=33, columns=77) as terminal:
        terminal.expect(b"/dev/pts/0")
        terminal.expect(b"33 77")
        terminal.send(b"5\n")
        assert terminal.wait() == 5


def test_exec(daemon: Daemon, run: Callable[..., str]) -> None:
    one = run("sleep", "60", options=("-e", "A=1", "-w", "/tmp"))
    script = "cat; echo $A $B $PWD $(id -u); echo err >&2; exit 6"
    words = ("exec", "-i", "-e", "B=2", "-u", "1000", one, "sh", "-c", script)
    done = daemon.docker(*words, stdin=b"in\n", code=6)
    assert (done.out, done.err) == ("in\n1 2 /tmp 1000\n", "err\n")
    script = "sleep 0.5; stty size; exit 3"  # crun's learns the size after its start
    with daemon.docker.terminal("exec", "-it", one, "sh", "-c", script, rows=21, columns=71) as terminal:
        terminal.expect(b"21 71")
        assert terminal.wait() == 3
    daemon.docker("exec", "-d", one, "touch", "/made")
    eventually(lambda: daemon.docker("exec", one, "ls", "/made", code=None).code == 0, what="it ran detached")
    assert daemon.docker("exec", one, "no-such-program", code=127).out
    assert daemon.docker("exec", one, "/etc/passwd", code=126).out
    daemon.docker("rm", "-f", one)


def test_many_execs_at_once_leave_no_zombies(daemon: Daemon, run: Callable[..., str]) -> None:
    one = run("sleep", "60", options=("--pid", "host"))
    monitor = status_field(daemon.api.pid(one), "PPid")
    running = [daemon.docker.start("exec", one, "sh", "-c", f"(sleep 0.3 &); exit {n}") for n in range(6)]
    assert [process.wait(30) for process in running] == list(range(6))
    for process in running:
        process.communicate()
    time.sleep(0.4)
    daemon.docker("exec", one, "true")
    children = Path(f"/proc/{monitor}/task/{monitor}/children")
    eventually(lambda: len(children.read_text().split()) == 1, what="the monitor has one child")


def test_signals(daemon: Daemon, run: Callable[..., str]) -> None:
    one = run("sh", "-c", "trap 'echo usr; exit 4' USR1; while :; do sleep 0.05; done")
    daemon.docker("kill", "-s", "USR1", one)
    assert exit_code(daemon, one) == 4
    assert daemon.docker("logs", one).out == "usr\n"
    other = run("sleep", "60")
    daemon.docker("kill", other)
    assert exit_code(daemon, other) == 137


def test_stop(daemon: Daemon, run: Callable[..., str]) -> None:
    one = run("sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.05; done")
    eventually(lambda: caught(daemon.api.pid(one), signal.SIGTERM), what="the trap is set")
    daemon.docker("stop", one)
    assert daemon.api.inspect(one)["State"]["ExitCode"] == 9
    daemon.docker("start", one)
    pid = daemon.api.pid(one)
    os.kill(pid, signal.SIGSTOP)
    daemon.docker("stop", "-t", "0", one)
    assert daemon.api.inspect(one)["State"]["ExitCode"] == 137
    assert not alive(pid)


def caught(pid: int, signum: int) -> bool:
    return bool(int(str(status_field(pid, "SigCgt")), 16) >> (signum - 1) & 1)


def test_no_signal_is_ignored_from_the_start(daemon: Daemon, run: Callable[..., str]) -> None:
    one = run("sleep", "60")
    assert int(str(status_field(daemon.api.pid(one), "SigIgn")), 16) == 0


def test_pause(daemon: Daemon, run: Callable[..., str]) -> None:
    one = run("sh", "-c", "while :; do echo x; sleep 0.02; done")
    daemon.docker("pause", one)
    time.sleep(0.1)
    before = daemon.docker("logs", one).out
    time.sleep(0.3)
    assert daemon.docker("logs", one).out == before
    daemon.docker("unpause", one)
    eventually(lambda: daemon.docker("logs", one).out != before, what="it goes on")
    daemon.docker("pause", one)
    daemon.docker("rm", "-f", one)


@others
def test_limits(daemon: Daemon, run: Callable[..., str]) -> None:
    one = run(
        "sh", "-c", "ulimit -n; cat /proc/self/oom_score_adj; sleep 60",
        options=(
            "--memory", "48m", "--pids-limit", "33", "--ulimit", "nofile=123:456", "--oom-score-adj", "77",
        ),
    )  # fmt: skip
    eventually(lambda: daemon.docker("logs", one).out == "123\n77\n", what="the process's own limits")
    pid = daemon.api.pid(one)
    assert cgroup_file(pid, "memory", "memory.limit_in_bytes", "memory.max") == str(48 << 20)
    assert cgroup_file(pid, "pids", "pids.max", "pids.max") == "33"
    assert daemon.api.inspect(one)["Id"] in Path(f"/proc/{pid}/cgroup").read_text()


@others
def test_out_of_memory(daemon: Daemon, run: Callable[..., str]) -> None:
    one = run(
        "sh", "-c", "x=a; while :; do x=$x$x; done", options=("--memory", "16m", "--memory-swap", "16m")
    )
    assert exit_code(daemon, one) == 137
    eventually(
        lambda: daemon.api.inspect(one)["State"]["OOMKilled"] is True, what="it is known as OOM-killed"
    )


def test_mounts(daemon: Daemon, run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("host\n")
    one = run(
        "sh", "-c",
        "cat /bound/file; touch /bound/x 2>&1 || true; echo kept >/vol/f; mount | grep -c ' /scratch '; "
        "touch /root-is-ro 2>/dev/null || echo read-only; cat /proc/1/comm; sleep 60",
        options=(
            "-v", f"{tmp_path}:/bound:ro", "-v", "/vol", "--tmpfs", "/scratch:size=1m",
            "--read-only", "--init",
        ),
    )  # fmt: skip
    wanted = ["host", "touch: /bound/x: Read-only file system", "1", "read-only"]
    eventually(lambda: daemon.docker("logs", one).lines[:4] == wanted, what="the mounts are as asked for")
    assert daemon.docker("exec", one, "cat", "/vol/f").out == "kept\n"
    assert daemon.docker("logs", one).lines[4] == "docker-init"


@others
def test_the_network(daemon: Daemon, run: Callable[..., str]) -> None:
    one = run("sleep", "60")
    address = daemon.api.inspect(one)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert address in daemon.docker("exec", one, "ip", "-4", "addr", "show", "eth0").out


@others
def test_confinement(daemon: Daemon, run: Callable[..., str]) -> None:
    one = run("sleep", "60")
    pid = daemon.api.pid(one)
    assert status_field(pid, "CapEff") == "00000000a80425fb"
    assert status_field(pid, "Seccomp") == "2"
    assert daemon.docker("exec", one, "cat", "/proc/self/status").out.count("a80425fb") >= 2
    script = "echo 1 >/proc/sys/vm/drop_caches"
    assert "Read-only file system" in daemon.docker("exec", one, "sh", "-c", script, code=1).err


def test_programs_that_are_not_there(daemon: Daemon, runtime: str, name: Names) -> None:
    for program, code in (("no-such-program", 127), ("/no/such", 127), ("/etc/passwd", 126)):
        one = name()
        words = ("run", "--name", one, "--runtime", runtime, daemon.busybox, program)
        done = daemon.docker(*words, code=code)
        assert "OCI runtime create failed" in done.err
        state = daemon.api.inspect(one)["State"]
        assert (state["Status"], state["ExitCode"], state["Pid"]) == ("created", code, 0)
        assert not (daemon.exec_root / "containers" / daemon.api.inspect(one)["Id"]).exists()


def test_nothing_is_left_behind(daemon: Daemon, run: Callable[..., str]) -> None:
    one = run("sh", "-c", "sleep 60 & sleep 61", options=("--pid", "host"))
    pid, full = daemon.api.pid(one), daemon.api.inspect(one)["Id"]
    eventually(lambda: len(sleepers(full)) >= 2, what="both run")
    daemon.docker("rm", "-f", one)
    eventually(lambda: not alive(pid) and not sleepers(full), what="all have gone")
    eventually(lambda: not list(Path("/sys/fs/cgroup").glob(f"**/*{full}*")), what="its cgroups have gone")
    eventually(lambda: not (daemon.exec_root / "containers" / full).exists(), what="the directory has gone")


def sleepers(container_id: str) -> list[str]:
    """Processes in a container's cgroup."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if container_id in (entry / "cgroup").read_text():
                    found.append(entry.name)
            except OSError:
                continue
    return found


@pytest.fixture
def own(make: Maker) -> Iterator[Daemon]:
    daemon = make().start()
    yield daemon
    daemon.end()


@others
def test_a_killed_daemon_loses_nothing(own: Daemon, runtime: str) -> None:
    script = "i=0; while [ ! -e /end ]; do i=$((i+1)); echo line $i; sleep 0.01; done; exit 8"
    own.docker("run", "-d", "--name", "one", "--runtime", runtime, own.busybox, "sh", "-c", script)
    own.docker("exec", "-d", "one", "sleep", "61")
    pid = own.api.pid("one")
    with own.docker.start("attach", "--no-stdin", "one") as attached:
        assert attached.stdout is not None
        first = os.read(attached.stdout.fileno(), 4096).decode()
        own.kill9()
        time.sleep(0.2)
        own.start()
        assert own.api.pid("one") == pid
        assert own.docker("exec", "one", "echo", "still here").out == "still here\n"
        assert len(own.api.inspect("one")["ExecIDs"] or []) == 1
        own.docker("exec", "-d", "one", "touch", "/end")  # the container's end may be its own, too
        assert exit_code(own, "one") == 8
        said = (first + attached.communicate(timeout=20)[0].decode()).splitlines()
    assert said == [f"line {n}" for n in range(int(said[0].split()[1]), int(said[-1].split()[1]) + 1)]
    lines = own.docker("logs", "one").lines
    assert lines == [f"line {n}" for n in range(1, len(lines) + 1)]
    own.docker(
        "run", "-d", "--name", "two", "--runtime", runtime, own.busybox, "sh", "-c", "sleep 0.5; exit 5"
    )
    own.kill9()
    time.sleep(1)
    own.start()
    assert own.api.inspect("two")["State"]["ExitCode"] == 5


def test_a_killed_monitor_ends_the_container(own: Daemon, runtime: str) -> None:
    own.docker("run", "-d", "--name", "one", "--runtime", runtime, own.busybox, "sleep", "60")
    pid = own.api.pid("one")
    os.kill(int(str(status_field(pid, "PPid"))), signal.SIGKILL)
    eventually(lambda: not alive(pid), what="it does not live on unwatched")
    assert exit_code(own, "one") == 137
    own.docker("start", "one")
    assert own.docker("exec", "one", "echo", "again").out == "again\n"


# --- which runtimes there are ---


def test_unknown_ones_are_refused(daemon: Daemon) -> None:
    for cli in (daemon.docker, daemon.sampan):
        done = cli("create", "--runtime", "no-such", daemon.busybox, "true", code=1)
        assert "unknown or invalid runtime name: no-such" in done.err


def test_info_names_them(daemon: Daemon) -> None:
    info = daemon.api.get("/info")
    assert info["DefaultRuntime"] == "sampan"
    assert set(info["Runtimes"]) >= {"sampan", "runc", "crun"}
    assert Path(info["Runtimes"]["crun"]["path"]).name == "crun"
    for cli in (daemon.docker, daemon.sampan):
        text = cli("info").out
        assert " Runtimes: crun runc sampan\n" in text or "Runtimes: " in text
        assert " Default Runtime: sampan\n" in text


def test_configured_ones(make: Maker, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    wrapper = tmp_path / "wrapped"
    wrapper.write_text(
        f'#!/bin/sh\necho "$@" >>{calls}\nwhile [ "$1" = --mark ]; do shift; done\nexec runc "$@"\n'
    )
    wrapper.chmod(0o755)
    config = json.dumps(
        {"runtimes": {"mine": {"path": str(wrapper), "runtimeArgs": ["--mark"]}}, "default-runtime": "mine"}
    )
    own = make("--add-runtime", "other=/usr/bin/crun", config=config).start()
    try:
        assert own.docker("run", "--rm", own.busybox, "echo", "hello").out == "hello\n"
        verbs = [line.split()[0] for line in calls.read_text().splitlines()]
        assert set(verbs) == {"--mark"}
        said = calls.read_text()
        assert " create " in said and " start " in said and " delete " in said
        info = own.api.get("/info")
        assert info["DefaultRuntime"] == "mine"
        assert info["Runtimes"]["mine"] == {"path": str(wrapper), "runtimeArgs": ["--mark"]}
        own.docker("create", "--name", "one", "--runtime", "mine", own.busybox, "true")
        (own.base / "daemon.json").write_text("{}")
        os.kill(own.pid, signal.SIGHUP)
        eventually(lambda: own.api.get("/info")["DefaultRuntime"] == "sampan", what="it is reloaded")
        assert "unknown or invalid runtime name: mine" in own.docker("start", "one", code=1).err
        calls.unlink()
        own.docker("run", "--rm", own.busybox, "true")
        assert not calls.exists()
    finally:
        own.end()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 3", "exit status 3"),
        ("kill -9 $$", "killed by signal 9"),
        ("exit 0", "has left no process behind"),
    ],
)
def test_broken_ones(make: Maker, tmp_path: Path, script: str, said: str) -> None:
    program = tmp_path / "broken"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    own = make("--add-runtime", f"broken={program}").start()
    try:
        done = own.docker("run", "--name", "one", "--runtime", "broken", own.busybox, "true", code=125)
        assert said in done.err and "OCI runtime create failed: broken" in done.err
        program.unlink()
        assert "No such file" in own.docker("start", "one", code=1).err
        assert own.docker("run", "--rm", own.busybox, "echo", "well").out == "well\n"
    finally:
        own.end()


def commands(daemon: Daemon, one: str) -> dict[int, str]:
    """What runs in a container, zombies too, by pid; process 1 there is `sleep`, which reaps nobody."""
    rows = daemon.api.get(f"/containers/{one}/top?ps_args=-eo%20pid,args")["Processes"]
    return {int(pid): args for pid, args in rows}


def test_an_exec_is_ended_in_time_with_all_that_it_started(daemon: Daemon, run: Callable[..., str]) -> None:
    one = run("sleep", "60")
    script = "(sleep 71 &); sh -c '(sleep 72 &); true & sleep 73 &'; trap '' TERM; echo up; sleep 74"
    done = daemon.sampan("exec", "--timeout", "1", one, "sh", "-c", script, code=None)
    assert (done.code, done.out) == (124, "up\n")
    assert [*commands(daemon, one).values()] == ["sleep 60"]
    limited = ("exec", "--timeout", "60")
    script = "echo $A $(id -u) $PWD; ls /proc/self/fd | wc -l; exit 5"
    options = ("-e", "A=b", "-u", "7", "-w", "/bin")
    done = daemon.sampan(*limited, *options, one, "sh", "-c", script, code=None)
    assert (done.code, done.out) == (5, "b 7 /bin\n4\n")
    # What it leaves running lives on, and is waited for once it has ended.
    daemon.sampan(*limited, one, "sh", "-c", "sleep 75 >/dev/null 2>&1 & exit 3", code=3)
    [left] = [pid for pid, args in commands(daemon, one).items() if args == "sleep 75"]
    assert status_field(left, "PPid") != daemon.api.pid(one)
    os.kill(left, signal.SIGKILL)
    eventually(lambda: [*commands(daemon, one).values()] == ["sleep 60"])
    daemon.sampan(*limited, "-t", one, "sh", "-c", "tty; exit 6", code=6)
    missing = daemon.sampan(*limited, one, "nope", code=127)
    assert "nope" in missing.out + missing.err and "timed out" not in missing.err


def test_an_exec_is_killed_with_all_that_it_started(
    daemon: Daemon, runtime: str, run: Callable[..., str]
) -> None:
    one = run("sleep", "60")

    def started() -> list[str]:
        return [args for args in commands(daemon, one).values() if args.startswith("sleep 7")]

    script = "(sleep 71 &); sh -c '(sleep 72 &); sleep 73 &'; sleep 74"
    made = daemon.api("POST", f"/containers/{one}/exec", {"Cmd": ["sh", "-c", script]}).json()["Id"]
    assert daemon.api("POST", f"/exec/{made}/start", {"Detach": True}).status == 200
    eventually(lambda: len(started()) == 4)
    assert daemon.api("POST", f"/exec/{made}/kill").status == 204
    eventually(lambda: daemon.api.get(f"/exec/{made}/json")["ExitCode"] == 137)
    eventually(lambda: not started())
    if runtime != "runc" or not Path("/sys/fs/cgroup/freezer").is_dir():
        return
    # Also who has left both its session and its parent.
    script = "setsid sh -c 'setsid sleep 75 & setsid sleep 76 &'; exec sleep 77"
    made = daemon.api("POST", f"/containers/{one}/exec", {"Cmd": ["sh", "-c", script]}).json()["Id"]
    assert daemon.api("POST", f"/exec/{made}/start", {"Detach": True}).status == 200
    eventually(lambda: len(started()) == 3)
    assert daemon.api("POST", f"/exec/{made}/kill").status == 204
    eventually(lambda: not started())


def test_a_probe_leaves_nothing(daemon: Daemon, run: Callable[..., str]) -> None:
    quick = ("--health-interval", "100ms", "--health-timeout", "30s", "--health-retries", "1")
    one = run("sleep", "60", options=(*quick, "--health-cmd", "(sleep 71 &); true & echo fine"))
    eventually(lambda: len(daemon.api.inspect(one)["State"]["Health"]["Log"]) >= 3)
    assert daemon.api.inspect(one)["State"]["Health"]["Status"] == "healthy"
    daemon.docker("pause", one)
    assert [*commands(daemon, one).values()] == ["sleep 60"]


@others
def test_health_checks(daemon: Daemon, run: Callable[..., str]) -> None:
    quick = ("--health-interval", "100ms", "--health-timeout", "500ms", "--health-retries", "1")
    one = run("sleep", "60", options=(*quick, "--health-cmd", "echo fine"))
    late = run("sleep", "60", options=(*quick, "--health-cmd", "echo slow; exec sleep 77"))

    def health(container: str) -> dict[str, Any]:
        shown: dict[str, Any] = daemon.api.inspect(container)["State"]["Health"]
        return shown

    eventually(lambda: health(one)["Status"] == "healthy")
    assert health(one)["Log"][0]["Output"] == "fine\n"
    eventually(lambda: health(late)["Status"] == "unhealthy")
    assert health(late)["Log"][0]["Output"] == "Health check exceeded timeout (500ms): slow\n"
    daemon.docker("pause", late)
    assert "sleep 77" not in daemon.docker("top", late).out


def test_volumes_and_parts(daemon: Daemon, runtime: str, tmp_path: Path) -> None:
    """What is bound is the same whoever binds it; owners are mapped by those only who say that they can."""
    volume = f"parts-{runtime}"
    daemon.docker(
        "run", "--rm", "-v", f"{volume}:/v", daemon.busybox, "sh", "-c", "mkdir /v/sub; echo x >/v/sub/f"
    )
    mounts = (
        *("--mount", f"type=volume,src={volume},dst=/m,volume-subpath=sub,readonly"),
        *("--mount", f"type=image,src={daemon.busybox},dst=/i,image-subpath=etc"),
    )
    script = "cat /m/f /i/plain; touch /m/new 2>/dev/null || echo refused"
    words = ("run", "--rm", "--runtime", runtime, *mounts, daemon.busybox, "sh", "-c", script)
    assert daemon.docker(*words).out == "x\nnot a program\nrefused\n"
    os.chown(tmp_path, 4321, 4321)
    bind = ("-v", f"{tmp_path}:/w:idmap=4321")
    words = ("run", "--rm", "--runtime", runtime, *bind, daemon.busybox, "touch", "/w/new")
    features = (
        subprocess.run([runtime, "features"], capture_output=True, text=True, check=False).stdout
        if (runtime != "sampan")
        else "ridmap"
    )
    done = daemon.docker(*words, code=None)
    if "ridmap" in features:
        assert done.code == 0 and (tmp_path / "new").stat().st_uid == 4321, done.err
    else:
        assert (
            done.code == 125 and f"idmap: the runtime {runtime} does not say that it maps owners" in done.err
        )
        assert not (tmp_path / "new").exists()
    daemon.docker("volume", "rm", volume)
