"""An exec's processes, from outside: its program, its reaper, what they leave, and refused ones."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.engine.spec import lookup_user
from sampan.linux.process import parent
from support.engine import Daemon
from support.machine import eventually


@pytest.fixture
def lasting(daemon: Daemon) -> Iterator[str]:
    """A container that stays."""
    daemon.docker("run", "-d", "--name", "lasting", daemon.busybox, "sleep", "600")
    yield "lasting"
    daemon.api.remove("lasting")


def eventually_some(what: Callable[[], list[str]]) -> list[str]:
    """What is there once something is."""
    eventually(what)
    return what()


def create(daemon: Daemon, container: str, *words: str, **more: object) -> str:
    """Make an exec that tells its output, and do not start it."""
    body = {"Cmd": list(words), "AttachStdout": True, "AttachStderr": True, **more}
    answer = daemon.api("POST", f"/containers/{container}/exec", body)
    assert answer.status == 201, answer.body.decode()
    return str(answer.json()["Id"])


def start(daemon: Daemon, identifier: str) -> str:
    """What it prints, as raw text."""
    answer = daemon.api("POST", f"/exec/{identifier}/start", {"Detach": False, "Tty": True})
    assert answer.status == 200
    return answer.body.decode()


def processes(daemon: Daemon, container: str) -> set[int]:
    """All in the container's pid namespace, zombies too."""
    space = os.readlink(f"/proc/{daemon.api.pid(container)}/ns/pid")
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "ns/pid") == space:
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def runs(daemon: Daemon, container: str) -> list[str]:
    """The execs that have a directory or a cgroup."""
    identifier = daemon.api.inspect(container)["Id"]
    directories = [path.name for path in daemon.exec_root.glob(f"containers/{identifier}/exec/*")]
    leaves = Path("/sys/fs/cgroup").glob(f"**/{identifier}/exec-*")
    return sorted([*directories, *(path.name for path in leaves)])


def zombies(daemon: Daemon, container: str) -> list[str]:
    """Those in its pid namespace that nobody has waited for."""
    found = []
    for pid in processes(daemon, container):
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        if text.rpartition(")")[2].split()[0] == "Z":
            found.append(text)
    return found


def test_no_zombie_is_left_by_what_execs_leave(daemon: Daemon, lasting: str) -> None:
    """Process 1 is `sleep`, which never reaps; ordinary ones, with a terminal, detached, refused."""
    script = "for i in 1 2 3; do (true & sleep 0.1 &) ; done; (sleep 0.2 & exec true) & exit 4"
    daemon.docker("exec", lasting, "sh", "-c", script, code=4)
    daemon.docker("exec", "-d", lasting, "sh", "-c", script)
    daemon.docker("exec", lasting, "no-such-program", code=127)
    daemon.docker("exec", "-w", "/none", lasting, "true", code=127)
    one = create(daemon, lasting, "sh", "-c", script, Tty=True)
    start(daemon, one)
    eventually(lambda: len(processes(daemon, lasting)) == 1, what=str(zombies(daemon, lasting)))
    eventually(lambda: not runs(daemon, lasting))


def test_inspect_tells_the_program_and_not_its_reaper(daemon: Daemon, lasting: str) -> None:
    with daemon.docker.start("exec", lasting, "sleep", "605") as process:
        [one] = eventually_some(lambda: daemon.api.inspect(lasting)["ExecIDs"])
        pid = daemon.api.get(f"/exec/{one}/json")["Pid"]
        assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00605\x00"
        assert Path(f"/proc/{parent(pid)}/comm").read_text() == "sampan-reaper\n"
        os.kill(pid, signal.SIGTERM)
        assert process.wait(30) == 143
    assert daemon.api.get(f"/exec/{one}/json")["ExitCode"] == 143


def test_a_container_at_its_limit_refuses_an_exec_in_words(daemon: Daemon) -> None:
    """The reaper and the program need room; nothing half-made is left where there is none."""
    daemon.docker("run", "-d", "--name", "full", "--pids-limit", "1", daemon.busybox, "sleep", "600")
    try:
        refused = daemon.docker("exec", "full", "true", code=None)
        assert refused.code == 125 and "--pids-limit" in refused.out
        eventually(lambda: len(processes(daemon, "full")) == 1 and not runs(daemon, "full"))
    finally:
        daemon.api.remove("full")


@pytest.mark.parametrize(
    ("more", "text"),
    [({"User": "nobody-here"}, "unable to find user nobody-here"), ({"WorkingDir": "/none"}, "/none")],
    ids=["user", "directory"],
)
def test_what_is_wrong_with_it_is_told_at_the_start(
    daemon: Daemon, lasting: str, more: dict[str, str], text: str
) -> None:
    one = create(daemon, lasting, "true", **more)
    assert text in start(daemon, one)
    assert daemon.api.get(f"/exec/{one}/json")["ExitCode"] in (126, 127)
    eventually(lambda: len(processes(daemon, lasting)) == 1 and not runs(daemon, lasting))


def test_users_on_a_file_system_that_is_mounted_in_there(daemon: Daemon) -> None:
    """It may be one that does not answer: the daemon itself does not wait for it, a thread does."""
    script = "echo ann:x:5:6::/a:/ >/m/passwd; ln -sf /m/passwd /etc/passwd; echo ready; sleep 600"
    daemon.docker("run", "-d", "--name", "apart", "--tmpfs", "/m", daemon.busybox, "sh", "-c", script)
    try:
        eventually(lambda: "ready" in daemon.docker("logs", "apart").out)
        with pytest.raises(BlockingIOError):
            lookup_user(f"/proc/{daemon.api.pid('apart')}/root", "ann", prompt=True)
        ran = daemon.docker("exec", "-u", "ann", "apart", "sh", "-c", "id -u; echo $HOME")
        assert ran.out == "5\n/a\n"
    finally:
        daemon.api.remove("apart")


def test_the_container_ends_meanwhile(daemon: Daemon, lasting: str) -> None:
    one = create(daemon, lasting, "true")
    assert daemon.api("POST", f"/containers/{lasting}/kill").status == 204
    eventually(lambda: not daemon.api.inspect(lasting)["State"]["Running"])
    answer = daemon.api("POST", f"/exec/{one}/start", {"Detach": False, "Tty": False})
    assert answer.status == 409 and "is not running" in answer.body.decode()


def test_the_container_is_paused_meanwhile(daemon: Daemon, lasting: str) -> None:
    one = create(daemon, lasting, "echo", "thawed")
    daemon.docker("pause", lasting)
    assert daemon.api("POST", f"/exec/{one}/start", {"Detach": False, "Tty": False}).status == 409
    daemon.docker("unpause", lasting)
    assert start(daemon, one) == "thawed\n"
    eventually(lambda: len(processes(daemon, lasting)) == 1 and not runs(daemon, lasting))


def test_the_daemon_is_killed_meanwhile(daemon: Daemon, lasting: str) -> None:
    pid = daemon.api.pid("lasting")
    create(daemon, "lasting", "true")
    ended = create(daemon, "lasting", "sh", "-c", "exit 3")
    start(daemon, ended)
    daemon.kill9()
    daemon.start()
    assert daemon.api.pid("lasting") == pid
    seen = daemon.api("GET", f"/exec/{ended}/json")  # unless what it left had been removed already
    assert seen.status == 404 or seen.json()["ExitCode"] == 3
    eventually(lambda: not runs(daemon, "lasting"))
    eventually(lambda: processes(daemon, "lasting") == {pid})
    assert daemon.docker("exec", "lasting", "echo", "again").out == "again\n"
