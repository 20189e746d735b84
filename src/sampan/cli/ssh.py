"""A daemon on another machine, by way of the system's ssh(1); imported only for `-H ssh://`.

As docker does it: ssh runs `system dial-stdio` over there, whose standard input and output are the
connection. Keys, ports, jump hosts and the like are ssh's own configuration.
"""

from __future__ import annotations

import os
import signal
from urllib.parse import unquote, urlsplit

from sampan.cli.failures import CommandError, ConnectionFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.hosts import Host


def command(url: str) -> list[str]:
    """The command line that reaches the daemon of `ssh://[USER@]HOST[:PORT][/SOCKET]`.

    Raises:
        CommandError: it is no such URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise CommandError(f"invalid ssh URL: {url}: {error}") from None
    if parts.password is not None:
        raise CommandError("invalid ssh URL: a password in it is not supported: use a key, or ssh-agent")
    name = parts.hostname or ""
    if not name or name.startswith("-"):
        raise CommandError(f"invalid ssh URL: {url}: the name of the host is missing")
    if parts.query or parts.fragment:
        raise CommandError(f"invalid ssh URL: {url}: nothing may follow the path")
    words = ["ssh"]
    if parts.username:
        words += ["-l", unquote(parts.username)]
    if port is not None:
        words += ["-p", str(port)]
    return [*words, "-o", "ConnectTimeout=30", "-T", "--", name, _remote(unquote(parts.path))]


def _remote(path: str) -> str:
    """What the other machine's shell is told: ours if it is there, else docker, which may be ours as well."""
    socket = f"--host=unix://{path} " if path.strip("/") else ""
    if "'" in socket or '"' in socket:
        raise CommandError(f"invalid ssh URL: the socket's path {path} has a quote in it")
    words = f'"{socket.strip()}" system dial-stdio' if socket else "system dial-stdio"
    ours = f"command -v sampan >/dev/null 2>&1; then exec sampan {words}"
    return f"sh -c 'if {ours}; else exec docker {words}; fi'"


def connect(host: Host) -> Any:
    """A socket whose other end is ssh.

    Raises:
        ConnectionFailed: there is no ssh here.
    """
    import _socket

    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    end = theirs.fileno()
    try:
        # In a session of its own: Ctrl-C is for the command, which may have more to say to the daemon.
        os.posix_spawnp(
            "ssh", command(host.url), os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, end, 0), (os.POSIX_SPAWN_DUP2, end, 1)],
            setsid=True, setsigdef=(signal.SIGPIPE, signal.SIGINT),
        )  # fmt: skip
    except FileNotFoundError:
        raise ConnectionFailed(
            f"cannot reach {host.url}: there is no ssh here; install openssh-client"
        ) from None
    finally:
        theirs.close()
    return ours
