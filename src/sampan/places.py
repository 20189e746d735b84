"""Where a daemon lives: the machine's own, and an ordinary user's (XDG Base Directory Specification)."""

from __future__ import annotations

import os

SOCKET = "/run/sampan/sampan.sock"


class Places:
    """Where a daemon keeps what.

    Attributes:
        config: its configuration file.
        data_root, exec_root: what outlives a reboot, and what does not.
        socket: where it listens.
    """

    __slots__ = ("config", "data_root", "exec_root", "socket")

    def __init__(self, config: str, data_root: str, exec_root: str, socket: str) -> None:
        self.config = config
        self.data_root = data_root
        self.exec_root = exec_root
        self.socket = socket


OF_MACHINE = Places("/etc/sampan/daemon.json", "/var/lib/sampan", "/run/sampan", SOCKET)


def of_user() -> Places:
    """Those of the user that we are.

    Raises:
        InvalidParameter: there is no directory for what runs.
    """
    runtime = runtime_directory()
    if not runtime:
        from sampan.errors import InvalidParameter

        raise InvalidParameter(
            "a daemon without root needs a directory that ends with the login, and XDG_RUNTIME_DIR names "
            "none: log in through logind (`loginctl enable-linger`), or name one that is yours alone"
        )
    home = os.path.expanduser("~")
    config = os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    data = os.environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
    return Places(
        f"{config}/sampan/daemon.json", f"{data}/sampan", f"{runtime}/sampan", f"{runtime}/sampan.sock"
    )


def runtime_directory() -> str:
    """The directory for what ends with the user's login: $XDG_RUNTIME_DIR, or logind's; "" for none."""
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if given.startswith("/"):
        return given
    usual = f"/run/user/{os.getuid()}"
    return usual if os.access(usual, os.W_OK | os.X_OK) else ""


def default_socket() -> str:
    """The daemon of who asks: the machine's for root and whoever may use it, else the user's own."""
    if os.geteuid() == 0 or os.access(SOCKET, os.W_OK):
        return SOCKET
    directory = runtime_directory()
    return f"{directory}/sampan.sock" if directory else SOCKET
