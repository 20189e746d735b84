"""`sampan` with nobody there: it starts the machine's daemon, as root; others are told what to do.

On the default paths, so in namespaces of its own, with empty /run and /var/lib and a few users.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.engine import Daemon, copy_source
from support.images import busybox_tar
from support.machine import alive, eventually
from support.needs import program

pytestmark = program("unshare", "util-linux")
SOCKET = "/run/sampan/sampan.sock"
SET_UP = """
set -e
mount --make-rprivate /
mount -t tmpfs run /run
mount -t tmpfs lib /var/lib
ip link set lo up
for file in passwd group; do cp /etc/$file /run/$file; done
echo 'mate:x:4242:4242::/nonexistent:/bin/sh' >>/run/passwd
echo 'guest:x:4243:4243::/nonexistent:/bin/sh' >>/run/passwd
printf 'mate:x:4242:\\nguest:x:4243:\\n' >>/run/group
[ "$1" = no-group ] || echo 'sampan:x:4244:mate' >>/run/group
for file in passwd group; do mount --bind /run/$file /etc/$file; done
echo ready
exec sleep 1000
"""


class Machine:
    """A machine that has never seen a daemon."""

    def __init__(self, *options: str) -> None:
        command = ["unshare", "--mount", "--net", "sh", "-c", SET_UP, "sh", *options]
        self.holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self.holder.stdout is not None and self.holder.stdout.readline() == "ready\n"
        copy_source(self.path("/run/src"))

    def path(self, path: str) -> Path:
        """A path of the machine's, as seen from here."""
        return Path(f"/proc/{self.holder.pid}/root{path}")

    def argv(self, *words: str, user: str = "") -> list[str]:
        """A command line of ours in there, as root or as a user."""
        enter = ["nsenter", "--target", str(self.holder.pid), "--mount", "--net", "--wd=/"]
        if user:
            become = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"]
            return [*enter, *become, "/usr/bin/python3", "-m", "sampan.cli", *words]
        return [*enter, sys.executable, "-m", "sampan.cli", *words]

    def start(self, *words: str, user: str = "") -> subprocess.Popen[bytes]:
        """Start a command."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DOCKER_", "SAMPAN_"))}
        return subprocess.Popen(
            self.argv(*words, user=user),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**kept, "PYTHONPATH": "/run/src", "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"},
        )

    def __call__(self, *words: str, user: str = "", stdin: bytes = b"") -> tuple[int, str, str]:
        """Run a command: exit code, output, errors."""
        with self.start(*words, user=user) as process:
            out, err = process.communicate(stdin, timeout=60)
        return process.returncode, out.decode(), err.decode()

    @property
    def daemon_pid(self) -> int:
        """The daemon's pid, by its pidfile; 0 when there is none."""
        try:
            return int(self.path("/run/sampan/sampand.pid").read_text())
        except FileNotFoundError:
            return 0

    def end_daemon(self, signum: int = signal.SIGTERM) -> None:
        """End the daemon, and see it gone."""
        pid = self.daemon_pid
        if pid and alive(pid):
            os.kill(pid, signum)
            eventually(lambda: not alive(pid), what="the daemon ends")

    def end(self) -> None:
        """Take it down."""
        self.end_daemon()
        self.holder.kill()
        self.holder.communicate()


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    made = Machine(*getattr(request, "param", ()))
    yield made
    made.end()


def greeted(result: tuple[int, str, str]) -> bool:
    return result[0] == 0 and "Sampan" in result[1] and result[2] == ""


def test_clients_at_once_get_one_daemon(machine: Machine) -> None:
    for signum in (signal.SIGKILL, signal.SIGTERM):  # the second round finds a stale socket and pidfile
        clients = [machine.start("run", "--rm", "hello-world") for _ in range(6)]
        for client in clients:
            out, err = client.communicate(timeout=60)
            assert greeted((client.returncode, out.decode(), err.decode())), err
        assert alive(machine.daemon_pid)
        machine.end_daemon(signum)


def test_leftovers_of_others_are_no_obstacle(machine: Machine) -> None:
    """A socket nobody listens at, and a pidfile whose number belongs to somebody else by now."""
    machine.path("/run/sampan").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(machine.path(SOCKET)))
    other = subprocess.Popen(["sh", "-c", "sleep 100; : editing sampan/daemon.md"])
    try:
        machine.path("/run/sampan/sampand.pid").write_text(str(other.pid))
        assert greeted(machine("run", "--rm", "hello-world"))
        assert machine.daemon_pid != other.pid
    finally:
        other.kill()
        other.wait()


PROGRAM = """
import asyncio, threading, time
import sampan

async def main():
    async with sampan.connect() as s:
        print((await s.run("hello-world")).text)

threading.Thread(target=time.sleep, args=(0.5,)).start()  # a program with threads, which must not fork
asyncio.run(main())
"""


def test_a_python_program_starts_the_daemon(machine: Machine) -> None:
    command = [*machine.argv()[: -len(("python", "-m", "sampan.cli"))], sys.executable, "-W", "error", "-c"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DOCKER_", "SAMPAN_"))}
    environment = {**kept, "PYTHONPATH": "/run/src", "PYTHONDONTWRITEBYTECODE": "1"}
    for _ in range(2):
        done = subprocess.run(
            [*command, PROGRAM], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert greeted((done.returncode, done.stdout, done.stderr)), done.stderr
        assert alive(machine.daemon_pid)
        machine.end_daemon(signal.SIGKILL)
    refused = subprocess.run(
        [*command, PROGRAM.replace("connect()", "connect(start=False)")],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "ConnectionFailed: cannot connect" in refused.stderr and not alive(machine.daemon_pid)


def test_containers_outlive_a_dead_daemon(machine: Machine) -> None:
    assert machine("import", "-", "busybox", stdin=busybox_tar())[0] == 0
    assert machine("run", "-d", "--name", "lives", "busybox", "sleep", "1000")[0] == 0
    pid = machine("inspect", "--format", "{{.State.Pid}}", "lives")[1]
    before = machine.daemon_pid
    machine.end_daemon(signal.SIGKILL)
    assert machine("exec", "lives", "echo", "ahoy") == (0, "ahoy\n", "")
    assert machine.daemon_pid != before
    assert machine("inspect", "--format", "{{.State.Pid}}", "lives")[1] == pid
    assert machine("rm", "-f", "lives")[0] == 0


def test_a_daemon_that_cannot_start_says_why(machine: Machine) -> None:
    machine.path("/etc/sampan").mkdir(exist_ok=True)
    file = machine.path("/etc/sampan/daemon.json")
    if file.exists():
        pytest.skip("this machine has a daemon.json of its own")
    file.write_text("{ no json")
    try:
        code, _, err = machine("ps")
    finally:
        file.unlink()
        file.parent.rmdir()
    assert code == 1
    assert err.count("\n") == 1
    assert err.startswith("the sampan daemon did not start: sampand: ") and "daemon.json" in err


# --- users ---


def newer_system_python() -> bool:
    code = "import sys; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run(["/usr/bin/python3", "-c", code], check=False).returncode == 0
    except FileNotFoundError:
        return False


users = pytest.mark.skipif(not newer_system_python(), reason="needs Python 3.11 in /usr/bin, for other users")


@users
def test_a_user_with_no_daemon_is_told_what_to_do(machine: Machine) -> None:
    for words, code in ((["run", "hello-world"], 125), (["ps"], 1), (["info"], 1), (["version"], 1)):
        result = machine(*words, user="mate")
        assert result[0] == code
        (line,) = [line for line in result[2].splitlines() if "Cannot connect" in line]
        assert (
            "only root may start it: use sudo, or let root start it and add you to the group sampan" in line
        )
    assert not machine.path("/run/sampan").exists()


@users
def test_members_of_the_group_may_and_others_may_not(machine: Machine) -> None:
    assert greeted(machine("run", "--rm", "hello-world"))
    assert greeted(machine("run", "--rm", "hello-world", user="mate"))
    assert machine("ps", user="mate")[0] == 0
    for words, code in ((["run", "hello-world"], 125), (["ps"], 1), (["info"], 1)):
        result = machine(*words, user="guest")
        assert result[0] == code
        assert "permission denied" in result[2]
        assert (
            "use sudo, or join the group sampan (sudo usermod -aG sampan $USER, then log in again)"
            in result[2]
        )


@users
@pytest.mark.parametrize("machine", [("no-group",)], indirect=True)
def test_without_the_group_it_is_said_how_to_make_it(machine: Machine) -> None:
    assert greeted(machine("run", "--rm", "hello-world"))
    result = machine("ps", user="mate")
    assert result[0] == 1
    assert "sudo groupadd -f sampan, then a restart of sampand" in result[2]


# --- leaving when idle ---


def test_who_comes_as_it_leaves_is_served_or_finds_nobody(make_daemon: Callable[..., Daemon]) -> None:
    """Never in between: a connection that was accepted gets its answer."""
    own = make_daemon("--idle-exit", "1").start()
    left = 0
    for attempt in range(12):
        time.sleep(1 + 0.012 * attempt)  # across the moment of leaving
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            try:
                client.connect(own.socket)
            except (FileNotFoundError, ConnectionRefusedError):
                left += 1
                assert own.process is not None
                assert own.process.wait(20) == 0
                own.process = None
                own.start()
                continue
            client.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
    assert left, "it never left"
    own.end()
