"""Start the machine's own daemon, or the user's, when nobody answers at the default socket."""

from __future__ import annotations

import os
import sys
import time

from sampan.cli.failures import ConnectionFailed
from sampan.places import SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.hosts import Host

PATIENCE_S = 20.0
RETRY_S, RETRIES = 0.5, 8
IDLE_EXIT_S = 600


def start_daemon(host: Host, error: OSError) -> None:
    """Start the daemon and return once it accepts connections.

    Raises:
        ConnectionFailed: not root, no right to the socket, or the daemon did not come up.
    """
    from sampan.cli.client import unreachable

    if isinstance(error, PermissionError):
        raise unreachable(host, error)
    folder = os.path.dirname(host.path)
    if os.geteuid() != 0:
        if host.path == SOCKET:
            raise ConnectionFailed(
                f"Cannot connect to the Sampan daemon at {host.url}, and only root may start it: "
                "use sudo, or let root start it and add you to the group sampan; a daemon of your own, "
                "without root, wants XDG_RUNTIME_DIR: log in, or `loginctl enable-linger`"
            )
        folder = f"{folder}/sampan"
        print("Starting a daemon of your own, without root (see `sampan info`)", file=sys.stderr)
    os.makedirs(folder, mode=0o711 if os.geteuid() == 0 else 0o700, exist_ok=True)
    log = os.path.join(folder, "sampand.log")
    child = _spawn(log)
    retry, deadline, attempts = 0.0, time.monotonic() + PATIENCE_S, RETRIES
    while not _answers(host.path):
        ended, status = os.waitpid(child, os.WNOHANG) if child else (0, 0)
        if ended:
            child = 0
            attempts -= 1
            if os.waitstatus_to_exitcode(status) != os.EX_TEMPFAIL or not attempts:
                raise ConnectionFailed(f"the sampan daemon did not start: {_last_line(log)} (see {log})")
            retry = time.monotonic() + RETRY_S
        elif not child and time.monotonic() > retry:
            child = _spawn(log)  # there was another, but it was about to leave
        if time.monotonic() > deadline:
            raise ConnectionFailed(
                f"the sampan daemon does not answer after {PATIENCE_S:.0f} seconds: "
                f"{_last_line(log)} (see {log})"
            )
        time.sleep(0.02)


def _spawn(log: str) -> int:
    """Start the daemon in a session of its own, its output in `log`; returns its pid."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    words = [sys.executable, "-m", "sampan.daemon", "--idle-exit", str(IDLE_EXIT_S)]
    environment = {**os.environ, "PYTHONPATH": search_path(root)}
    environment.pop("SAMPAN_HOST", None)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    pid = os.fork()
    if pid:
        os.close(output)
        return pid
    try:
        os.setsid()
        os.chdir("/")
        os.umask(0o022)
        null = os.open("/dev/null", os.O_RDWR)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        os.closerange(3, 1024)
        os.execve(words[0], words, environment)
    finally:
        os._exit(127)


def search_path(root: str) -> str:
    """PYTHONPATH for a program of ours that lies below `root`."""
    given = os.environ.get("PYTHONPATH", "")
    return f"{root}{os.pathsep}{given}" if given else root


def _answers(path: str) -> bool:
    import _socket

    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError:
        return False
    finally:
        connection.close()
    return True


def _last_line(log: str) -> str:
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return "it wrote no log"
    return lines[-1] if lines else "it wrote no log"
