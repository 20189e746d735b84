"""The daemon under a service manager: sd_listen_fds(3), sd_notify(3), the systemd units that we ship."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.engine import SOURCE, TOKEN, Daemon
from support.machine import eventually
from support.needs import program

Maker = Callable[..., Daemon]
UNITS = SOURCE.parent / "packaging" / "systemd"

# Puts a descriptor where the protocol wants it and becomes the daemon, as a service manager's child does.
ACTIVATOR = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="sampan.socket")
os.execv(sys.executable, [sys.executable, "-m", "sampan.daemon", *sys.argv[2:]])
"""


class Manager:
    """A service manager of the smallest kind, with one listening socket and one place for notices."""

    def __init__(self, daemon: Daemon, listener: socket.socket) -> None:
        self.daemon = daemon
        self.listener = listener
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(str(daemon.base / "notify"))
        self.notices.settimeout(20)
        host = daemon.arguments.index("--host")
        daemon.arguments[host + 1] = "fd://"

    def spawn(self, activator: str = ACTIVATOR) -> subprocess.Popen[bytes]:
        """Start the daemon on the socket."""
        fd = self.listener.fileno()
        environment = {
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "SAMPAN_TEST": TOKEN,
            "NOTIFY_SOCKET": str(self.daemon.base / "notify"),
        }
        with self.daemon.log.open("ab") as log:
            self.daemon.process = subprocess.Popen(
                [sys.executable, "-c", activator, str(fd), *self.daemon.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=(fd,),
                start_new_session=True,
            )
        return self.daemon.process

    def notice(self) -> list[str]:
        """The next notice, line by line."""
        return self.notices.recv(4096).decode().splitlines()


@pytest.fixture
def manager(make_daemon: Maker) -> Iterator[Manager]:
    daemon = make_daemon()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(daemon.socket)
        listener.listen(16)
        made = Manager(daemon, listener)
        yield made
        made.notices.close()
        daemon.kill9()


def test_a_request_that_waits_at_the_socket_is_served(manager: Manager) -> None:
    daemon = manager.daemon
    with daemon.sampan.start("run", "--rm", "hello-world") as early:
        process = manager.spawn()
        out, err = early.communicate(timeout=30)
    assert (early.returncode, err) == (0, b"")
    assert b"Sampan" in out
    assert manager.notice() == ["READY=1", f"MAINPID={process.pid}"]
    assert daemon.docker("info", "--format", "{{.ServerVersion}}").out.strip()

    assert daemon.stop() == 0
    assert manager.notice() == ["STOPPING=1"]
    assert stat.S_ISSOCK(os.stat(daemon.socket).st_mode), "the socket file is the manager's"

    manager.spawn()  # by the next request, as a manager would
    assert daemon.docker("images", "-q").out
    assert daemon.stop() == 0


def test_containers_live_through_a_restart_of_the_service(manager: Manager) -> None:
    daemon = manager.daemon
    manager.spawn()
    daemon.docker("run", "-d", "--name", "lives", daemon.busybox, "sleep", "100")
    pid = daemon.api.pid("lives")
    assert daemon.stop() == 0
    manager.spawn()
    assert daemon.api.pid("lives") == pid
    daemon.docker("rm", "-f", "lives")
    assert daemon.stop() == 0


def test_a_tcp_socket_without_tls_is_refused(make_daemon: Maker) -> None:
    daemon = make_daemon()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Manager(daemon, listener)
        assert made.spawn().wait(20) == 1
        made.notices.close()
        daemon.process = None
    assert "a TCP socket was passed in: use --tlsverify" in daemon.log_text()


@pytest.mark.parametrize(
    "activator",
    [
        ACTIVATOR.replace('LISTEN_FDS="1", ', ""),
        ACTIVATOR.replace("str(os.getpid())", '"1"'),
        ACTIVATOR.replace('LISTEN_FDS="1"', 'LISTEN_FDS="0"'),
    ],
    ids=["no sockets", "somebody else's sockets", "none of them"],
)
def test_without_sockets_it_says_what_to_do(manager: Manager, activator: str) -> None:
    assert manager.spawn(activator).wait(20) == 1
    manager.daemon.process = None
    (line,) = manager.daemon.log_text().splitlines()
    assert "no sockets were passed in" in line and "socket activation" in line


@program("systemd-socket-activate", "systemd")
def test_systemds_own_activator(make_daemon: Maker) -> None:
    daemon = make_daemon()
    daemon.arguments[daemon.arguments.index("--host") + 1] = "fd://"
    words = [
        "-E",
        f"PYTHONPATH={SOURCE}",
        "-E",
        f"SAMPAN_TEST={TOKEN}",
        sys.executable,
        "-m",
        "sampan.daemon",
    ]
    with daemon.log.open("ab") as log:
        daemon.process = subprocess.Popen(
            ["systemd-socket-activate", "-l", daemon.socket, *words, *daemon.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    eventually(lambda: Path(daemon.socket).exists())
    assert "Sampan" in daemon.docker("run", "--rm", "hello-world").out
    assert daemon.stop() == 0


# --- the units ---


def settings(name: str) -> dict[str, str]:
    lines = (UNITS / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def test_the_units_fit_the_daemon_and_the_clients(daemon: Daemon) -> None:
    service = settings("sampan.service")
    words = shlex.split(service["ExecStart"])
    assert Path(words[0]).name == "sampand"
    checked = subprocess.run(
        [sys.executable, "-m", "sampan.daemon", *words[1:], "--validate"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout) == (0, "configuration OK\n"), checked.stderr
    assert (service["Type"], service["KillMode"]) == ("notify", "process")

    from sampan.daemon.settings import DEFAULT_GROUP
    from sampan.places import SOCKET

    sockets = settings("sampan.socket")
    assert (sockets["ListenStream"], sockets["SocketGroup"]) == (SOCKET, DEFAULT_GROUP)
    assert sockets["SocketMode"] == "0660"
    assert f"g {DEFAULT_GROUP} -" in (UNITS / "sampan.sysusers").read_text()

    theirs = settings("user/sampan.socket")
    assert (theirs["ListenStream"], theirs["SocketMode"]) == ("%t/sampan.sock", "0600")
    assert settings("user/sampan.service")["ExecStart"] == service["ExecStart"]


@program("systemd-analyze", "systemd")
@pytest.mark.parametrize("whose", ["system", "user"])
def test_systemd_understands_the_units(tmp_path: Path, whose: str) -> None:
    for unit in (UNITS if whose == "system" else UNITS / whose).iterdir():
        if unit.is_file():
            shutil.copy(unit, tmp_path)
    service = tmp_path / "sampan.service"
    service.write_text(service.read_text().replace("/usr/bin/sampand", "/bin/true"))
    verify = [
        "systemd-analyze",
        f"--{whose}",
        "verify",
        "--recursive-errors=no",
        str(service),
        str(tmp_path / "sampan.socket"),
    ]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(verify, env=environment, capture_output=True, text=True, check=False)
    if "Failed to" in done.stderr and "sampan" not in done.stderr:
        pytest.skip(f"systemd-analyze does not work here: {done.stderr.strip()[:200]}")
    assert (done.returncode, done.stderr) == (0, "")
